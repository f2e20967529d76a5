from math import isclose
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from comfy_api.latest import io

from .inputs import CATEGORY, FAMILIES, SEARCH_ALIASES, guidance_inputs, guided, node_id_of, options_of, require_given


class DetailGuider(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuider",
            display_name="Detail Guidance Guider",
            category=CATEGORY,
            description=f"Finer local detail for Diffusion Transformers ({FAMILIES}), without training: a guider for "
            "SamplerCustomAdvanced, with or without CFG.",
            inputs=[
                io.Model.Input("model", tooltip="A Diffusion Transformer."),
                io.Conditioning.Input("positive", tooltip="What the picture shows."),
                io.Conditioning.Input(
                    "negative", optional=True, tooltip="What it should not show. Needed only when cfg is not 1."
                ),
                io.Float.Input(
                    "cfg",
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Classifier-free guidance. 1 is off: Detail Guidance alone, and no negative is computed. "
                    "Raising it follows the prompt more closely.",
                ),
                *guidance_inputs(),
            ],
            outputs=[io.Guider.Output(tooltip="For SamplerCustomAdvanced.")],
            hidden=[io.Hidden.unique_id],
            not_idempotent=True,  # another node with these inputs has its own report
            **SEARCH_ALIASES,
        )

    @classmethod
    def execute(
        cls, model: ModelPatcher, positive: list, cfg: float, negative: list | None = None, **values: Any
    ) -> io.NodeOutput:
        require_given(positive=positive)
        if not 0 <= cfg <= 100:
            raise ValueError(f"cfg: {cfg} is outside 0 to 100.")
        if negative is None and not isclose(cfg, 1.0):
            raise ValueError(f"negative: not connected, but cfg = {cfg:g} needs it. Connect it, or set cfg to 1.")
        on = values.get("enabled", True) and values["dg_scale"] > 0
        if on and cfg <= 1 and options_of(values).path == "negative":
            raise ValueError(
                f"cfg: {cfg:g} is not above 1, and the path, negative, disrupts the negative's prediction. "
                "Set cfg above 1, or path to positive."
            )
        guider = CFGGuider(guided(model, node_id_of(cls), values))
        conditions = {"positive": positive} | ({} if negative is None else {"negative": negative})
        guider.inner_set_conds(conditions)
        guider.set_cfg(cfg)
        return io.NodeOutput(guider)
