"""A scorer of pictures, for Detail Guidance Judge."""

from pathlib import Path

import comfy.utils
import folder_paths
import torch
from comfy.clip_vision import ClipVisionModel
from comfy_api.latest import io
from torch import Tensor

from ..methods.calibration.scores import aesthetics, linear_head
from .inputs import CATEGORY, require_given, require_pictures

FOLDER = "aesthetics"  # below the host's models
folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
NONE_YET = f"none: put one into models/{FOLDER}, then press R"


class DetailAestheticScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailAestheticScore",
            display_name="Detail Aesthetic Score",
            category=f"{CATEGORY}/tools",
            description="Scores pictures by an aesthetics predictor of yours: linear layers on a CLIP vision model's "
            "embeddings, such as LAION's.",
            inputs=[
                io.Image.Input("images", tooltip="From Detail Guidance Grid, or any pictures."),
                io.ClipVision.Input("clip_vision", tooltip="The CLIP vision model that the head was made for."),
                io.Combo.Input(
                    "head",
                    options=folder_paths.get_filename_list(FOLDER) or [NONE_YET],
                    tooltip=f"A file in models/{FOLDER}.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="scores",
                    is_output_list=True,
                    tooltip="A number for each picture, for Detail Guidance Judge.",
                )
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, clip_vision: ClipVisionModel, head: str) -> io.NodeOutput:
        require_given(clip_vision=clip_vision)
        require_pictures(images=images)
        if head == NONE_YET:
            raise ValueError(f"head: there is none in models/{FOLDER}. Put one there, and press R on the page.")
        file = Path(folder_paths.get_full_path_or_raise(FOLDER, head))
        layers = linear_head(comfy.utils.load_torch_file(str(file), safe_load=True), file)
        return io.NodeOutput(aesthetics(_embedded(clip_vision, images), layers, file).tolist())


def _embedded(clip_vision: ClipVisionModel, images: Tensor) -> Tensor:
    """The network's embedding of each picture, (pictures, width)."""
    embedded = [clip_vision.encode_image(image[None, ..., :3])["image_embeds"].flatten(1).cpu() for image in images]
    return torch.cat(embedded)
