"""Blurring and shuffling over the grid of image tokens."""

from collections.abc import Sequence
from math import ceil, prod

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


def shuffled(tokens: Tensor) -> Tensor:
    """Image tokens (rows, tokens, …, channels) in another order: the same for equal numbers, on every device."""
    flat = tokens.flatten(1, -2)
    order = torch.randperm(flat.shape[1], generator=torch.Generator().manual_seed(0)).to(flat.device)
    return flat[:, order].view(tokens.shape)


def blurred(tokens: Tensor, grid: Sequence[int], sigma: float) -> Tensor:
    """Image tokens blurred over rows and columns, frame by frame; past the border stands the border's own token.

    Args:
        tokens: (rows, …, channels), of which the middle dimensions are the grid's, or one of its product.
        grid: frames (of a video), rows and columns.
        sigma: deviation of the Gaussian in tokens; infinity is the mean of the frame.
    """
    if prod(tokens.shape[1:-1]) != prod(grid):
        raise ValueError(f"{prod(tokens.shape[1:-1])} image tokens are no grid of {tuple(grid)}.")
    height, width = grid[-2:]
    pictures = tokens.reshape(-1, height, width, tokens.shape[-1])
    if sigma == torch.inf:
        return pictures.mean(dim=(1, 2), keepdim=True).expand_as(pictures).reshape(tokens.shape)
    reach = ceil(2 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=tokens.device) / sigma) ** 2).to(tokens.dtype)
    kernel = kernel / kernel.sum()
    planes = pictures.permute(0, 3, 1, 2).reshape(-1, 1, height, width)
    planes = conv2d(pad(planes, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))
    planes = conv2d(pad(planes, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    return planes.view(len(pictures), -1, height, width).permute(0, 2, 3, 1).reshape(tokens.shape)
