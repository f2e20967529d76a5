from comfy_api.latest import io, ui
from torch import Tensor

from .inputs import CATEGORY, aliases, require_pairs


class DetailCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailCompare",
            display_name="Detail Compare",
            category=f"{CATEGORY}/tools",
            description="Two pictures in one place, with a divider that follows the pointer: left of it the one, right "
            "of it the other.",
            inputs=[
                io.Image.Input("images", tooltip="Right of the divider: with Detail Guidance, say."),
                io.Image.Input("reference", tooltip="Left of it: the same without. As many, or one for all."),
            ],
            is_output_node=True,
            **aliases("slider", "before and after", "side by side"),
        )

    @classmethod
    def execute(cls, images: Tensor, reference: Tensor) -> io.NodeOutput:
        require_pairs(images, reference)
        left, right = (ui.PreviewImage(each[..., :3], cls=cls).as_dict()["images"] for each in (reference, images))
        return io.NodeOutput(ui={"detail_compare": [left * (len(right) // len(left)), right]})
