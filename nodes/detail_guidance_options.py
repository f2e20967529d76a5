from typing import Any, get_args

from comfy_api.latest import io
from torch import Tensor

from ..methods.detail_guidance.curve import parse_curve
from ..methods.detail_guidance.settings import (
    AUTO,
    WORDS_SOFT,
    Batching,
    Direction,
    Options,
    parse_channels,
    without_rounding,
)
from .inputs import (
    CATEGORY,
    DetailGuidanceOptionsType,
    DetailGuidanceProfile,
    WordsType,
    finding_inputs,
    fraction,
    often_changed_inputs,
)


class DetailGuidanceOptions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        often_changed = often_changed_inputs()
        return io.Schema(
            node_id="DetailGuidanceOptions",
            display_name="Detail Guidance Options",
            category=f"{CATEGORY}/tools",
            description="What few users need to change about Detail Guidance.",
            inputs=[
                io.String.Input(
                    "channels",
                    default=AUTO,
                    tooltip='"auto" finds the massive channels at each step; or list them, such as "154, 1446". '
                    "Listing more disrupts more.",
                ),
                *finding_inputs(),
                io.Float.Input(
                    "keep_start",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.001,
                    tooltip="How much of the massive activations is kept when the guidance starts. 0 zeroes them, as "
                    "in the paper; raising it weakens the effect on early steps.",
                ),
                io.Float.Input(
                    "keep_end",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.001,
                    tooltip="The same when the guidance ends. Raising it weakens the effect on late steps.",
                ),
                io.Float.Input(
                    "rescale",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    round=0.001,
                    tooltip="Takes back contrast that the added detail brings. Raising it to 1 takes all of it back.",
                ),
                io.Float.Input(
                    "limit",
                    default=0.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    round=0.0001,
                    tooltip="Greatest relative strength: how large the added detail may be as a share of the step that "
                    "the model itself takes. 0 is off. Raising it allows more before it is held back.",
                ),
                io.Combo.Input(
                    "batching",
                    options=list(get_args(Batching)),
                    default="auto",
                    tooltip="together: the extra rows ride in the same forward, fastest. in turn: a forward of their "
                    "own, less memory. auto: together when memory allows.",
                ),
                # Optional, so that prompts that were saved before there was one stay valid.
                often_changed["every"],
                often_changed["scale_is"],
                fraction(
                    "words_soft",
                    WORDS_SOFT,
                    "How gradually the words' masks end. 0 is a hard edge; raising it blends more.",
                    optional=True,
                ),
                io.Mask.Input("mask", optional=True, tooltip="Where detail is added: white fully, black not at all."),
                DetailGuidanceProfile.Input(
                    "profile", optional=True, tooltip="Channels measured before, per block, in place of channels."
                ),
                WordsType.Input(
                    "words",
                    optional=True,
                    tooltip="From Detail Prompt Words or Detail Foreground: detail is added where they are, as "
                    "the model itself shows while it samples.",
                ),
                # Behind all others: workflows saved before hold values and links by place.
                often_changed["path"],
                io.Combo.Input(
                    "direction",
                    options=list(get_args(Direction)),
                    default="whole",
                    optional=True,
                    tooltip="Which part of the detail is added. whole: all of it. across CFG: only what does not "
                    "strengthen or weaken CFG.",
                ),
                often_changed["perturbation"],
                often_changed["curve"],
            ],
            outputs=[DetailGuidanceOptionsType.Output(tooltip="For Detail Guidance Guider and Detail Guidance.")],
        )

    @classmethod
    def execute(cls, channels: str, mask: Tensor | None = None, curve: str = "", **values: Any) -> io.NodeOutput:
        if mask is not None:
            mask = mask.float()
            mask = mask.unsqueeze(0) if mask.ndim == 2 else mask  # some packs make single masks without a batch
            mask = without_rounding(mask)
        return io.NodeOutput(Options(channels=parse_channels(channels), mask=mask, curve=parse_curve(curve), **values))
