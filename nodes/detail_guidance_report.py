from typing import Any

from comfy_api.latest import io

from ..methods.detail_guidance.report import reports_of_this_prompt
from .inputs import CATEGORY

METADATA = "detail_guidance"  # beside the host's own "prompt" and "workflow" in a saved picture


class DetailGuidanceReport(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailGuidanceReport",
            display_name="Detail Guidance Report",
            category=f"{CATEGORY}/tools",
            description="What Detail Guidance did, as text and in the saved picture's metadata: strength, channels, "
            "steps, settings, warnings. Goes between the sampler and VAE Decode.",
            inputs=[io.Latent.Input("latent", tooltip="From the sampler. It passes through.")],
            outputs=[
                io.Latent.Output(tooltip="For VAE Decode."),
                io.String.Output(display_name="report", tooltip="A line for each sampling run, and its warnings."),
            ],
            hidden=[io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, latent: dict[str, Any]) -> io.NodeOutput:
        reports = reports_of_this_prompt()
        if reports and cls.hidden is not None and cls.hidden.extra_pnginfo is not None:  # prompts of scripts have none
            cls.hidden.extra_pnginfo[METADATA] = [report.summary() for report in reports]
        text = "\n".join(part for report in reports for part in (report.line(), *report.warnings))
        return io.NodeOutput(
            latent,
            text
            or "Nothing was sampled with Detail Guidance here: ComfyUI may have kept the latent of an earlier run.",
        )
