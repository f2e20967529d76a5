"""Sampling a model over a grid of layers and scales, every cell from the same noise."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from math import ceil
from typing import Any

import comfy.sample
import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...dit.families import anatomy
from ..common.layers import block_at
from ..detail_guidance.patch import patch
from ..detail_guidance.report import Report
from ..detail_guidance.reuse import computed_steps
from ..detail_guidance.settings import Options, Settings
from .recommendation import Cell, measured

Conditioning = list[list[Any]]


@dataclass(frozen=True)
class Sampling:
    """What KSampler is given.

    Attributes:
        positive, negative: of each prompt.
        latent: its batch is how many pictures each gets.
        on_step: called after every step of a run.
    """

    positive: Sequence[Conditioning]
    negative: Sequence[Conditioning]
    latent: dict[str, Any]
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    on_step: Callable[[], object]

    @property
    def pictures(self) -> int:
        return len(self.positive) * len(self.latent["samples"])

    @property
    def conditions(self) -> int:
        """Of a forward: the positive, and with CFG the negative."""
        return 1 if self.cfg == 1 else 2

    def latents(self, model: ModelPatcher, prompt: int) -> tuple[Tensor, float]:
        """Of one prompt's pictures, and the seconds that its steps take, without loading the model where
        that can be told apart."""
        # Newer hosts' empty latents say what they were made for, and are cut to the model's measure; as in KSampler.
        made_for = [self.latent.get("downscale_ratio_spacial"), self.latent.get("downscale_ratio_temporal")]
        fix = comfy.sample.fix_empty_latent_channels
        start = fix(model, self.latent["samples"], *made_for[: len(signature(fix).parameters) - 2])
        seed = (self.seed + prompt) % 2**64
        begun, ended = time.perf_counter(), []

        def after_step(*_: Any) -> None:
            ended.append(time.perf_counter())
            self.on_step()

        samples = comfy.sample.sample(
            model,
            comfy.sample.prepare_noise(start, seed, self.latent.get("batch_index")),
            self.steps,
            self.cfg,
            self.sampler_name,
            self.scheduler,
            self.positive[prompt],
            self.negative[prompt],
            start,
            noise_mask=self.latent.get("noise_mask"),
            callback=after_step,
            disable_pbar=True,
            seed=seed,
        )
        if len(ended) < 2:  # one step, or a sampler that does not tell them
            return samples, time.perf_counter() - begun
        return samples, (ended[-1] - ended[0]) * len(ended) / (len(ended) - 1)


def sampled(model: ModelPatcher, vae: VAE, sampling: Sampling) -> tuple[np.ndarray, float]:
    """All prompts' pictures, one prompt's after another's, (n, height, width, 3), 0 to 1, and the seconds of sampling
    for each."""
    decoded, seconds = [], 0.0
    for prompt in range(len(sampling.positive)):
        latents, took = sampling.latents(model, prompt)
        seconds += took
        decoded.append(as_pictures(vae.decode(latents)))
    return np.concatenate(decoded), seconds / sampling.pictures


def as_pictures(decoded: Tensor) -> np.ndarray:
    """What a VAE gives, as (n, height, width, 3) of doubles, 0 to 1; of a video the middle frame."""
    if decoded.ndim == 5:
        decoded = decoded[:, decoded.shape[1] // 2]
    return decoded[..., :3].clamp(0, 1).cpu().double().numpy()


def through(vae: VAE, pictures: Tensor, height: int, width: int) -> np.ndarray:
    """Crops of this size of pictures (n, height, width, 3), side by side, as the VAE gives them back: what it cannot
    draw is not to be charged to the model.

    Raises:
        ValueError: pictures that are smaller.
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
    """Of each picture (n, height, width, 3), of length one, (n, features)."""
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
        references: of each picture, the mean of its real pictures' log spectra.
        likeness: of pictures with their real pictures, (n,).
    """
    blocks = len(anatomy(model).blocks)
    for each in settings:
        reports: list[Report] = []
        pictures, seconds = sampled(patch(model, each, None, reports.append), vae, sampling)
        strength = float(np.mean([report.relative_strength for report in reports]))
        block, scale = block_at(each.layer_start, blocks), each.dg_scale
        more_alike = None if likeness is None else likeness(pictures) - likeness(without)
        cell = measured(each.layer_start, block, scale, strength, seconds, pictures, without, references, more_alike)
        yield cell, pictures, reports


def grid(layers: Sequence[float], scales: Sequence[float], start_percent: float, options: Options) -> list[Settings]:
    return [Settings(scale, layer, layer, start_percent, options=options) for layer in layers for scale in scales]


def cost(settings: Settings, blocks: int, steps: int, conditions: int) -> float:
    """Of a run with these settings, as a multiple of one without, in rows through blocks: (L − m)/L of a conditional
    forward more in each step that computes D_m. Where the schedule is not even, `start_percent` leaves out a few steps
    more or less than it says."""
    m = block_at(settings.layer_start, blocks)
    guided = steps - ceil(steps * settings.start_percent)
    share = computed_steps(guided, settings.options.every) / steps
    return 1 + share * (blocks - m) / (blocks * conditions)
