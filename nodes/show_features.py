import torch
from comfy_api.latest import io
from torch.nn.functional import interpolate

from ..methods.common.drawing import require_matplotlib
from ..methods.common.numbers import require
from ..methods.common.palette import SIXTEEN
from ..methods.features import matching
from ..methods.features.features import Features
from ..methods.features.pictures import colours, heat_picture, label_picture
from .inputs import CATEGORY, DiTFeaturesType, require_given


class ShowFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ShowFeatures",
            display_name="Show DiT Features",
            category=f"{CATEGORY}/features",
            description="Pictures of features: their first three principal components as colours, parts that k-means "
            "finds, and one channel. Colours and parts are shared by all pictures: what is alike has one colour.",
            inputs=[
                DiTFeaturesType.Input("features", tooltip="From DiT Features."),
                io.Int.Input(
                    "parts",
                    default=4,
                    min=2,
                    max=len(SIXTEEN),
                    tooltip="Into how many parts the pictures are divided. Raising it finds smaller ones.",
                ),
                io.Int.Input("channel", default=0, min=0, max=2**16, tooltip="Which channel is drawn, from 0."),
            ],
            outputs=[
                io.Image.Output(display_name="components", tooltip="The first three principal components as colours."),
                io.Image.Output(display_name="parts", tooltip="A colour for each part, the largest part first."),
                io.Mask.Output(
                    display_name="masks", tooltip="Of the first picture one for each part, then of the next picture."
                ),
                io.Image.Output(display_name="channel", tooltip="One channel, from its lowest value to its highest."),
            ],
        )

    @classmethod
    def execute(cls, features: Features, parts: int, channel: int) -> io.NodeOutput:
        require_given(features=features)
        require_matplotlib()
        require("parts", parts, 2, len(SIXTEEN))
        require("channel", channel, 0, features.values.shape[1] - 1)
        size = features.height, features.width
        found = matching.parts(features.values, parts)
        masks = interpolate(found.float(), size, mode="nearest").flatten(0, 1)
        drawn = torch.stack([heat_picture(each[channel], size) for each in features.values])
        components = colours(matching.components(features.values), size)
        return io.NodeOutput(components, label_picture(found, size), masks, drawn)
