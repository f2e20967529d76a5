"""Loader node of the reference model: a test asset, linked into the provisioned ComfyUI, not part of the pack."""

import json
from pathlib import Path

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE, load_diffusion_model_state_dict
from comfy.supported_models_base import ClipTarget
from comfy_api.latest import ComfyExtension, io
from safetensors import safe_open
from safetensors.torch import load_file

from .text_encoder import TextEncoder, Tokenizer

WEIGHTS = Path(__file__).parent / "weights"


DEPTH = 4  # of the model that the node loads; there are smaller siblings


def load_model(depth: int = DEPTH) -> ModelPatcher:
    return load_diffusion_model_state_dict(load_file(WEIGHTS / f"mmdit_{depth}.safetensors"))


def load_clip(depth: int = DEPTH) -> CLIP:
    """The word vectors, which were trained with the model of this depth, behind ComfyUI's CLIP interface."""
    file = WEIGHTS / f"text_encoder_{depth}.safetensors"
    with safe_open(file, framework="pt") as header:
        vocabulary = json.loads(header.metadata()["vocabulary"])
    target = ClipTarget(Tokenizer, TextEncoder)
    target.params["vocabulary"] = len(vocabulary)
    clip = CLIP(target, tokenizer_data={"vocabulary": vocabulary})
    clip.load_sd(load_file(file))
    return clip


def load_vae() -> VAE:
    return VAE(sd=load_file(WEIGHTS / "autoencoder.safetensors"))


class ReferenceModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuidanceReferenceModel",
            display_name="Load Reference Model (Detail Guidance)",
            category="detail guidance/testing",
            description="The small model that Detail Guidance is tested on: 217 objects on 43 textures.",
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(load_model(), load_clip(), load_vae())


class ReferenceModelExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [ReferenceModelLoader]


async def comfy_entrypoint() -> ReferenceModelExtension:
    return ReferenceModelExtension()
