from comfy_api.latest import io
from torch import Tensor

from ..methods.common.drawing import require_matplotlib
from ..methods.common.numbers import require
from ..methods.features.features import Features
from ..methods.features.search import Search, search
from .inputs import CATEGORY, DiTFeaturesType, require_given, require_pictures


class MatchFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MatchFeatures",
            display_name="Match DiT Features",
            category=f"{CATEGORY}/features",
            description="Finds points and a mask of one picture in others, by their features. Without a target the "
            "source is a video, and what is in its first frame is followed through it.",
            inputs=[
                DiTFeaturesType.Input("source", tooltip="From DiT Features: the picture of the points and the mask."),
                io.String.Input(
                    "points",
                    default="",
                    tooltip='Points of the source in pixels, x from the left and y from the top, such as "120, 80; 40, '
                    '200". Empty where there is a mask.',
                ),
                io.Boolean.Input(
                    "mutual",
                    default=False,
                    tooltip="On keeps only what finds its way back: whose like in the source is where it came from. "
                    "Fewer matches, and surer ones.",
                ),
                io.Int.Input(
                    "earlier_frames",
                    default=7,
                    min=0,
                    max=64,
                    tooltip="Of a video: from how many frames before it a frame takes the mask, beside the first. "
                    "Raising it follows changes better, and drifts more.",
                ),
                DiTFeaturesType.Input("target", optional=True, tooltip="Where to look: any number of pictures."),
                io.Mask.Input("mask", optional=True, tooltip="A part of the source, to be found in the target."),
                io.Image.Input("source_image", optional=True, tooltip="For the picture with lines."),
                io.Image.Input("target_image", optional=True, tooltip="For the picture with lines."),
            ],
            outputs=[
                io.String.Output(
                    display_name="points", tooltip="Where the points are, a line for each picture of the target."
                ),
                io.Mask.Output(display_name="mask", tooltip="The mask in the target, a picture for each of its own."),
                io.Image.Output(
                    display_name="heat", tooltip="How alike each place is to the first point, or to the mask."
                ),
                io.Image.Output(display_name="lines", tooltip="Source and target side by side, with the matches."),
                io.String.Output(display_name="report", tooltip="Each match, how alike it is, and whether it returns."),
            ],
        )

    @classmethod
    def execute(
        cls,
        source: Features,
        points: str,
        mutual: bool,
        earlier_frames: int,
        target: Features | None = None,
        mask: Tensor | None = None,
        source_image: Tensor | None = None,
        target_image: Tensor | None = None,
    ) -> io.NodeOutput:
        require_given(source=source)
        require_pictures(source_image=source_image, target_image=target_image)
        require_matplotlib()
        require("earlier_frames", earlier_frames, 0, 64)
        wanted = Search(points, mask, mutual, earlier_frames)
        found = search(source, target, wanted, (source_image, target_image))
        return io.NodeOutput(found.points, found.mask, found.heat, found.lines, found.report)
