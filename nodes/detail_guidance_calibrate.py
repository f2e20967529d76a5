"""Finding the layer and the scale on the user's own model."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.utils import ProgressBar
from comfy_api.latest import io
from torch import Tensor

from ..dit import KSamplerSettings, anatomy_of
from ..methods.calibration.grid import Sampling
from ..methods.calibration.run import Wanted, calibrate, require_enough, runs
from ..methods.common import page
from ..methods.common.drawing import require_matplotlib
from ..methods.detail_guidance.settings import DG_SCALE, Options
from .inputs import (
    CATEGORY,
    DetailGuidanceOptionsType,
    aliases,
    fraction,
    ksampler_inputs,
    node_id_of,
    require_given,
    require_pictures,
    require_something,
)

log = logging.getLogger("detail_guidance")


class DetailGuidanceCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuidanceCalibrate",
            display_name="Detail Guidance Calibrate",
            category=f"{CATEGORY}/tools",
            description="Which layer, which scale? Samples every combination from the same noise, shows them side by "
            "side, and with reference pictures recommends one if it brings other pictures closer to them too.",
            inputs=[
                *sampling_of_a_grid(),
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
                    tooltip="Keeps what came out for this model: the panel of the guidance nodes offers it if "
                    "reference pictures have judged that it helps, and notes it otherwise.",
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
            **aliases("XY plot", "grid", "tune", "preset"),
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
        one_of_each(singles | {"start_percent": start_percent})
        for prompt in positive:
            require_given(model=model[0], vae=vae[0], positive=prompt)
            require_something(prompt, latent_image[0])
        for batch in reference:
            require_pictures(reference=batch)
        settings = KSamplerSettings(**{name: value[0] for name, value in values.items()})
        progress: list[ProgressBar] = []
        negatives = one_for_each("negative", negative, len(positive))
        sampling = Sampling(positive, negatives, latent_image[0], settings, lambda: progress[0].update(1))
        require_enough(reference, sampling)
        wanted = Wanted(
            layers[0],
            scales[0],
            start_percent[0],
            next(iter(options), Options()),
            _references(reference, len(positive)) if reference else None,
            next(iter(clip_vision), None),
            save_preset[0],
        )
        total = runs(wanted, anatomy_of(model[0]), len(positive)) * settings.steps
        progress.append(ProgressBar(total, node_id_of(cls)))
        made = calibrate(model[0], vae[0], sampling, wanted, telling(node_id_of(cls)))
        return io.NodeOutput(made.layer, made.scale, made.sheet, made.plot, made.report, start_percent[0])


def sampling_of_a_grid() -> list[io.Input]:
    """KSampler's inputs, for nodes that sample several settings of several prompts."""
    return ksampler_inputs(
        steps=20,
        cfg=4.0,
        positive="What the pictures show. A list of conditionings is several prompts.",
        negative="What they should not show. Needed with cfg above 1, ignored at 1.",
        about_steps="As you sample with. Raising it takes longer.",
        about_cfg="Classifier-free guidance as you sample with it: layer and scale depend on it. 1 is off.",
    )


def telling(node_id: str | None) -> Callable[[str], None]:
    """Says how long a calibration takes, in the log and on its node."""

    def say(what: str) -> None:
        log.info(f"Detail Guidance Calibrate: {what}")
        page.say_on_node(what, node_id)

    return say


def one_of_each(singles: dict[str, Sequence[Any]]) -> None:
    for name, given in singles.items():
        if len(given) > 1:
            raise ValueError(f"{name}: it is a list of {len(given)}; only positive, negative and reference may be one.")
    if singles["latent_image"][0]["samples"].is_nested:
        raise ValueError("latent_image: it is pictures and sound in one. Only pictures can be calibrated on.")


def _references(given: Sequence[Tensor], prompts: int) -> list[list[Tensor]]:
    """Each prompt's batches of pictures: a list is all one prompt's, or has a batch for each."""
    if prompts == 1:
        return [list(given)]
    return [[batch] for batch in one_for_each("reference", given, prompts)]


def one_for_each(name: str, given: Sequence[Any], prompts: int) -> list[Any]:
    if len(given) not in (1, prompts):
        raise ValueError(f"{name}: it is a list of {len(given)}, positive of {prompts}. Give as many, or one for all.")
    return list(given) * (prompts if len(given) == 1 else 1)
