"""Sampling as the host's KSampler does, for nodes that sample themselves."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from typing import Any

import comfy.sample
from comfy.model_patcher import ModelPatcher
from latent_preview import prepare_callback

Conditioning = list[list[Any]]


@dataclass(frozen=True)
class KSamplerSettings:
    """The widgets of the host's KSampler, in its units."""

    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str


@dataclass(frozen=True)
class Sampled:
    """The result of sampling.

    Attributes:
        latent: the host's LATENT, the input's with new samples.
        seconds: duration of all steps, without loading the model where that can be told apart.
    """

    latent: dict[str, Any]
    seconds: float


def ksample(
    model: ModelPatcher,
    positive: Conditioning,
    negative: Conditioning,
    latent: dict[str, Any],
    settings: KSamplerSettings,
    on_step: Callable[[], object] | None = None,
) -> Sampled:
    """Sample as KSampler at denoise 1.

    Args:
        latent: the host's LATENT: pictures to sample from, an optional noise mask and batch index.
        on_step: called after each step; without it the page gets the host's own progress and preview.
    """
    # Newer hosts' empty latents say what they were made for, and are cut to the model's measure; as in KSampler.
    made_for = [latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")]
    fix = comfy.sample.fix_empty_latent_channels
    start = fix(model, latent["samples"], *made_for[: len(signature(fix).parameters) - 2])
    begun, ended = time.perf_counter(), []

    preview = prepare_callback(model, settings.steps) if on_step is None else None

    def after_step(*progress: Any) -> None:
        ended.append(time.perf_counter())
        if preview is not None:
            preview(*progress)
        elif on_step is not None:
            on_step()

    samples = comfy.sample.sample(
        model,
        comfy.sample.prepare_noise(start, settings.seed, latent.get("batch_index")),
        settings.steps,
        settings.cfg,
        settings.sampler_name,
        settings.scheduler,
        positive,
        negative,
        start,
        noise_mask=latent.get("noise_mask"),
        callback=after_step,
        disable_pbar=on_step is not None or not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=settings.seed,
    )
    seconds = time.perf_counter() - begun
    if len(ended) >= 2:  # a sampler that tells its steps
        seconds = (ended[-1] - ended[0]) * len(ended) / (len(ended) - 1)
    left_out = ("downscale_ratio_spacial", "downscale_ratio_temporal")
    return Sampled(
        {name: value for name, value in latent.items() if name not in left_out} | {"samples": samples}, seconds
    )
