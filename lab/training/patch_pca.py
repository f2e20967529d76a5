"""The autoencoder's encoder: a principal component analysis of 8 × 8 pixel patches, written into TAESD's layers.

A linear map into 16 numbers per patch keeps 98 % of the photographs' variance. It needs no training, so all of the
training goes into the decoder and the diffusion model.
"""

import itertools
from dataclasses import dataclass

import photographs
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

PATCH = 8
CHANNELS = 16
CLAMP = 3.0  # TAESD's decoder squashes latents towards ± 3


@dataclass
class PatchPCA:
    mean: Tensor  # (3 · 64,)
    components: Tensor  # (CHANNELS, 3 · 64), scaled: latents have at most unit variance

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, h, w) in 0 … 1 → latents (n, CHANNELS, h / 8, w / 8)."""
        n, _, height, width = pictures.shape
        patches = unfold(pictures, PATCH, stride=PATCH).transpose(1, 2) - self.mean
        return (patches @ self.components.T).transpose(1, 2).view(n, CHANNELS, height // PATCH, width // PATCH)


def fit(pictures: dict[str, Tensor]) -> PatchPCA:
    """The PCA of photographs' crops."""
    generator = torch.Generator().manual_seed(3)
    return fit_crops(torch.cat([photographs.crops(picture, 48, generator) for picture in pictures.values()]))


def fit_crops(crops: Tensor) -> PatchPCA:
    """The PCA of the patches of crops (n, 3, height, width)."""
    patches = unfold(crops, PATCH, stride=PATCH).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(dim=0)
    _, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    components = vectors.flip(1).T[:CHANNELS]
    latents = (patches - mean) @ components.T
    # 99 of 100 latents within the clamp: textures' components have heavy tails.
    tail = torch.quantile(latents[::8].abs(), 0.99, dim=0) / CLAMP
    return PatchPCA(mean, components / torch.maximum(latents.std(dim=0), tail)[:, None])


@torch.no_grad()
def write_into(encoder: nn.Sequential, pca: PatchPCA, trainable: bool = False) -> None:
    """Make TAESD's encoder compute `pca.encode` exactly; a trainable one keeps what it has in channels that this leaves
    free.

    Its three strided convolutions gather 2 × 2 neighbours each; its residual blocks pass non-negative numbers on when
    their last convolution is zero. Components may be negative and travel as a pair of non-negative channels.
    """
    first, *strided, last = [layer for layer in encoder if isinstance(layer, nn.Conv2d)]
    if not trainable:
        for parameter in encoder.parameters():
            parameter.zero_()
    else:
        for block in (layer for layer in encoder if hasattr(layer, "conv")):  # residual: nothing is added at first
            block.conv[-1].weight.zero_()
            block.conv[-1].bias.zero_()
        for layer, outputs in zip([first, *strided, last], (3, 12, 48, 2 * CHANNELS, CHANNELS), strict=True):
            layer.weight[:outputs] = 0
            if layer.bias is not None:
                layer.bias[:outputs] = 0
    first.weight[range(3), range(3), 1, 1] = 1
    for layer, channels in zip(strided[:2], (3, 12), strict=True):
        for channel, dy, dx in itertools.product(range(channels), range(2), range(2)):
            layer.weight[4 * channel + 2 * dy + dx, channel, 1 + dy, 1 + dx] = 1
    components = pca.components.view(CHANNELS, 3, PATCH, PATCH)
    halves = list(itertools.product(range(2), range(2)))
    for channel, (dy1, dx1), (dy2, dx2), (dy3, dx3) in itertools.product(range(3), halves, halves, halves):
        source = 16 * channel + 4 * (2 * dy1 + dx1) + 2 * dy2 + dx2
        column = components[:, channel, dy1 + 2 * dy2 + 4 * dy3, dx1 + 2 * dx2 + 4 * dx3]
        strided[2].weight[:CHANNELS, source, 1 + dy3, 1 + dx3] = column
        strided[2].weight[CHANNELS : 2 * CHANNELS, source, 1 + dy3, 1 + dx3] = -column
    last.weight[range(CHANNELS), range(CHANNELS), 1, 1] = 1
    last.weight[range(CHANNELS), range(CHANNELS, 2 * CHANNELS), 1, 1] = -1
    last.bias.copy_(-pca.components @ pca.mean)
