"""One calibration: the grid is sampled, judged, drawn, written and kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from ..detail_guidance.report import Report
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
    recommended_by_scores,
    rows,
)
from .sheet import contact_sheet

Say = Callable[[str], object]
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
        settings: of the recommended cell; the grid's first ones where none is.
        sheet: the grid side by side, a sheet for each prompt, (sheets, height, width, 3).
        plot: the scale's effect, layer by layer, (1, height, width, 3).
        report: the recommendation, the reason and the figures.
    """

    layer: float
    scale: float
    settings: Settings
    sheet: Tensor
    plot: Tensor
    report: str


@dataclass(frozen=True)
class Subject:
    """The model that was calibrated, and how.

    Attributes:
        fingerprint: of its weights.
        family, family_id: names of its family, for people and for files.
        blocks: number of its blocks.
        activations: its massive activations, in words.
        sampling: name → value in words, of the sampling's settings.
        per_prompt: pictures of each prompt.
    """

    fingerprint: str
    family: str
    family_id: str
    blocks: int
    activations: str
    sampling: dict[str, str]
    per_prompt: int


@dataclass(frozen=True)
class Trial:
    """A grid that was sampled, for a judge outside of it.

    Attributes:
        settings: of each cell.
        cells: without a gain.
        pictures: without Detail Guidance, then of each cell, (pictures, height, width, 3), 0 to 1.
        warnings: of the runs.
    """

    subject: Subject
    settings: list[Settings]
    cells: list[Cell]
    pictures: list[Tensor]
    warnings: list[str]


def calibrate(model: ModelPatcher, vae: VAE, sampling: Sampling, wanted: Wanted, say: Say) -> Calibration:
    """Sample the grid from the same noise, and say which cell is best, if any.

    Args:
        say: is told how long it takes, before and while it lasts.

    Raises:
        ValueError: before anything is sampled, names the input, its value and what is allowed.
    """
    settings = _settings(wanted, anatomy_of(model))
    model, subject, base = _begin(model, vae, sampling, settings, say)
    spectra, likeness = _judges(vae, wanted, base, subject.per_prompt)
    found, warnings = [], []
    firsts = [base[:: subject.per_prompt]]
    try:
        for cell, pictures, reports in cells(model, vae, sampling, settings, base, spectra, likeness):
            found.append(cell)
            firsts.append(pictures[:: subject.per_prompt].copy())  # a view would keep all of them
            warnings += _told(cell, reports)
    except BaseException:  # the user's interruption too
        if found:
            say(f"stopped; {len(found)} settings are in {_written(found)}.")
        raise
    advice = recommended(found, None if spectra is None else float(distances(base, spectra).mean()), LAYER)
    return _concluded(subject, settings, found, firsts, advice, warnings, wanted.save_preset)


def tried(model: ModelPatcher, vae: VAE, sampling: Sampling, settings: list[Settings], say: Say) -> Trial:
    """Sample a grid from the same noise, for a judge outside of it; `say` and errors as of `calibrate`."""
    model, subject, base = _begin(model, vae, sampling, settings, say)
    found, warnings, pictures_of = [], [], [torch.from_numpy(base).float()]
    for cell, pictures, reports in cells(model, vae, sampling, settings, base, None, None):
        found.append(cell)
        pictures_of.append(torch.from_numpy(pictures).float())
        warnings += _told(cell, reports)
    return Trial(subject, settings, found, pictures_of, warnings)


def judged(trial: Trial, scores: Sequence[float], guard: Sequence[float] | None, save_preset: bool) -> Calibration:
    """What a judge's scores say of a trial.

    Args:
        scores: of every picture in the trial's order, higher is better.
        guard: a second judge's, which must not fall.

    Raises:
        ValueError: there are not as many scores as pictures, or too few pictures to choose by some and judge by others.
    """
    gains, guards = (_gains(name, each, trial) for name, each in (("scores", scores), ("guard", guard)))
    assert gains is not None
    found = [
        replace(cell, gain=gains[number], likeness=None if guards is None else guards[number])
        for number, cell in enumerate(trial.cells)
    ]
    firsts = [each[:: trial.subject.per_prompt].double().numpy() for each in trial.pictures]
    advice = recommended_by_scores(found)
    subject = replace(trial.subject, sampling=trial.subject.sampling | {"judged by": "scores"})
    return _concluded(subject, trial.settings, found, firsts, advice, trial.warnings, save_preset)


def _gains(name: str, scores: Sequence[float] | None, trial: Trial) -> np.ndarray | None:
    """How much higher each cell's pictures score than the same ones without, (cells, pictures)."""
    if scores is None:
        return None
    batches, each = len(trial.pictures), len(trial.pictures[0])
    if len(scores) != batches * each:
        raise ValueError(
            f"{name}: there are {len(scores)}, the grid has {batches * each} pictures: {each} without Detail Guidance, "
            f"then {each} of each of its {batches - 1} settings. Score every picture."
        )
    if each < FEWEST:
        raise ValueError(
            f"{name}: choosing by some pictures and judging by others takes {FEWEST}, the grid has {each} of each "
            "setting. Raise its latent_image's batch size."
        )
    values = np.array(scores, dtype=float).reshape(batches, each)
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {np.count_nonzero(~np.isfinite(values))} are no finite numbers. Look at the scorer.")
    return values[1:] - values[0]


def _begin(
    model: ModelPatcher, vae: VAE, sampling: Sampling, settings: list[Settings], say: Say
) -> tuple[ModelPatcher, Subject, np.ndarray]:
    """The model without Detail Guidance, what is known of it, and its pictures without. Tells beforehand how long it
    all takes."""
    anatomy, options = anatomy_of(model), settings[0].options
    model = without(model)
    if sampling.settings.cfg <= 1 and any(each.options.path == "negative" for each in settings):
        raise ValueError(
            f"cfg: {sampling.settings.cfg:g} is not above 1, and path negative disrupts the negative's prediction. "
            "Raise cfg, or set path to positive."
        )
    if options.words is not None:
        require_readable(options.words, anatomy)
        _require_prompts(options.words, sampling.positive)
    steps, conditions = sampling.settings.steps, sampling.conditions
    total = 1 + sum(cost(each, len(anatomy.blocks), steps, conditions) for each in settings)
    say(
        f"{len(settings)} settings and none, {sampling.pictures} pictures each: as long as "
        f"{total * sampling.pictures:.1f} pictures without Detail Guidance."
    )
    recording = Recording(anatomy.family.name, anatomy.family.id, anatomy.block_names)
    base, seconds = sampled(observed(model, recording), vae, sampling)
    say(f"about {total * sampling.pictures * seconds / 60:.1f} minutes in all.")
    subject = Subject(
        fingerprint=model_fingerprint(model),
        family=anatomy.family.name,
        family_id=anatomy.family.id,
        blocks=len(anatomy.blocks),
        activations=recording.report(recording.profile(options.massive_ratio, options.max_channels)),
        sampling={
            "pictures": str(sampling.pictures),
            "steps": str(steps),
            "cfg": f"{sampling.settings.cfg:g}",
            "sampler": f"{sampling.settings.sampler_name}, {sampling.settings.scheduler}",
            "start_percent": f"{settings[0].start_percent:g}",
            "host": f"ComfyUI {host_version}",
        },
        per_prompt=len(sampling.latent["samples"]),
    )
    return model, subject, base


def _concluded(
    subject: Subject,
    settings: Sequence[Settings],
    found: Sequence[Cell],
    firsts: Sequence[np.ndarray],
    advice: Recommendation,
    warnings: Sequence[str],
    save_preset: bool,
) -> Calibration:
    """The calibration of cells that were judged.

    Args:
        firsts: each prompt's first picture without Detail Guidance, then of each cell.
    """
    starts = ", ".join(f"{start:g}" for start in sorted({each.start_percent for each in settings}))
    text = [advice.why, "", as_list(found), f"Guided from start_percent {starts} on.", "", subject.activations, ""]
    text += [f"The figures are in {_written(found)}."]
    pairs = zip(settings, found, strict=True)
    chosen = next((each for each, cell in pairs if cell is advice.cell), settings[0])
    if save_preset and advice.verdict != "nothing to judge":
        text += [presets.keep(_preset(subject, advice, found, chosen), subject.family_id)]
    sheets = [
        contact_sheet(found, [each[number] for each in firsts[1:]], first, advice.cell)
        for number, first in enumerate(firsts[0])
    ]
    layer, scale = (advice.cell.layer, advice.cell.scale) if advice.cell else (LAYER, 0.0)
    return Calibration(layer, scale, chosen, torch.cat(sheets), grid_plot(found), "\n".join([*text, *warnings]))


def _told(cell: Cell, reports: Sequence[Report]) -> list[str]:
    """The warnings of a cell's runs, each once."""
    told = dict.fromkeys(warning for report in reports for warning in report.warnings)
    variant = f"{cell.variant}, layer" if cell.variant else "Layer"
    return [f"{variant} {cell.layer:g}, scale {cell.scale:g}: {warning}" for warning in told]


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
    return grid(layers, scales, [wanted.start_percent], [wanted.options])


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


def _preset(subject: Subject, advice: Recommendation, found: Sequence[Cell], settings: Settings) -> Preset:
    usual = vars(Options())
    given = {
        name: "given" if isinstance(value, Tensor | Profile | Region) else str(value)
        for name, value in vars(settings.options).items()
    }
    return Preset(
        fingerprint=subject.fingerprint,
        family=subject.family,
        blocks=subject.blocks,
        verdict=advice.verdict,
        why=advice.why,
        layer=advice.cell.layer if advice.cell else LAYER,
        scale=advice.cell.scale if advice.cell else 0.0,
        start_percent=settings.start_percent,
        options={name: value for name, value in given.items() if value != str(usual[name])},
        sampling=subject.sampling | {"start_percent": f"{settings.start_percent:g}"},
        figures=rows(found),
    )
