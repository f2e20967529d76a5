"""Which part of a picture is meant, and its masks: of what was read of it, step by step.

What is read are maps (pictures, regions + 1, …), of each region and last of the rest.
"""

# [Seg4Diff] is arXiv 2509.18096.

import torch
from torch import Tensor

from .foreground import Foreground
from .words import Words

Region = Words | Foreground


def shares(maps: Tensor) -> Tensor:
    """Each region's share of a place against the rest, 0 to 1, (pictures, regions, …).

    Of a prompt without other words, whose rest is 0, the attention from its lowest to its highest.
    """
    regions, rest = maps[:, :-1], maps[:, -1:]
    tiny = torch.finfo(maps.dtype).tiny
    low, high = (each.view(*regions.shape[:2], *[1] * (maps.ndim - 2)) for each in regions.flatten(2).aminmax(dim=2))
    alone = (regions - low) / (high - low).clamp_min(tiny)
    return torch.where(rest.any(), regions / (regions + rest).clamp_min(tiny), alone)  # without waiting for the device


def soft_masks(maps: Tensor, soft: float) -> Tensor:
    """Masks (pictures, regions, …) of `shares`: 1 above and 0 below a half, over an edge of this width (0 to 1)."""
    above = shares(maps) - 0.5
    return (above > 0).to(above.dtype) if soft == 0 else (above / soft + 0.5).clamp(0, 1)


def divided(maps: Tensor) -> Tensor:
    """Masks (pictures, regions, …) of 0 and 1 that share no place: each is the region's that has most of it, or none's
    ([Seg4Diff], equation 5)."""
    regions, rest = maps[:, :-1], maps[:, -1:]
    if not rest.any():  # no other words: what gets least attention is none's
        regions, rest = shares(maps), torch.full_like(rest, 0.5)
    largest = torch.cat([regions, rest], dim=1).argmax(dim=1, keepdim=True)
    numbers = torch.arange(regions.shape[1], device=maps.device).view(1, -1, *[1] * (maps.ndim - 2))
    return (largest == numbers).to(maps.dtype)
