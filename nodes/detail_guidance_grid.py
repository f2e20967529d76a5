"""A grid of settings, sampled for a judge outside of this pack, and what the judge's scores say of it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, get_args

from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.utils import ProgressBar
from comfy_api.latest import io

from ..dit import KSamplerSettings, anatomy_of
from ..methods.calibration.grid import Sampling, grid
from ..methods.calibration.recommendation import FEWEST
from ..methods.calibration.run import Trial, judged, tried
from ..methods.common.drawing import require_matplotlib
from ..methods.common.layers import parse_layers
from ..methods.common.numbers import parse_numbers
from ..methods.detail_guidance.settings import (
    DG_SCALE,
    Options,
    Path,
    PerturbationKind,
    parse_choices,
    parse_scales,
)
from .detail_guidance_calibrate import one_for_each, one_of_each, sampling_of_a_grid, telling
from .inputs import CATEGORY, DetailGuidanceOptionsType, node_id_of, require_given, require_something

GridType = io.Custom("DG_GRID")
# At one layer, random blocks are one block, skipped in each step.
KINDS = tuple(kind for kind in get_args(PerturbationKind) if kind != "random blocks")


class DetailGuidanceGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuidanceGrid",
            display_name="Detail Guidance Grid",
            category=f"{CATEGORY}/tools",
            description="Samples a grid of settings from the same noise and hands the pictures out, for any node that "
            "scores pictures. Detail Guidance Judge takes the scores back.",
            inputs=[
                *sampling_of_a_grid(),
                io.Vae.Input("vae", tooltip="Decodes the pictures."),
                io.String.Input(
                    "layers", default="0.6, 0.7, 0.8", tooltip="Fractions of the depth to try. More take longer."
                ),
                io.String.Input(
                    "scales", default=f"0.1, {DG_SCALE:g}, 0.5", tooltip="Values of dg_scale to try. More take longer."
                ),
                io.String.Input(
                    "starts", default="0", tooltip="Values of start_percent to try, such as 0, 0.67. More take longer."
                ),
                io.String.Input(
                    "perturbations",
                    default="massive channels",
                    tooltip="The options' perturbations to try, such as massive channels, skipped block. More take "
                    "longer.",
                ),
                io.String.Input(
                    "paths",
                    default="positive",
                    tooltip="The options' paths to try: positive, negative, or both. More take longer.",
                ),
                DetailGuidanceOptionsType.Input(
                    "options", optional=True, tooltip="From Detail Guidance Options: everything else."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="pictures",
                    is_output_list=True,
                    tooltip="A list of batches: the pictures without Detail Guidance, then those of each setting. A "
                    "node that scores pictures runs once for each.",
                ),
                GridType.Output(display_name="grid", tooltip="For Detail Guidance Judge."),
            ],
            hidden=[io.Hidden.unique_id],
            is_input_list=True,  # a list of prompts is several
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
        starts: list[str],
        perturbations: list[str],
        paths: list[str],
        options: Sequence[Options] = (),
        **values: list[Any],
    ) -> io.NodeOutput:
        texts = {"layers": layers, "scales": scales, "starts": starts, "perturbations": perturbations, "paths": paths}
        one_of_each({"model": model, "vae": vae, "latent_image": latent_image, "options": options, **texts, **values})
        for prompt in positive:
            require_given(model=model[0], vae=vae[0], positive=prompt)
            require_something(prompt, latent_image[0])
        sampler = KSamplerSettings(**{name: value[0] for name, value in values.items()})
        given = next(iter(options), Options())
        kinds = product(
            parse_choices("perturbations", perturbations[0], KINDS),
            parse_choices("paths", paths[0], get_args(Path)),
        )
        settings = grid(
            parse_layers(layers[0], len(anatomy_of(model[0]).blocks)),
            parse_scales(scales[0]),
            parse_numbers("starts", starts[0], 0.0, 1.0, "numbers such as 0, 0.67"),
            [replace(given, perturbation=kind, path=path) for kind, path in kinds],
        )
        require_matplotlib()  # the judge draws
        say, node_id = telling(node_id_of(cls)), node_id_of(cls)
        bar = ProgressBar((1 + len(settings)) * len(positive) * sampler.steps, node_id)
        negatives = one_for_each("negative", negative, len(positive))
        sampling = Sampling(positive, negatives, latent_image[0], sampler, lambda: bar.update(1))
        if sampling.pictures < FEWEST:
            say(f"{sampling.pictures} pictures of each setting are too few to judge by: the judge takes {FEWEST}.")
        trial = tried(model[0], vae[0], sampling, settings, say)
        return io.NodeOutput(trial.pictures, trial)


class DetailGuidanceJudge(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        score = [io.Float, io.Int, io.String]
        return io.Schema(
            node_id="DetailGuidanceJudge",
            display_name="Detail Guidance Judge",
            category=f"{CATEGORY}/tools",
            description="Which setting of a grid is best by the scores of any node: the one that half of the pictures "
            "prefer most surely, if the other half agrees; else none.",
            inputs=[
                GridType.Input("grid", tooltip="From Detail Guidance Grid."),
                io.MultiType.Input(
                    "scores",
                    types=score,
                    tooltip="A number for each picture, in the grid's order; higher is better. Of one picture, of a "
                    "batch, or all at once.",
                ),
                io.Boolean.Input(
                    "save_preset",
                    default=True,
                    tooltip="Keeps what comes out for this model: the panel of the guidance nodes then offers it.",
                ),
                io.MultiType.Input(
                    "guard",
                    types=score,
                    optional=True,
                    tooltip="Scores of a second kind that must not fall, such as how well the prompt is followed.",
                ),
            ],
            outputs=[
                io.Float.Output(display_name="layer", tooltip="The recommended layer."),
                io.Float.Output(display_name="scale", tooltip="The recommended dg_scale; 0 where none helps."),
                io.Image.Output(display_name="sheet", tooltip="The grid side by side, a picture of each setting."),
                io.Image.Output(display_name="plot", tooltip="What the scale does, layer by layer."),
                io.String.Output(display_name="report", tooltip="The recommendation, the reason and the figures."),
                io.Float.Output(display_name="start_percent", tooltip="That of the recommended setting."),
                DetailGuidanceOptionsType.Output(
                    display_name="options", tooltip="Those of the recommended setting, for the guidance nodes."
                ),
            ],
            is_input_list=True,
        )

    @classmethod
    def execute(
        cls, grid: list[Trial], scores: list[Any], save_preset: list[bool], guard: list[Any] | None = None
    ) -> io.NodeOutput:
        require_matplotlib()
        require_given(grid=grid[0])
        second = None if guard is None else _numbers("guard", guard)
        made = judged(grid[0], _numbers("scores", scores), second, save_preset[0])
        start, options = made.settings.start_percent, made.settings.options
        return io.NodeOutput(made.layer, made.scale, made.sheet, made.plot, made.report, start, options)


def _numbers(name: str, given: Iterable[Any]) -> list[float]:
    """The numbers in what scorers give: numbers, texts of numbers, tensors, and lists of these.

    Raises:
        ValueError: something else is among them.
    """
    numbers: list[float] = []
    for each in given:
        if isinstance(each, str):
            numbers += parse_numbers(name, each, -1e9, 1e9, "numbers such as 5.1, 6.3")
        elif isinstance(each, int | float):
            numbers.append(float(each))
        elif hasattr(each, "tolist"):
            nested = each.tolist()
            numbers += _numbers(name, nested if isinstance(nested, list) else [nested])
        elif isinstance(each, list | tuple):
            numbers += _numbers(name, each)
        else:
            raise ValueError(f"{name}: {each!r} is no number. Connect a node that scores pictures.")
    return numbers
