"""Inputs that several nodes share, and the settings they make."""

from dataclasses import replace
from inspect import signature
from typing import Any, get_args

from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from comfy_api.latest import io
from torch import Tensor

from ..dit import KSamplerSettings, Observer, ksample, observed
from ..methods.detail_guidance.curve import parse_curve
from ..methods.detail_guidance.patch import patch, without
from ..methods.detail_guidance.settings import (
    DG_SCALE,
    LAYER,
    MASSIVE_RATIO,
    MAX_CHANNELS,
    Options,
    Path,
    PerturbationKind,
    ScaleIs,
    Settings,
)

CATEGORY = "detail guidance"
FAMILIES = "SD3, Flux, Qwen-Image, Wan …"


def aliases(*words: str) -> dict[str, Any]:
    """Further words by which the host's search finds a node, for its schema; older hosts know none."""
    return {"search_aliases": [*words]} if "search_aliases" in io.Schema.__dataclass_fields__ else {}


SEARCH_ALIASES = aliases(
    *("sharpen", "sharper", "texture", "detail", "enhance", "quality", "DG", "skip layer", "SLG", "perturbed", "PAG"),
    "massive activations",
)

DetailGuidanceOptionsType = io.Custom("DG_OPTIONS")
DetailGuidanceProfile = io.Custom("DG_PROFILE")
DiTFeaturesType = io.Custom("DIT_FEATURES")
WordsType = io.Custom("DG_WORDS")


def fraction(name: str, default: float, tooltip: str, **more: Any) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, round=0.0001, tooltip=tooltip, **more)


# Behind the fold for what few change; older hosts have none and show it with the others.
ADVANCED = {"advanced": True} if "advanced" in signature(io.Combo.Input.__init__).parameters else {}
OFTEN_CHANGED = ("scale_is", "every", "path", "perturbation", "curve")  # options that are on the guidance nodes too


def often_changed_inputs(**more: Any) -> dict[str, io.Input]:
    """Inputs that the options and the guidance nodes have both, by their names. They are optional, so that prompts that
    were saved before there was one stay valid."""
    inputs = [
        io.Combo.Input(
            "scale_is",
            options=list(get_args(ScaleIs)),
            default="w",
            optional=True,
            tooltip="What dg_scale is. w: the paper's factor. strength: the share that the added detail has in "
            "the step that the model itself takes, the same at every step and on every model.",
            **more,
        ),
        io.Int.Input(
            "every",
            default=1,
            min=1,
            max=8,
            optional=True,
            tooltip="Computes the detail at every so many guided steps and uses the last in between. Raising "
            "it is cheaper, and further from the full effect.",
            **more,
        ),
        io.Combo.Input(
            "path",
            options=list(get_args(Path)),
            default="positive",
            optional=True,
            tooltip="Whose prediction is disrupted. positive: a second one, as in the paper. negative: the "
            "negative's own, which costs nothing; it needs cfg above 1.",
            **more,
        ),
        io.Combo.Input(
            "perturbation",
            options=list(get_args(PerturbationKind)),
            default="massive channels",
            optional=True,
            tooltip="What makes the prediction that is avoided a poorer one, at the layers. massive channels: "
            "zeroed, as in the paper. The others are those of other methods, such as skipped block (SLG) and "
            "identity attention (PAG).",
            **more,
        ),
        io.String.Input(
            "curve",
            default="",
            optional=True,
            tooltip="How dg_scale goes over the guided part, as points place:share, 0 to 1 each: 0:0, 0.3:1, 1:0.5 "
            "begins at none, has all of it at 0.3, and half of it at the end. Places go with the noise level. Empty: "
            "all of it throughout.",
            **more,
        ),
    ]
    return {each.id: each for each in inputs}


def guidance_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "dg_scale",
            default=DG_SCALE,
            min=0.0,
            max=20.0,
            step=0.05,
            round=0.001,
            tooltip="Strength of the added detail. 0 is off and costs nothing. Raising it sharpens local detail; too "
            "much over-sharpens and makes textures inconsistent.",
        ),
        fraction(
            "layer_start",
            LAYER,
            "First layer whose massive activations are disrupted, as a fraction of the model's depth. Raising it moves "
            "to later blocks: cheaper, because the blocks before it are shared, and finer detail.",
        ),
        fraction(
            "layer_end",
            LAYER,
            "Last layer, as a fraction of the depth. Equal to layer_start: one layer, as in the paper. Raising it "
            "disrupts more layers: a stronger effect. It is never before layer_start: it follows.",
        ),
        fraction(
            "start_percent",
            0.0,
            "Where in the sampling schedule the guidance starts. Raising it leaves the first steps, which make the "
            "layout, alone.",
        ),
        fraction(
            "end_percent",
            1.0,
            "Where in the sampling schedule the guidance ends. Lowering it leaves the last steps alone, and saves "
            "their cost.",
        ),
        # Optional, so that prompts that were saved before there was one stay valid.
        io.Boolean.Input(
            "enabled",
            default=True,
            optional=True,
            tooltip="Off keeps the values and samples as if this node were not there: with and without in one click.",
        ),
        DetailGuidanceOptionsType.Input(
            "options", optional=True, tooltip="From Detail Guidance Options. Unconnected: its defaults."
        ),
        *often_changed_inputs(**ADVANCED).values(),
    ]


def sampling_inputs() -> list[io.Input]:
    """KSampler's, for nodes that look at a model while it samples."""
    return ksampler_inputs(
        steps=8,
        cfg=1.0,
        positive="What the picture shows; its prediction is what is measured.",
        negative="What it should not show. Not measured.",
        about_steps="Raising it measures more noise levels, and takes longer.",
        about_cfg="Classifier-free guidance of the sampling. 1 is off, and enough to measure.",
    )


def ksampler_inputs(
    steps: int, cfg: float, positive: str, negative: str, about_steps: str, about_cfg: str
) -> list[io.Input]:
    """KSampler's, with other defaults and words."""
    return [
        io.Model.Input("model", tooltip="A Diffusion Transformer."),
        io.Conditioning.Input("positive", tooltip=positive),
        io.Conditioning.Input("negative", tooltip=negative),
        io.Latent.Input("latent_image", tooltip="What to sample from; its size decides how long it takes."),
        io.Int.Input("seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of the noise."),
        io.Int.Input("steps", default=steps, min=1, max=10000, tooltip=about_steps),
        io.Float.Input(
            "cfg",
            default=cfg,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip=about_cfg,
        ),
        io.Combo.Input("sampler_name", options=KSampler.SAMPLERS, default="euler", tooltip="As in KSampler."),
        io.Combo.Input("scheduler", options=KSampler.SCHEDULERS, default="simple", tooltip="As in KSampler."),
    ]


def finding_inputs() -> list[io.Input]:
    """What counts as massive, where it is found and not listed."""
    return [
        io.Float.Input(
            "massive_ratio",
            default=MASSIVE_RATIO,
            min=1.0,
            max=1000.0,
            step=0.5,
            round=0.01,
            tooltip="A channel is massive if its mean magnitude exceeds this many times the median channel's. Raising "
            "it keeps only channels that stand out more.",
        ),
        io.Int.Input(
            "max_channels",
            default=MAX_CHANNELS,
            min=1,
            max=64,
            tooltip="At most so many channels a block, the largest first. Raising it can find more.",
        ),
    ]


def sampled(
    observer: Observer,
    model: ModelPatcher,
    positive: list,
    negative: list,
    latent_image: dict[str, Any],
    **settings: Any,
) -> dict[str, Any]:
    """What KSampler samples with the values of `sampling_inputs`, without Detail Guidance, while an observer looks.

    Raises:
        ValueError: names the input, its value and what is allowed.
    """
    require_given(model=model, positive=positive)
    require_something(positive, latent_image)
    watched = observed(without(model), observer)
    return ksample(watched, positive, negative, latent_image, KSamplerSettings(**settings)).latent


def node_id_of(node: type[io.ComfyNode]) -> str | None:
    """The execution id of a node that runs; None where another executor, or a script, gives no hidden inputs."""
    return None if node.hidden is None else node.hidden.unique_id


# What to do where nothing came in: from a checkpoint without that part, say, or a bypassed node.
_LOADERS = {
    "model": "Load one with Load Diffusion Model or Load Checkpoint.",
    "vae": "Load one with Load VAE: files of diffusion models alone have none.",
    "clip": "Load one with Load CLIP: files of diffusion models alone have no text encoder.",
    "clip_vision": "Load one with Load CLIP Vision.",
    "positive": "Connect a text encoder's conditioning.",
    "words": "Connect Detail Prompt Words or Detail Foreground.",
    "features": "Connect DiT Features.",
    "source": "Connect DiT Features.",
    "grid": "Connect Detail Guidance Grid.",
    "pictures": "Connect Detail Guidance Grid.",
}


def require_given(**inputs: Any) -> None:
    """Refuse inputs by which nothing came in.

    Raises:
        ValueError: one is None; the message names the input and what to connect.
    """
    for name, value in inputs.items():
        if value is None:
            raise ValueError(f"{name}: there is none. {_LOADERS[name]}")


def require_pictures(**inputs: Tensor | None) -> None:
    """Refuse batches that are no pictures (pictures, height, width, 3 or 4). None is an input that is not connected.

    Raises:
        ValueError: the batch is empty, or has another shape; the message names the input.
    """
    for name, images in inputs.items():
        if images is None:
            continue
        shape = tuple(images.shape)
        if images.ndim != 4 or shape[3] not in (3, 4):
            raise ValueError(
                f"{name}: its shape is {shape}, pictures are (pictures, height, width, 3). A mask, or pictures of one "
                "channel, become pictures by Convert Mask to Image."
            )
        if not images.numel():
            raise ValueError(f"{name}: it has no pictures, its shape is {shape}. Connect at least one.")


def require_something(positive: list, latent_image: dict[str, Any]) -> None:
    """Refuse to sample without a prompt or a latent.

    Raises:
        ValueError: the conditioning or the latent is empty.
    """
    if not positive:
        raise ValueError("positive: it is empty. Connect a text encoder's conditioning.")
    samples = latent_image["samples"]
    if not samples.numel():
        raise ValueError(f"latent_image: it is empty, its shape is {tuple(samples.shape)}.")


def require_pairs(images: Tensor, reference: Tensor) -> None:
    """Refuse pictures that cannot be compared in pairs.

    Args:
        images, reference: (pictures, height, width, channels).

    Raises:
        ValueError: one is no pictures, the two differ in size, or in number and reference is not one for all.
    """
    require_pictures(images=images, reference=reference)
    if images.shape[1:3] != reference.shape[1:3]:
        sizes = [f"{each.shape[2]} × {each.shape[1]}" for each in (images, reference)]
        raise ValueError(f"reference: its pictures are {sizes[1]}, images' are {sizes[0]}. Scale one of them.")
    if len(reference) not in (1, len(images)):
        raise ValueError(
            f"reference: it has {len(reference)} pictures, images has {len(images)}. Give as many, or one for all."
        )


def options_of(values: dict[str, Any]) -> Options:
    """The connected options, or the defaults, with what was changed on the node itself.

    Raises:
        ValueError: the node and its options were both changed, differently; or a value is not allowed.
    """
    usual = Options()
    options = values.get("options") or usual
    given = values | {"curve": parse_curve(values.get("curve", ""))}
    changed = {name: given[name] for name in OFTEN_CHANGED if given.get(name, vars(usual)[name]) != vars(usual)[name]}
    for name, value in changed.items():
        if vars(options)[name] not in (vars(usual)[name], value):
            raise ValueError(
                f"{name}: {value} on the node, {vars(options)[name]} in its options. Set it in one of the two, and "
                f"leave the other at {vars(usual)[name] or 'nothing'}."
            )
    return replace(options, **changed)


def guided(model: ModelPatcher, node_id: str | None, values: dict[str, Any]) -> ModelPatcher:
    """The model with the values of `guidance_inputs`; as it came where they are not enabled. A last layer before the
    first follows it: a link or a script may have set only the one.

    Raises:
        ValueError: names the input, its value and what is allowed.
    """
    require_given(model=model)
    if not values.get("enabled", True):
        return model
    numbers = {name: value for name, value in values.items() if name not in ("enabled", "options", *OFTEN_CHANGED)}
    if 0 <= numbers["layer_end"] < numbers["layer_start"]:  # a value out of range is still refused
        numbers["layer_end"] = numbers["layer_start"]
    return patch(model, Settings(**numbers, options=options_of(values)), node_id)
