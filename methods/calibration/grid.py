"""Sampling a model over a grid of layers and scales, every cell from the same noise."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...dit import KSamplerSettings, anatomy_of, ksample
from ..common.layers import block_at
from ..detail_guidance.patch import patch
from ..detail_guidance.report import Report
from ..detail_guidance.reuse import computed_steps
from ..detail_guidance.settings import Options, Settings
from .recommendation import Cell, measured

Conditioning = list[list[Any]]


@dataclass(frozen=True)
class Sampling:
    """What every cell of a grid samples.

    Attributes:
        positive, negative: one conditioning for each prompt.
        latent: the host's LATENT; its batch is how many pictures each prompt gets.
        settings: KSampler's; each prompt has a seed of its own, from this one on.
        on_step: called after every step of a run.
    """

    positive: Sequence[Conditioning]
    negative: Sequence[Conditioning]
    latent: dict[str, Any]
    settings: KSamplerSettings
    on_step: Callable[[], object]

    @property
    def pictures(self) -> int:
        """Pictures of all prompts together."""
        return len(self.positive) * len(self.latent["samples"])

    @property
    def conditions(self) -> int:
        """Conditions of a forward: the positive, and with CFG the negative."""
        return 1 if self.settings.cfg == 1 else 2


def sampled(model: ModelPatcher, vae: VAE, sampling: Sampling) -> tuple[np.ndarray, float]:
    """All prompts' pictures, one prompt's after another's, (pictures, height, width, 3), 0 to 1; and seconds of
    sampling for each picture."""
    decoded, seconds = [], 0.0
    for number, (positive, negative) in enumerate(zip(sampling.positive, sampling.negative, strict=True)):
        settings = replace(sampling.settings, seed=(sampling.settings.seed + number) % 2**64)
        result = ksample(model, positive, negative, sampling.latent, settings, sampling.on_step)
        seconds += result.seconds
        decoded.append(as_pictures(vae.decode(result.latent["samples"])))
    return np.concatenate(decoded), seconds / sampling.pictures


def as_pictures(decoded: Tensor) -> np.ndarray:
    """What a VAE gives, as (pictures, height, width, 3) of doubles, 0 to 1; of a video the middle frame."""
    if decoded.ndim == 5:
        decoded = decoded[:, decoded.shape[1] // 2]
    return decoded[..., :3].clamp(0, 1).cpu().double().numpy()


def through(vae: VAE, pictures: Tensor, height: int, width: int) -> np.ndarray:
    """Crops of pictures, side by side, as the VAE gives them back: what it cannot draw is not charged to the model.

    Args:
        pictures: (pictures, height, width, 3), 0 to 1.
        height, width: a crop's size in pixels.

    Raises:
        ValueError: the pictures are smaller than a crop.
    """
    down, across = pictures.shape[1] // height, pictures.shape[2] // width
    if not down * across:
        raise ValueError(
            f"reference: its pictures are {pictures.shape[2]} × {pictures.shape[1]}, smaller than the {width} × "
            f"{height} that are sampled. Give larger ones, or sample smaller ones."
        )
    crops = [
        pictures[n : n + 1, y * height : (y + 1) * height, x * width : (x + 1) * width, :3]
        for n in range(len(pictures))
        for y in range(down)
        for x in range(across)
    ]
    return np.concatenate([as_pictures(vae.decode(vae.encode(crop))) for crop in crops])


def features(clip_vision: ClipVisionModel, pictures: np.ndarray) -> np.ndarray:
    """CLIP's embedding of each picture (pictures, height, width, 3), of length one, (pictures, features)."""
    images = torch.from_numpy(pictures).float()
    embedded = torch.cat([clip_vision.encode_image(image[None])["image_embeds"] for image in images])
    return torch.nn.functional.normalize(embedded.flatten(1).float().cpu(), dim=1).numpy()


def cells(
    model: ModelPatcher,
    vae: VAE,
    sampling: Sampling,
    settings: Iterable[Settings],
    without: np.ndarray,
    references: Sequence[np.ndarray] | None,
    likeness: Callable[[np.ndarray], np.ndarray] | None,
) -> Iterator[tuple[Cell, np.ndarray, list[Report]]]:
    """The grid, cell by cell, with its pictures and the reports of its runs.

    Args:
        without: the pictures without Detail Guidance.
        references: for each picture, the mean of its real pictures' log spectra.
        likeness: pictures → likeness with their real pictures, (pictures,).
    """
    blocks, settings = len(anatomy_of(model).blocks), list(settings)
    usual = settings[0]
    for each in settings:
        reports: list[Report] = []
        pictures, seconds = sampled(patch(model, each, None, reports.append), vae, sampling)
        told = [report.relative_strength for report in reports if report.kept_of_negative is None]
        strength = float(np.mean(told)) if told else None
        block, scale = block_at(each.layer_start, blocks), each.dg_scale
        more_alike = None if likeness is None else likeness(pictures) - likeness(without)
        cell = measured(
            each.layer_start,
            block,
            scale,
            strength,
            seconds,
            pictures,
            without,
            references,
            more_alike,
            variant_of(each, usual),
        )
        yield cell, pictures, reports


def grid(
    layers: Sequence[float], scales: Sequence[float], starts: Sequence[float], options: Sequence[Options]
) -> list[Settings]:
    """The settings of every layer with every scale, from each start_percent on, with each of the options."""
    return [
        Settings(scale, layer, layer, start, options=each)
        for each in options
        for start in starts
        for layer in layers
        for scale in scales
    ]


def variant_of(settings: Settings, first: Settings) -> str:
    """In what, beside layer and scale, settings differ from a grid's first ones, in words."""
    mine, theirs = settings.options, first.options
    parts: list[str] = [mine.perturbation] if mine.perturbation != theirs.perturbation else []
    parts += [f"path {mine.path}"] if mine.path != theirs.path else []
    parts += [f"from {settings.start_percent:g}"] if settings.start_percent != first.start_percent else []
    return ", ".join(parts)


def cost(settings: Settings, blocks: int, steps: int, conditions: int) -> float:
    """The cost of a run as a multiple of one without Detail Guidance, in rows through blocks: (L − m)/L of a
    conditional forward more in each step that computes D_m. Where the schedule is not even, `start_percent` leaves out
    a few steps more or less than it says.

    Args:
        blocks: L.
        steps: the run's steps.
        conditions: conditions of a forward.
    """
    m = block_at(settings.layer_start, blocks)
    if settings.options.path == "negative":
        return 1.0
    guided = steps - ceil(steps * settings.start_percent)
    share = computed_steps(guided, settings.options.every) / steps
    return 1 + share * (blocks - m) / (blocks * conditions)
