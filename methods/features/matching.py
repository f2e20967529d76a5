"""Where points and masks of one picture lie in another, by their features; and what a picture's features show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate, normalize, one_hot

# [DINO] arXiv 2104.14294, appendix: propagation of DAVIS' masks.
NEIGHBOURS = 5
TEMPERATURE = 0.1
RADIUS = 12  # tokens


@dataclass(frozen=True)
class Match:
    """The place of one point of a picture in another.

    Attributes:
        x, y: in the other picture, in pixels.
        likeness: cosine similarity there, −1 to 1.
        mutual: whether the best place for what is found lies within a token of the point again.
        heat: cosine similarity over the other picture's tokens, (rows, columns).
    """

    x: float
    y: float
    likeness: float
    mutual: bool
    heat: Tensor


def match(source: Tensor, target: Tensor, x: float, y: float, size: tuple[int, int], other: tuple[int, int]) -> Match:
    """The place in the target that is most like a point of the source.

    Args:
        source, target: features of two pictures, (channels, rows, columns).
        x, y: the point, in pixels of the source.
        size, other: height and width of the source and of the target, in pixels.
    """
    heat = likeness(at(source, x, y, size)[:, None], target)[0]
    column, row = peak(heat)
    found = (column / heat.shape[1] * other[1], row / heat.shape[0] * other[0])
    back = peak(likeness(at(target, *found, other)[:, None], source)[0])
    rows, columns = source.shape[1:]
    away = max(abs(back[0] - x / size[1] * columns), abs(back[1] - y / size[0] * rows))
    return Match(*found, float(heat.max()), away <= 1.0, heat)


def at(features: Tensor, x: float, y: float, size: tuple[int, int]) -> Tensor:
    """Features (channels, rows, columns) at a place in pixels, between tokens interpolated: (channels,)."""
    height, width = size
    place = features.new_tensor([2 * x / width - 1, 2 * y / height - 1]).view(1, 1, 1, 2)
    return grid_sample(features[None], place, padding_mode="border", align_corners=False).flatten()


def likeness(vectors: Tensor, features: Tensor) -> Tensor:
    """Cosine similarity of vectors (channels, n) and each token of features: (n, rows, columns)."""
    tokens = normalize(features.flatten(1), dim=0)
    return (normalize(vectors, dim=0).T @ tokens).view(-1, *features.shape[1:])


def alike_to_mask(source: Tensor, labels: Tensor, target: Tensor) -> Tensor:
    """Cosine similarity of the target's tokens to the mean of the source's in a mask (1, rows, columns)."""
    mean = (normalize(source.flatten(1), dim=0) * labels.flatten(1)).sum(dim=1, keepdim=True)
    return likeness(mean, target)[0]


def peak(heat: Tensor) -> tuple[float, float]:
    """The highest place of a map (rows, columns), (column, row) in tokens from its upper left corner: the top of a
    parabola through the best token and its neighbours, along each direction."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return column + 0.5 + _top(heat[row], column), row + 0.5 + _top(heat[:, column], row)


def _top(values: Tensor, best: int) -> float:
    """Distance from the best of these values to the top, at most half a step; none at the ends."""
    if not 0 < best < len(values) - 1:
        return 0.0
    before, here, behind = (float(value) for value in values[best - 1 : best + 2])
    bend = before - 2 * here + behind
    return 0.5 * (before - behind) / bend if bend < 0 else 0.0


def transfer(source: Tensor, labels: Tensor, target: Tensor, mutual: bool = False) -> Tensor:
    """Labels of a picture's tokens for another's: what the most alike NEIGHBOURS tokens have, by likeness.

    Args:
        source, target: features, (channels, rows, columns).
        labels: labels of the source's tokens, (labels, rows, columns), 0 to 1.
        mutual: tokens whose most alike token's own most alike token is elsewhere, by more than one token, get 0.

    Returns:
        (labels, rows, columns) of the target.
    """
    alike = likeness(target.flatten(1), source).flatten(1)  # (target's tokens, source's tokens)
    moved = _voted(alike, labels.flatten(1)).view(-1, *target.shape[1:])
    return moved * _returns(alike, target.shape[1:]) if mutual else moved


def follow(features: Tensor, labels: Tensor, earlier: int) -> Tensor:
    """Labels of a video's first frame for all frames: each takes them from the first frame and from so many before it,
    within RADIUS tokens of the same place.

    Args:
        features: (frames, channels, rows, columns).
        labels: labels of the first frame's tokens, (labels, rows, columns).

    Returns:
        (frames, labels, rows, columns); the first frame's as they were.
    """
    rows, columns = features.shape[2:]
    unit = normalize(features, dim=1)  # once, not for every row's band
    far = (torch.arange(columns)[:, None] - torch.arange(columns)).abs() > RADIUS
    known = [labels]
    for frame in range(1, len(features)):
        sources = sorted({0, *range(max(0, frame - earlier), frame)})
        found = torch.empty_like(labels)
        for row in range(rows):  # of which only a band of the sources is within reach
            band = slice(max(0, row - RADIUS), row + RADIUS + 1)
            alike = [torch.einsum("cn,crm->nrm", unit[frame, :, row], unit[source][:, band]) for source in sources]
            near = torch.cat([each.masked_fill(far[:, None], -torch.inf).flatten(1) for each in alike], dim=1)
            votes = torch.cat([known[source][:, band].flatten(1) for source in sources], dim=1)
            found[:, row] = _voted(near, votes)
        known.append(found)
    return torch.stack(known)


def _voted(alike: Tensor, labels: Tensor) -> Tensor:
    """(n, m) likenesses and labels (l, m) → (l, n)."""
    best = alike.topk(min(NEIGHBOURS, alike.shape[1]), dim=1)
    weights = torch.softmax(best.values / TEMPERATURE, dim=1)
    return (labels[:, best.indices] * weights).sum(dim=-1)


def _returns(alike: Tensor, grid: torch.Size) -> Tensor:
    """Whether each of the target's tokens is found again from the token it found, (rows, columns)."""
    forth, back = alike.argmax(dim=1), alike.argmax(dim=0)
    again, here = back[forth], torch.arange(len(alike))
    columns = grid[1]
    away = torch.maximum((again // columns - here // columns).abs(), (again % columns - here % columns).abs())
    return (away <= 1).view(grid)


def tokens_of_mask(mask: Tensor, grid: Sequence[int]) -> Tensor:
    """A mask (height, width) as its mean over each token, (1, rows, columns)."""
    return interpolate(mask[None, None].float(), list(grid), mode="area")[0]


def to_pixels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (labels, rows, columns) over a picture of this height and width."""
    return interpolate(labels[None], size, mode="bilinear", align_corners=False)[0]


# What a picture's features show


def components(features: Tensor, count: int = 3) -> Tensor:
    """The first principal components over all pictures' tokens, (pictures, count, rows, columns), each between its 1st
    and 99th percentile as 0 to 1; the sign of each makes its largest loading positive.

    Args:
        features: (pictures, channels, rows, columns).
    """
    tokens = features.movedim(1, -1).flatten(0, -2).double()
    centred = tokens - tokens.mean(dim=0)
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :count]
    vectors = vectors * vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True)).sign()
    projected = (centred @ vectors).float()
    low, high = torch.quantile(projected, torch.tensor([0.01, 0.99]), dim=0)
    shown = ((projected - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
    pictures, _, rows, columns = features.shape
    return shown.view(pictures, rows, columns, -1).movedim(-1, 1)


def parts(features: Tensor, count: int) -> Tensor:
    """k-means over all pictures' tokens, by cosine: bool (pictures, count, rows, columns), the largest part first.

    Raises:
        ValueError: more parts than tokens.
    """
    pictures, _, rows, columns = features.shape
    tokens = normalize(features.movedim(1, -1).flatten(0, -2), dim=1)
    if count > len(tokens):
        raise ValueError(f"parts: {count} is more than the {len(tokens)} tokens there are. Take fewer.")
    _, labels = kmeans2(tokens.double().numpy(), count, minit="++", seed=np.random.default_rng(0))
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    ranks = torch.from_numpy(np.argsort(order))[torch.from_numpy(labels.astype(np.int64))]
    return one_hot(ranks, count).bool().view(pictures, rows, columns, count).movedim(-1, 1)
