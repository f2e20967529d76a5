from comfy_api.latest import io

from ..methods.common.numbers import require
from ..methods.regions.foreground import Foreground
from .inputs import CATEGORY, WordsType, aliases, fraction

LAYER, MAX_CHANNELS = 0.65, 8  # docs/EVIDENCE.md, section 13


class DetailForeground(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailForeground",
            display_name="Detail Foreground (words)",
            category=f"{CATEGORY}/words",
            description="The foreground in place of words: the model's largest channels part each picture in two, and "
            "what touches its border less is meant.",
            inputs=[
                fraction(
                    "layer",
                    LAYER,
                    "The block whose input is read, as a fraction of the depth. Raising it reads a later block.",
                ),
                io.Int.Input(
                    "max_channels",
                    default=MAX_CHANNELS,
                    min=1,
                    max=64,
                    tooltip="So many channels are read, the largest first. Raising it reads more than the massive "
                    "ones.",
                ),
            ],
            outputs=[
                WordsType.Output(display_name="words", tooltip="For Detail Guidance Options or Detail Word Mask.")
            ],
            **aliases("mask", "subject", "background", "segment"),
        )

    @classmethod
    def execute(cls, layer: float, max_channels: int) -> io.NodeOutput:
        require("layer", layer, 0.0, 1.0)
        require("max_channels", max_channels, 1, 64)
        return io.NodeOutput(Foreground(layer, max_channels))
