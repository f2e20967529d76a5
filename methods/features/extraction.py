"""A model's features of pictures: they are noised, shown to it up to one block, and what stands there is kept."""

from collections.abc import Callable
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...dit.families import anatomy
from ...dit.noised import shown
from ...dit.observer import watched
from ..calibration.presets import fingerprint
from ..massive_activations.perturbation import Rule
from .features import FeatureRecording, Features, on_grid


def features_of(
    model: ModelPatcher,
    positive: list[list[Any]],
    latent: Tensor,
    size: tuple[int, int],
    block: int,
    noise_level: float,
    draws: int,
    seed: int,
    rule: Rule,
    modulate: bool,
    maps: bool,
    progress: Callable[[int], object],
) -> Features:
    """Averaged over draws of noise ([DiTF], section 4.3).

    Args:
        positive: one condition, what the pictures show.
        latent: (pictures, channels, …, height, width), as a VAE gives them, of whole tokens.
        size: height and width of the pictures, in pixels.
        block: whose input the features are; it and those behind it are not computed.
        noise_level: between 0 and 1, the noise's share in what the model is given.
        draws: of noise, ≥ 1.
        progress: told how many of the draws of all pictures were shown.

    Raises:
        ValueError: no row of the family table fits the model, or it was never asked.
    """
    of_model = anatomy(model)
    recording = FeatureRecording(block, rule, modulate, maps)
    sums: list[Any] = [0] * len(latent)
    done = 0
    for pictures in shown(watched(model, recording, block), positive, latent, noise_level, draws, seed):
        for picture, seen in zip(pictures, recording.taken(), strict=True):
            sums[picture] = sums[picture] + seen
        done += len(pictures)
        progress(done)
    grid = of_model.grid(len(sums[0]), latent.shape)
    values = torch.cat([on_grid(total / draws, grid) for total in sums])
    if not values.isfinite().all():
        raise ValueError("features: they are not finite numbers. Try other weights, or more precision.")
    massive = () if recording.massive is None else tuple(recording.massive.nonzero().flatten().tolist())
    return Features(
        values.contiguous(),
        *size,
        of_model.family.name,
        fingerprint(model),
        block,
        len(of_model.blocks),
        massive,
        modulated=bool(recording.modulated),
        maps=len(massive) if maps else 0,
        noise_level=noise_level,
    )
