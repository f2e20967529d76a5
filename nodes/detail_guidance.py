from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from .inputs import CATEGORY, FAMILIES, SEARCH_ALIASES, guidance_inputs, guided, node_id_of


class DetailGuidance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuidance",
            display_name="Detail Guidance",
            category=CATEGORY,
            description=f"Finer local detail for Diffusion Transformers ({FAMILIES}), without training: a model for "
            "KSampler and for every guider built on ComfyUI's own.",
            inputs=[
                io.Model.Input("model", tooltip="A Diffusion Transformer."),
                *guidance_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="The model, sampling with Detail Guidance.")],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # another node with these inputs has its own report
            **SEARCH_ALIASES,
        )

    @classmethod
    def execute(cls, model: ModelPatcher, **values: Any) -> io.NodeOutput:
        return io.NodeOutput(guided(model, node_id_of(cls), values))
