"""The foreground of a picture, as its massive channels divide it."""

# [FC] is arXiv 2605.13974.

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import one_hot

ROUNDS = 10


@dataclass(frozen=True)
class Foreground:
    """The foreground as a region, sought without a word.

    Attributes:
        layer: 0 to 1, the block whose input is read, as a fraction of the depth.
        channels: ≥ 1, so many of the largest are read.
    """

    layer: float
    channels: int
    names: ClassVar[tuple[str, ...]] = ("foreground",)


def largest_channels(z: Tensor, count: int) -> Tensor:
    """The values of the channels of greatest mean magnitude in each picture.

    Args:
        z: hidden state of the pictures' tokens, (pictures, tokens, channels).

    Returns:
        float32 (pictures, count, tokens).
    """
    magnitude = torch.linalg.vector_norm(z, ord=1, dim=1, dtype=torch.float32)
    largest = magnitude.topk(min(count, z.shape[-1]), dim=1).indices
    return z.gather(2, largest[:, None].expand(-1, z.shape[1], -1)).transpose(1, 2).float()


def nearness(values: Tensor) -> Tensor:
    """Two clusters of a picture's tokens by the values of its largest channels ([FC]: k-means, K = 2). The foreground
    is that of which less lies on the picture's border.

    The same number of Lloyd's rounds always, from the two sides of the first principal component: nothing waits for the
    device, and nothing is drawn.

    Args:
        values: (pictures, channels, …, rows, columns).

    Returns:
        (pictures, 2, …, rows, columns): how near each token is to the foreground, and to the rest; together 1.
    """
    tokens = values.flatten(2).transpose(1, 2)
    tokens = tokens - tokens.mean(dim=1, keepdim=True)
    tokens = tokens / tokens.std(dim=1, keepdim=True).clamp_min(torch.finfo(tokens.dtype).tiny)
    sides = (tokens @ _first_component(tokens) > 0).to(tokens)
    cluster = torch.cat([sides, 1 - sides], dim=2)
    for _ in range(ROUNDS):
        centres = cluster.transpose(1, 2) @ tokens / cluster.sum(dim=1)[..., None].clamp_min(1)
        distance = torch.cdist(tokens, centres)
        cluster = one_hot(distance.argmin(dim=2), 2).to(tokens)
    border = _border(values).flatten()
    on_border = border @ cluster / cluster.sum(dim=1).clamp_min(1)  # (pictures, 2)
    foreground = on_border.argmin(dim=1).view(-1, 1, 1)
    away = torch.where(foreground == 0, distance, distance.flip(2))
    near = away.flip(2) / away.sum(dim=2, keepdim=True).clamp_min(torch.finfo(away.dtype).tiny)
    return near.transpose(1, 2).unflatten(2, values.shape[2:])


def _first_component(tokens: Tensor) -> Tensor:
    """First principal component of tokens (pictures, tokens, channels) of zero mean, (pictures, channels, 1), by the
    power
    method."""
    covariance = tokens.transpose(1, 2) @ tokens
    longest = covariance.norm(dim=1).argmax(dim=1).view(-1, 1, 1).expand(-1, covariance.shape[1], 1)
    component = covariance.gather(2, longest)  # never across the first component
    for _ in range(ROUNDS):
        component = covariance @ component
        component = component / component.norm(dim=1, keepdim=True).clamp_min(torch.finfo(component.dtype).tiny)
    return component


def _border(values: Tensor) -> Tensor:
    """1 where a token of values (pictures, channels, …, rows, columns) touches the picture's border, (…, rows,
    columns)."""
    border = torch.ones_like(values[0, 0])
    border[..., 1:-1, 1:-1] = 0
    return border
