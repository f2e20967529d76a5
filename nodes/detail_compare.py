from comfy_api.latest import io, ui
from torch import Tensor

from .inputs import CATEGORY, FOUND_BY


class DetailCompare(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailCompare",
            display_name="Detail Compare",
            category=CATEGORY,
            description="Two pictures in one place, with a divider that follows the pointer: left of it the one, right "
            "of it the other.",
            inputs=[
                io.Image.Input("images", tooltip="Right of the divider: with Detail Guidance, say."),
                io.Image.Input("reference", tooltip="Left of it: the same without. As many, or one for all."),
            ],
            is_output_node=True,
            **FOUND_BY,
        )

    @classmethod
    def execute(cls, images: Tensor, reference: Tensor) -> io.NodeOutput:
        if len(reference) not in (1, len(images)):
            raise ValueError(
                f"reference: it has {len(reference)} pictures, images has {len(images)}. Give as many, or one for all."
            )
        if images.shape[1:3] != reference.shape[1:3]:
            sizes = [f"{each.shape[2]} × {each.shape[1]}" for each in (images, reference)]
            raise ValueError(f"reference: its pictures are {sizes[1]}, images' are {sizes[0]}. Scale one of them.")
        left, right = (ui.PreviewImage(each[..., :3], cls=cls).as_dict()["images"] for each in (reference, images))
        return io.NodeOutput(ui={"detail_compare": [left * (len(right) // len(left)), right]})
