"""Massive activations: which channels carry them, and how they are disrupted."""

from collections.abc import Sequence

import torch
from torch import Tensor


def magnitudes(z: Tensor) -> Tensor:
    """Mean of |z| over rows and tokens: hidden state (rows, tokens, …, channels) → float32 (channels,)."""
    # A norm and not z.abs(), which would be a second hidden state in memory.
    total = torch.linalg.vector_norm(z, ord=1, dim=tuple(range(z.ndim - 1)), dtype=torch.float32)
    return total / (z.numel() / z.shape[-1])


def peak_ratio(z: Tensor) -> Tensor:
    """Magnitude of the most massive channel over the median channel's, float32 ()."""
    magnitude = magnitudes(z)
    return magnitude.max() / magnitude.quantile(0.5)


def massive_channels(z: Tensor, ratio: float, at_most: int) -> Tensor:
    """The channels whose magnitude exceeds `ratio` times the median over channels, the `at_most` largest of them.

    No public source gives a threshold ([DG] picks channels by eye). Decided on the device of z, without waiting for it.

    Args:
        z: hidden state of image tokens, (rows, tokens, …, channels).
        ratio: ≥ 1; raising it keeps only channels that stand out more.
        at_most: ≥ 1.

    Returns:
        bool (channels,), true where massive.
    """
    return most_massive(magnitudes(z), ratio, at_most)


def most_massive(magnitude: Tensor, ratio: float, at_most: int) -> Tensor:
    """`massive_channels` of magnitudes measured before, (channels,)."""
    largest = magnitude.topk(min(at_most, len(magnitude)))
    massive = largest.values > ratio * magnitude.quantile(0.5)  # Tensor.median is the lower of two middle values
    return torch.zeros_like(magnitude, dtype=torch.bool).scatter(0, largest.indices, massive)


def listed_channels(channels: Sequence[int], like: Tensor) -> Tensor:
    """The listed channels in the form of `massive_channels`' result, for a hidden state (…, channels).

    Raises:
        ValueError: a channel that this hidden state does not have.
    """
    width = like.shape[-1]
    beyond = [channel for channel in channels if channel >= width]
    if beyond:
        raise ValueError(
            f"channels: {', '.join(map(str, beyond))} cannot be disrupted, this model's channels are 0 to {width - 1}. "
            'Correct the list, or use "auto".'
        )
    index = torch.arange(width, device=like.device)
    chosen = torch.zeros_like(index, dtype=torch.bool)
    for channel in channels:  # scalar comparisons: no copy from host to device, so no wait
        chosen |= index == channel
    return chosen


# How channels are disrupted: each of these changes the given channels of every token in place, with nothing allocated
# but one number per channel where that can be: a video's hidden state has gigabytes. z is the hidden state of image
# tokens, (rows, tokens, …, channels); channels is bool (channels,); keep is ρ, 0 to 1: 1 changes nothing.


def disrupt_(z: Tensor, channels: Tensor, keep: float = 0.0) -> None:
    """Multiply the channels by ρ: zero takes them away, as in [DG]; more of it softens that, as in [EMA]."""
    if keep == 0:
        z.masked_fill_(channels, 0)
    else:
        z.mul_(torch.where(channels, keep, 1.0))


def amplify_(z: Tensor, channels: Tensor, keep: float = 0.0) -> None:
    """Multiply the channels by 2 − ρ: at most twice their value, as far from it as zero is."""
    z.mul_(torch.where(channels, 2 - keep, 1.0))


def average_(z: Tensor, channels: Tensor, keep: float = 0.0) -> None:
    """Move each channel towards its mean over the picture's tokens."""
    mean = z.mean(dim=tuple(range(1, z.ndim - 1)), keepdim=True)
    z.lerp_(mean, (1 - keep) * channels.to(z.dtype))


def shuffle_(z: Tensor, channels: Tensor, keep: float = 0.0) -> None:
    """Move each channel towards its value at another token; tokens are exchanged alike in all of them."""
    flat = z.flatten(1, -2)
    order = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0)).to(z.device)
    z.lerp_(flat[:, order].view(z.shape), (1 - keep) * channels.to(z.dtype))
