"""The real ComfyUI in this process, without a server, and the pack loaded by ComfyUI's own loader."""

import asyncio
import sys
from types import ModuleType
from typing import Any

import provision
import torch

sys.path.insert(0, str(provision.comfyui_dir()))

from comfy.cli_args import args

args.cpu = not torch.cuda.is_available()

import utils.extra_config  # noqa: E402, F401, I001  first, as in main.py: importing nodes hides utils/ behind a utils.py
import nodes as comfy_nodes  # noqa: E402
from comfy_api.latest._io import Hidden  # noqa: E402


class Pack:
    """The pack as ComfyUI loads it."""

    def __init__(self) -> None:
        if not asyncio.run(comfy_nodes.load_custom_node(str(provision.ROOT))):
            raise RuntimeError("ComfyUI could not load the pack; its log says why.")
        self.package = comfy_nodes.NODE_CLASS_MAPPINGS["DetailGuider"].__module__.partition(".nodes.")[0]

    def run(self, node: str, **inputs: Any) -> Any:
        """First output of a node, called as ComfyUI's execution calls it; inputs not given take their defaults."""
        cls = comfy_nodes.NODE_CLASS_MAPPINGS[node]
        widgets = {i.id: i.default for i in cls.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
        clone = cls.PREPARE_CLASS_CLONE({Hidden.unique_id: "7"})
        return clone.execute(**{**widgets, **inputs})[0]

    def module(self, name: str) -> ModuleType:
        return sys.modules[f"{self.package}.{name}"]
