"""ComfyUI Detail Guidance: finer local detail for Diffusion Transformers, by disrupting their massive activations."""

from comfy_api.latest import ComfyExtension, io

from .methods.calibration import presets
from .methods.detail_guidance import report
from .nodes import NODES

WEB_DIRECTORY = "./js"


class DetailGuidanceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> DetailGuidanceExtension:
    report.serve()
    presets.serve()
    return DetailGuidanceExtension()
