"""Finding the layer and the scale on the user's own model."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.utils import ProgressBar
from comfy_api.latest import io
from comfyui_version import __version__ as host_version
from torch import Tensor

from ..dit.families import Anatomy, anatomy
from ..dit.observer import watched
from ..methods.calibration import presets
from ..methods.calibration.preset import Preset
from ..methods.calibration.recommendation import (
    FEWEST,
    Cell,
    Recommendation,
    as_csv,
    as_markdown,
    distances,
    mean_log_spectrum,
    recommended,
    rows,
)
from ..methods.calibration.sampling import Sampling, cells, cost, features, grid, sampled, through
from ..methods.calibration.sheet import contact_sheet
from ..methods.common.layers import parse_layers
from ..methods.detail_guidance.patch import without
from ..methods.detail_guidance.settings import DG_SCALE, LAYER, Options, Settings, parse_scales
from ..methods.massive_activations.figures import calibration, require_matplotlib
from ..methods.massive_activations.profile import Profile
from ..methods.massive_activations.recording import Recording
from ..methods.regions.masks import Region
from ..methods.regions.reader import require_prompt, require_readable
from .inputs import CATEGORY, DetailGuidanceOptionsType, fraction, ksampler_inputs, require_something

log = logging.getLogger("detail_guidance")
FILES = "detail_guidance/calibration"  # below the host's output


class DetailGuidanceCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuidanceCalibrate",
            display_name="Detail Guidance Calibrate",
            category=CATEGORY,
            description="Which layer, which scale? Samples every combination from the same noise, shows them side by "
            "side, and with reference pictures recommends one if it brings other pictures closer to them too.",
            inputs=[
                *ksampler_inputs(
                    steps=20,
                    cfg=4.0,
                    positive="What the pictures show. A list of conditionings is several prompts.",
                    negative="What they should not show. Needed with cfg above 1, ignored at 1.",
                    about_steps="As you sample with. Raising it takes longer.",
                    about_cfg="Classifier-free guidance as you sample with it: layer and scale depend on it. 1 is off.",
                ),
                io.Vae.Input("vae", tooltip="Of the model, to see its pictures."),
                io.String.Input(
                    "layers",
                    default="0.5, 0.6, 0.7, 0.8",
                    tooltip="Layers to try, as fractions of the depth; or how many, such as 5, evenly over it. More "
                    "take longer.",
                ),
                io.String.Input(
                    "scales",
                    default=f"0.1, {DG_SCALE:g}, 0.5",
                    tooltip="Values of dg_scale to try. More take longer.",
                ),
                io.Boolean.Input(
                    "save_preset",
                    default=True,
                    tooltip="Keeps what came out for this model: the panel of the guidance nodes then offers it.",
                ),
                fraction(
                    "start_percent",
                    0.0,
                    "Where in the sampling schedule the guidance starts, as on the guidance nodes; a preset keeps it. "
                    "With CFG, 0.67 is worth a second calibration.",
                    optional=True,
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="Real pictures of what the prompt says, at least as large as those sampled. Without them "
                    "nothing is recommended but the largest scale that keeps the layout.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Sees reference and sampled pictures too: what makes them less alike is not recommended.",
                ),
                DetailGuidanceOptionsType.Input(
                    "options", optional=True, tooltip="To calibrate with; use the same for the guidance node."
                ),
            ],
            outputs=[
                io.Float.Output(display_name="layer", tooltip="For layer_start and layer_end."),
                io.Float.Output(display_name="dg_scale", tooltip="0 where nothing is recommended: off."),
                io.Image.Output(
                    display_name="sheet", tooltip="All combinations side by side, a sheet for each prompt."
                ),
                io.Image.Output(display_name="plot", tooltip="What the scale does, layer by layer."),
                io.String.Output(display_name="report", tooltip="What is recommended, why, and the figures."),
                io.Float.Output(display_name="start_percent", tooltip="That of the input, for the guidance node."),
            ],
            hidden=[io.Hidden.unique_id],
            is_input_list=True,  # a list of prompts is several, each with its own pictures and references
        )

    @classmethod
    def execute(
        cls,
        model: list[ModelPatcher],
        vae: list[VAE],
        positive: list[list],
        negative: list[list],
        latent_image: list[dict],
        layers: list[str],
        scales: list[str],
        save_preset: list[bool],
        start_percent: Sequence[float] = (0.0,),
        reference: Sequence[Tensor] = (),
        clip_vision: Sequence[ClipVisionModel] = (),
        options: Sequence[Options] = (),
        **values: list[Any],
    ) -> io.NodeOutput:
        require_matplotlib()
        singles = {"model": model, "vae": vae, "latent_image": latent_image, "options": options, **values}
        singles["start_percent"] = start_percent
        _require_one_of_each(singles)
        for prompt in positive:
            require_something(prompt, latent_image[0])
        of_model = anatomy(model[0])
        one_model, one_vae, chosen = without(model[0], of_model.family), vae[0], next(iter(options), Options())
        if chosen.words is not None:
            require_readable(chosen.words, of_model)
            _require_prompts(chosen.words, positive)
        tried = parse_layers(layers[0], len(of_model.blocks)), parse_scales(scales[0])
        settings = grid(*tried, start_percent[0], chosen)
        progress = ProgressBar((1 + len(settings)) * len(positive) * values["steps"][0], cls.hidden.unique_id)
        sampling = Sampling(
            positive,
            _one_for_each("negative", negative, len(positive)),
            latent_image[0],
            on_step=lambda: progress.update(1),
            **{name: value[0] for name, value in values.items()},
        )
        real = _references(reference, sampling) if reference else None
        blocks = len(of_model.blocks)
        total = 1 + sum(cost(each, blocks, sampling.steps, sampling.conditions) for each in settings)
        _say(
            f"{len(settings)} settings and none, {sampling.pictures} pictures each: as long as "
            f"{total * sampling.pictures:.1f} pictures without Detail Guidance."
        )

        recording = Recording(of_model.family.name, [block.name for block in of_model.blocks])
        base, seconds = sampled(watched(one_model, recording), one_vae, sampling)
        _say(f"about {total * sampling.pictures * seconds / 60:.1f} minutes in all.")
        per_prompt = len(latent_image[0]["samples"])
        spectra = likeness = None
        if real:
            size = base.shape[1:3]
            crops = [np.concatenate([through(one_vae, batch, *size) for batch in batches]) for batches in real]
            spectra = [mean for mean in map(mean_log_spectrum, crops) for _ in range(per_prompt)]
            if clip_vision:
                likeness = partial(_likeness, clip_vision[0], [features(clip_vision[0], each) for each in crops])

        found: list[Cell] = []
        shown: list[np.ndarray] = []
        warnings: list[str] = []
        try:
            for cell, pictures, reports in cells(one_model, one_vae, sampling, settings, base, spectra, likeness):
                found.append(cell)
                shown.append(pictures[::per_prompt].copy())  # a view would keep all of them
                told = dict.fromkeys(warning for report in reports for warning in report.warnings)
                warnings += [f"Layer {cell.layer:g}, scale {cell.scale:g}: {warning}" for warning in told]
        except BaseException:  # the user's interruption too
            if found:
                _say(f"stopped; {len(found)} settings are in {_written(found)}.")
            raise
        distance = None if spectra is None else float(distances(base, spectra).mean())
        advice = recommended(found, distance, LAYER)
        text = [advice.why, "", as_markdown(found), f"Guided from start_percent {start_percent[0]:g} on.", ""]
        text += [recording.report(recording.profile(chosen.massive_ratio, chosen.max_channels)), ""]
        text += [f"The figures are in {_written(found)}."]
        if save_preset[0] and advice.verdict != "nothing to judge":
            text += [presets.keep(_preset(one_model, of_model, advice, found, sampling, settings[0]))]
        text += warnings
        sheets = [
            contact_sheet(found, [firsts[number] for firsts in shown], first, advice.cell)
            for number, first in enumerate(base[::per_prompt])
        ]
        layer, scale = (advice.cell.layer, advice.cell.scale) if advice.cell else (LAYER, 0.0)
        plot = calibration(found)
        return io.NodeOutput(layer, scale, torch.cat(sheets), plot, "\n".join(text), start_percent[0])


def _say(what: str) -> None:
    log.info(f"Detail Guidance Calibrate: {what}")


def _require_prompts(words: Region, positive: Sequence[list]) -> None:
    for number, prompt in enumerate(positive, 1):
        try:
            require_prompt(words, [beside for _, beside in prompt])
        except ValueError as error:
            raise ValueError(
                f"options: their words are of another prompt than positive {number} of {len(positive)}. Calibrate with "
                "Prompt Words' own conditioning alone, or with Foreground in place of words."
            ) from error


def _require_one_of_each(singles: dict[str, Sequence[Any]]) -> None:
    for name, given in singles.items():
        if len(given) > 1:
            raise ValueError(f"{name}: it is a list of {len(given)}; only positive, negative and reference may be one.")
    if singles["latent_image"][0]["samples"].is_nested:
        raise ValueError("latent_image: it is pictures and sound in one. Only pictures can be calibrated on.")


def _references(given: Sequence[Tensor], sampling: Sampling) -> list[list[Tensor]]:
    """Of each prompt, its batches of pictures: a list is all one prompt's, or has a batch for each."""
    prompts = len(sampling.positive)
    if sampling.pictures < FEWEST:
        raise ValueError(
            f"reference: choosing by some pictures and judging by others takes {FEWEST}, these are "
            f"{sampling.pictures}. Raise latent_image's batch size to {-(-FEWEST // prompts)}."
        )
    if prompts == 1:
        return [list(given)]
    return [[batch] for batch in _one_for_each("reference", given, prompts)]


def _one_for_each(name: str, given: Sequence[Any], prompts: int) -> list[Any]:
    if len(given) not in (1, prompts):
        raise ValueError(f"{name}: it is a list of {len(given)}, positive of {prompts}. Give as many, or one for all.")
    return list(given) * (prompts if len(given) == 1 else 1)


def _likeness(network: ClipVisionModel, real: Sequence[np.ndarray], pictures: np.ndarray) -> np.ndarray:
    """Of each picture with the real ones of its prompt, whose features these are: cosine with their mean, (n,)."""
    means = np.repeat([each.mean(axis=0) for each in real], len(pictures) // len(real), axis=0)
    return (features(network, pictures) * means).sum(axis=1) / np.linalg.norm(means, axis=1)


def _written(found: Sequence[Cell]) -> Path:
    folder, name, counter, _, _ = folder_paths.get_save_image_path(FILES, folder_paths.get_output_directory())
    file = Path(folder) / f"{name}_{counter:05}_.csv"
    file.write_text(as_csv(found), "utf-8")
    return file


def _preset(
    model: ModelPatcher,
    of_model: Anatomy,
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
        fingerprint=presets.fingerprint(model),
        family=of_model.family.name,
        blocks=len(of_model.blocks),
        verdict=advice.verdict,
        why=advice.why,
        layer=advice.cell.layer if advice.cell else LAYER,
        scale=advice.cell.scale if advice.cell else 0.0,
        start_percent=settings.start_percent,
        options={name: value for name, value in given.items() if value != str(usual[name])},
        sampling={
            "pictures": str(sampling.pictures),
            "steps": str(sampling.steps),
            "cfg": f"{sampling.cfg:g}",
            "sampler": f"{sampling.sampler_name}, {sampling.scheduler}",
            "start_percent": f"{settings.start_percent:g}",
            "host": f"ComfyUI {host_version}",
        },
        figures=rows(found),
    )
