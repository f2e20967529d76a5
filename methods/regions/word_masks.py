"""Masks of words or of the foreground in pictures: of what a model samples, or of pictures of any origin, which are
noised and read."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.utils import ProgressBar
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ...dit import KSamplerSettings, anatomy_of, forward_noised, ksample
from ...dit.encoding import encoded, require_one_caption
from .masks import Region, divided, soft_masks
from .reader import NOTHING, read_each_step

COUNTS_FROM = 0.5  # of a run's steps: in the late ones the layout is the picture's
DRAWS = 4  # of noise, of a picture that is read


@dataclass(frozen=True)
class WordMasks:
    """Masks over pictures.

    Attributes:
        pictures: (pictures, height, width, 3), 0 to 1.
        masks: (pictures, regions, height, width), 0 to 1.
        latent: the host's LATENT of the pictures.
    """

    pictures: Tensor
    masks: Tensor
    latent: dict[str, Any]


@dataclass(frozen=True)
class MaskForm:
    """The form of the masks that maps become.

    Attributes:
        exclusive: whether every place is one region's, or none's; else each region has a mask with a soft edge.
        softness: 0 to 1, width of a soft mask's edge.
    """

    exclusive: bool
    softness: float

    def masks(self, maps: Tensor) -> Tensor:
        """Masks (pictures, regions, …) of maps (pictures, regions + 1, …)."""
        return divided(maps) if self.exclusive else soft_masks(maps, self.softness)


def masks_of_sampling(
    model: ModelPatcher,
    positive: list,
    negative: list | None,
    latent: dict[str, Any],
    vae: VAE,
    region: Region,
    settings: KSamplerSettings,
    form: MaskForm,
) -> WordMasks:
    """Sample as KSampler and read the region in the later half of the steps, which costs no forward.

    Raises:
        ValueError: the region cannot be read on this model, or nothing was read.
    """
    seen: list[Tensor] = []
    reading = read_each_step(model, region, seen.append)
    sampled = ksample(reading, positive, negative or positive, latent, settings).latent
    pictures = vae.decode(sampled["samples"]).flatten(0, -4)[..., :3].cpu()
    maps = _as_large(_mean(seen), len(pictures), pictures.shape[1:3])
    return WordMasks(pictures, form.masks(maps), sampled)


def masks_of_pictures(
    model: ModelPatcher,
    positive: list,
    image: Tensor,
    vae: VAE | None,
    region: Region,
    noise_level: float,
    seed: int,
    form: MaskForm,
) -> WordMasks:
    """Noise pictures, forward them once and read the region.

    Args:
        model: without anything that guides its sampling.
        image: (pictures, height, width, channels), 0 to 1.
        noise_level: between 0 and 1, the noise's share in what the model is given.

    Raises:
        ValueError: the region cannot be read on this model, there is not one caption, or no picture to encode.
    """
    require_one_caption(positive)
    seen: list[Tensor] = []
    reading = read_each_step(model, region, seen.append)
    latent, size = encoded(anatomy_of(model), vae, image)
    maps = _as_large(_read(reading, positive, latent, noise_level, seed, seen), len(image), size)
    beyond = image.shape[2] - size[1], image.shape[1] - size[0]  # what fills no token
    maps = pad(maps, (0, beyond[0], 0, beyond[1]), mode="replicate")
    return WordMasks(image[..., :3].cpu(), form.masks(maps), {"samples": latent})


def _read(
    reading: ModelPatcher, positive: list, latent: Tensor, noise_level: float, seed: int, seen: list[Tensor]
) -> Tensor:
    """The maps of pictures that are noised and forwarded, (pictures, regions + 1, …)."""
    sums: list[Any] = [0] * len(latent)
    bar = ProgressBar(DRAWS * len(latent))
    for pictures in forward_noised(reading, positive, latent, noise_level, DRAWS, seed):
        for picture, maps in zip(pictures, _mean(seen), strict=True):
            sums[picture] = sums[picture] + maps / DRAWS
        seen.clear()
        bar.update(len(pictures))
    return torch.stack(sums)


def _mean(seen: list[Tensor]) -> Tensor:
    """The mean of the maps of the steps that count.

    Raises:
        ValueError: nothing was read.
    """
    if not seen:
        raise ValueError(NOTHING)
    return torch.stack(seen[int(COUNTS_FROM * len(seen)) :]).mean(dim=0).cpu()


def _as_large(maps: Tensor, pictures: int, size: Sequence[int]) -> Tensor:
    """Maps (pictures, regions, …, height, width) for so many pictures of this height and width: (pictures, regions,
    height, width). Of a video, the first of its latent's frames is one picture, each other several."""
    if maps.ndim == 5:
        frames = pictures // len(maps)
        share = (maps.shape[2] - 1) / max(1, frames - 1)
        maps = maps[:, :, [ceil(share * number) for number in range(frames)]]
        maps = maps.transpose(1, 2).flatten(0, 1)
    return interpolate(maps, list(size), mode="bilinear", align_corners=False)
