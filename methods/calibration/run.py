"""One calibration: the grid is sampled, judged, drawn, written and kept."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfyui_version import __version__ as host_version
from torch import Tensor

from ...dit import Anatomy, anatomy_of, model_fingerprint, observed
from ..common.layers import parse_layers
from ..detail_guidance.patch import without
from ..detail_guidance.settings import LAYER, Options, Settings, parse_scales
from ..massive_activations.profile import Profile
from ..massive_activations.recording import Recording
from ..regions.masks import Region
from ..regions.reader import require_prompt, require_readable
from . import presets
from .figures import grid_plot
from .grid import Sampling, cells, cost, features, grid, sampled, through
from .preset import Preset
from .recommendation import (
    FEWEST,
    Cell,
    Recommendation,
    as_csv,
    as_list,
    distances,
    mean_log_spectrum,
    recommended,
    rows,
)
from .sheet import contact_sheet

log = logging.getLogger("detail_guidance")
FILES = "detail_guidance/calibration"  # below the host's output


@dataclass(frozen=True)
class Wanted:
    """What the user asks a calibration for.

    Attributes:
        layers, scales: as the widgets have them.
        start_percent: 0 to 1, where the guidance starts.
        options: to calibrate with.
        references: for each prompt, its batches of real pictures; None where nothing judges.
        clip_vision: a network that sees real and sampled pictures too, or None.
        save_preset: whether what comes out is kept for the model.
    """

    layers: str
    scales: str
    start_percent: float
    options: Options
    references: list[list[Tensor]] | None
    clip_vision: ClipVisionModel | None
    save_preset: bool


@dataclass(frozen=True)
class Calibration:
    """What a calibration gives.

    Attributes:
        layer, scale: the recommended ones; a scale of 0 is off.
        sheet: the grid side by side, a sheet for each prompt, (sheets, height, width, 3).
        plot: the scale's effect, layer by layer, (1, height, width, 3).
        report: the recommendation, the reason and the figures.
    """

    layer: float
    scale: float
    sheet: Tensor
    plot: Tensor
    report: str


def calibrate(model: ModelPatcher, vae: VAE, sampling: Sampling, wanted: Wanted) -> Calibration:
    """Sample the grid from the same noise, and say which cell is best, if any.

    Raises:
        ValueError: before anything is sampled, names the input, its value and what is allowed.
    """
    anatomy = anatomy_of(model)
    model, options = without(model), wanted.options
    if options.words is not None:
        require_readable(options.words, anatomy)
        _require_prompts(options.words, sampling.positive)
    settings = _settings(wanted, anatomy)
    minutes = _minutes(settings, anatomy, sampling)

    recording = Recording(anatomy.family.name, anatomy.family.id, anatomy.block_names)
    base, seconds = sampled(observed(model, recording), vae, sampling)
    _say(f"about {minutes(seconds):.1f} minutes in all.")
    spectra, likeness = _judges(vae, wanted, base, len(sampling.latent["samples"]))
    found, firsts, warnings = _sampled_grid(model, vae, sampling, settings, base, spectra, likeness)

    advice = recommended(found, None if spectra is None else float(distances(base, spectra).mean()), LAYER)
    text = [advice.why, "", as_list(found), f"Guided from start_percent {wanted.start_percent:g} on.", ""]
    text += [recording.report(recording.profile(options.massive_ratio, options.max_channels)), ""]
    text += [f"The figures are in {_written(found)}."]
    if wanted.save_preset and advice.verdict != "nothing to judge":
        preset = _preset(model_fingerprint(model), anatomy, advice, found, sampling, settings[0])
        text += [presets.keep(preset, anatomy.family.id)]
    sheets = [
        contact_sheet(found, [each[number] for each in firsts], first, advice.cell)
        for number, first in enumerate(base[:: len(sampling.latent["samples"])])
    ]
    layer, scale = (advice.cell.layer, advice.cell.scale) if advice.cell else (LAYER, 0.0)
    return Calibration(layer, scale, torch.cat(sheets), grid_plot(found), "\n".join(text + warnings))


def runs(wanted: Wanted, anatomy: Anatomy, prompts: int) -> int:
    """Number of sampling runs of a calibration."""
    return (1 + len(_settings(wanted, anatomy))) * prompts


def require_enough(references: Sequence[Any], sampling: Sampling) -> None:
    """Refuse to judge by too few pictures.

    Raises:
        ValueError: choosing by some pictures and judging by others takes more.
    """
    if references and sampling.pictures < FEWEST:
        raise ValueError(
            f"reference: choosing by some pictures and judging by others takes {FEWEST}, these are "
            f"{sampling.pictures}. Raise latent_image's batch size to {-(-FEWEST // len(sampling.positive))}."
        )


def _settings(wanted: Wanted, anatomy: Anatomy) -> list[Settings]:
    layers, scales = parse_layers(wanted.layers, len(anatomy.blocks)), parse_scales(wanted.scales)
    return grid(layers, scales, wanted.start_percent, wanted.options)


def _minutes(settings: Sequence[Settings], anatomy: Anatomy, sampling: Sampling) -> Callable[[float], float]:
    """Tells beforehand how long it takes; returns seconds of one picture → minutes of all."""
    steps, conditions = sampling.settings.steps, sampling.conditions
    total = 1 + sum(cost(each, len(anatomy.blocks), steps, conditions) for each in settings)
    _say(
        f"{len(settings)} settings and none, {sampling.pictures} pictures each: as long as "
        f"{total * sampling.pictures:.1f} pictures without Detail Guidance."
    )
    return lambda seconds: total * sampling.pictures * seconds / 60


def _judges(
    vae: VAE, wanted: Wanted, base: np.ndarray, per_prompt: int
) -> tuple[list[np.ndarray] | None, Callable[[np.ndarray], np.ndarray] | None]:
    """For each picture the mean of its real pictures' log spectra; and how alike pictures are to their real ones."""
    if wanted.references is None:
        return None, None
    size = base.shape[1:3]
    crops = [np.concatenate([through(vae, batch, *size) for batch in batches]) for batches in wanted.references]
    spectra = [mean for mean in map(mean_log_spectrum, crops) for _ in range(per_prompt)]
    network = wanted.clip_vision
    if network is None:
        return spectra, None
    return spectra, partial(_likeness, network, [features(network, each) for each in crops])


def _sampled_grid(
    model: ModelPatcher,
    vae: VAE,
    sampling: Sampling,
    settings: Sequence[Settings],
    base: np.ndarray,
    spectra: list[np.ndarray] | None,
    likeness: Callable[[np.ndarray], np.ndarray] | None,
) -> tuple[list[Cell], list[np.ndarray], list[str]]:
    """The cells, of each its prompts' first pictures, and warnings. Interrupted, what was found so far is written."""
    found: list[Cell] = []
    firsts: list[np.ndarray] = []
    warnings: list[str] = []
    try:
        for cell, pictures, reports in cells(model, vae, sampling, settings, base, spectra, likeness):
            found.append(cell)
            firsts.append(pictures[:: len(sampling.latent["samples"])].copy())  # a view would keep all of them
            told = dict.fromkeys(warning for report in reports for warning in report.warnings)
            warnings += [f"Layer {cell.layer:g}, scale {cell.scale:g}: {warning}" for warning in told]
    except BaseException:  # the user's interruption too
        if found:
            _say(f"stopped; {len(found)} settings are in {_written(found)}.")
        raise
    return found, firsts, warnings


def _say(what: str) -> None:
    log.info(f"Detail Guidance Calibrate: {what}")


def _require_prompts(words: Region, positive: Sequence[list]) -> None:
    for number, prompt in enumerate(positive, 1):
        try:
            require_prompt(words, [beside for _, beside in prompt])
        except ValueError as error:
            raise ValueError(
                f"options: their words are of another prompt than positive {number} of {len(positive)}. Calibrate with "
                "Detail Prompt Words' own conditioning alone, or with Detail Foreground in place of words."
            ) from error


def _likeness(network: ClipVisionModel, real: Sequence[np.ndarray], pictures: np.ndarray) -> np.ndarray:
    """Cosine of each picture's features with the mean of its prompt's real ones', (pictures,).

    Args:
        real: for each prompt, the features of its real pictures.
    """
    means = np.repeat([each.mean(axis=0) for each in real], len(pictures) // len(real), axis=0)
    return (features(network, pictures) * means).sum(axis=1) / np.linalg.norm(means, axis=1)


def _written(found: Sequence[Cell]) -> Path:
    """Write the figures; returns the file."""
    folder, name, counter, _, _ = folder_paths.get_save_image_path(FILES, folder_paths.get_output_directory())
    file = Path(folder) / f"{name}_{counter:05}_.csv"
    file.write_text(as_csv(found), "utf-8")
    return file


def _preset(
    fingerprint: str,
    anatomy: Anatomy,
    advice: Recommendation,
    found: Sequence[Cell],
    sampling: Sampling,
    settings: Settings,
) -> Preset:
    usual = vars(Options())
    given = {
        name: "given" if isinstance(value, Tensor | Profile | Region) else str(value)
        for name, value in vars(settings.options).items()
    }
    return Preset(
        fingerprint=fingerprint,
        family=anatomy.family.name,
        blocks=len(anatomy.blocks),
        verdict=advice.verdict,
        why=advice.why,
        layer=advice.cell.layer if advice.cell else LAYER,
        scale=advice.cell.scale if advice.cell else 0.0,
        start_percent=settings.start_percent,
        options={name: value for name, value in given.items() if value != str(usual[name])},
        sampling={
            "pictures": str(sampling.pictures),
            "steps": str(sampling.settings.steps),
            "cfg": f"{sampling.settings.cfg:g}",
            "sampler": f"{sampling.settings.sampler_name}, {sampling.settings.scheduler}",
            "start_percent": f"{settings.start_percent:g}",
            "host": f"ComfyUI {host_version}",
        },
        figures=rows(found),
    )
