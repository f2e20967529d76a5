"""Loader node of the reference model: a test asset, linked into the provisioned ComfyUI, not part of the pack."""

import json
from pathlib import Path

from comfy.sd import CLIP, VAE, load_diffusion_model_state_dict
from comfy.supported_models_base import ClipTarget
from comfy_api.latest import ComfyExtension, io
from safetensors import safe_open
from safetensors.torch import load_file

from .text_encoder import TextEncoder, Tokenizer

WEIGHTS = Path(__file__).parent / "weights"


def load_clip() -> CLIP:
    """The word vectors behind ComfyUI's CLIP interface."""
    file = WEIGHTS / "text_encoder.safetensors"
    with safe_open(file, framework="pt") as header:
        vocabulary = json.loads(header.metadata()["vocabulary"])
    target = ClipTarget(Tokenizer, TextEncoder)
    target.params["vocabulary"] = len(vocabulary)
    clip = CLIP(target, tokenizer_data={"vocabulary": vocabulary})
    clip.load_sd(load_file(file))
    return clip


class ReferenceModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuidanceReferenceModel",
            display_name="Load Reference Model (Detail Guidance)",
            category="detail guidance/testing",
            description="The small texture model that Detail Guidance is tested on: 128 × 128 pixels, 43 textures.",
            outputs=[io.Model.Output(), io.Clip.Output(), io.Vae.Output()],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        model = load_diffusion_model_state_dict(load_file(WEIGHTS / "mmdit.safetensors"))
        vae = VAE(sd=load_file(WEIGHTS / "autoencoder.safetensors"))
        return io.NodeOutput(model, load_clip(), vae)


class ReferenceModelExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [ReferenceModelLoader]


async def comfy_entrypoint() -> ReferenceModelExtension:
    return ReferenceModelExtension()
