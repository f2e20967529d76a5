"""Loader node of the reference model: a test asset, linked into the provisioned ComfyUI, not part of the pack."""

import json
from pathlib import Path

import torch
from comfy import model_detection, model_management
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.supported_models import SD3
from comfy.supported_models_base import ClipTarget
from comfy_api.latest import ComfyExtension, io
from safetensors import safe_open
from safetensors.torch import load_file

from .difference import applied
from .text_encoder import LENGTH, TextEncoder, Tokenizer

WEIGHTS = Path(__file__).parent / "weights"
DEEP, SHALLOW = "10x192", "4x128"  # blocks × width; the node loads the first
DRAWINGS = "drawings"  # things on plain, graded and speckled grounds, 12 blocks × 128, with an autoencoder of its own
OBJECTS = "10x192_objects"  # the deep model, trained on with objects on the textures


def load_model(weights: str | Path = DEEP) -> ModelPatcher:
    """
    Args:
        weights: blocks × width of committed weights, or a file that the training has kept.
    """
    state, _ = _parts(weights)
    # The host's detection ties the number of blocks to the width; its class does not.
    blocks = model_detection.count_blocks(list(state), "joint_blocks.{}.")
    config = SD3(model_detection.detect_unet_config(state, "") | {"num_blocks": blocks})
    device, offload_device = model_management.get_torch_device(), model_management.unet_offload_device()
    dtype = model_management.unet_dtype(device, supported_dtypes=list(config.supported_inference_dtypes))
    cast = model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    model = config.get_model(state, "", device=offload_device)
    model.load_model_weights(state, "")
    return ModelPatcher(model, load_device=device, offload_device=offload_device)


def load_clip(weights: str | Path = DEEP) -> CLIP:
    """The word vectors, which were trained with the model, behind ComfyUI's CLIP interface."""
    _, state = _parts(weights)
    with safe_open(_file(weights), framework="pt") as header:
        about = header.metadata()
    vocabulary, length = json.loads(about["vocabulary"]), int(about.get("length", LENGTH))
    target = ClipTarget(Tokenizer, TextEncoder)
    target.params |= {"vocabulary": len(vocabulary), "length": length}
    clip = CLIP(target, tokenizer_data={"vocabulary": vocabulary, "length": length})
    clip.load_sd(state)
    return clip


def load_vae(weights: str = "autoencoder") -> VAE:
    return VAE(sd=load_file(_file(weights)))


def _file(weights: str | Path) -> Path:
    return weights if isinstance(weights, Path) else WEIGHTS / f"{weights}.safetensors"


def _parts(weights: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The diffusion transformer's weights, by SD3's names, and the word vectors."""
    state = load_file(_file(weights))
    with safe_open(_file(weights), framework="pt") as header:
        base = header.metadata().get("base")
    if base is not None:  # a difference from other weights
        state = applied(state, load_file(_file(base)))
    model, text = (
        {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        for prefix in ("0.", "1.")
    )
    return model, text


class ReferenceModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuidanceReferenceModel",
            display_name="Load Reference Model (Detail Guidance)",
            category="detail guidance/testing",
            description="The small models that Detail Guidance is tested on: 43 textures, 10 blocks of width 192; or "
            "drawings of 108 things, 12 blocks of width 128.",
            inputs=[
                io.Boolean.Input(
                    "objects", default=False, optional=True, tooltip="The one that also knows objects on the textures."
                ),
                io.Boolean.Input(
                    "drawings", default=False, optional=True, tooltip="The one that draws things: “red apple on blue”."
                ),
            ],
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls, objects: bool = False, drawings: bool = False) -> io.NodeOutput:
        if objects and drawings:
            raise ValueError("objects, drawings: both are on, and they are different models. Switch one of them off.")
        weights = DRAWINGS if drawings else OBJECTS if objects else DEEP
        vae = load_vae("drawings_autoencoder") if drawings else load_vae()
        return io.NodeOutput(load_model(weights), load_clip(weights), vae)


class ReferenceModelExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [ReferenceModelLoader]


async def comfy_entrypoint() -> ReferenceModelExtension:
    return ReferenceModelExtension()
