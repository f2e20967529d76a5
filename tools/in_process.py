"""The real ComfyUI in this process, without a server, and the pack loaded by ComfyUI's own loader."""

import asyncio
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from types import ModuleType
from typing import Any

import provision
from allocator import keep_freed_memory

REFERENCE_MODEL = provision.ROOT / "tests/reference_model"

sys.path.insert(0, str(provision.comfyui_dir()))


def start(cpu: bool, pytorch_attention: bool = False) -> None:
    """Import ComfyUI, on the CPU or on its own choice of device, with its own choice of attention or PyTorch's, which
    is an eighth faster on a CPU. To be called before any other import of it."""
    from comfy.cli_args import args

    args.cpu = cpu
    args.use_pytorch_cross_attention = pytorch_attention
    if cpu:
        keep_freed_memory()
    import utils.extra_config  # noqa: F401  first, as in main.py: importing nodes hides utils/ behind a utils.py


class Pack:
    """The pack as ComfyUI loads it."""

    def __init__(self) -> None:
        import nodes

        if not asyncio.run(nodes.load_custom_node(str(provision.ROOT))):
            raise RuntimeError("ComfyUI could not load the pack; its log says why.")
        self.classes = nodes.NODE_CLASS_MAPPINGS
        self.package = self.classes["DetailGuider"].__module__.partition(".nodes.")[0]

    def run(self, node: str, **inputs: Any) -> Any:
        """First output of a node, called as ComfyUI's execution calls it; inputs not given take their defaults."""
        return self.outputs(node, **inputs)[0]

    def outputs(self, node: str, **inputs: Any) -> Any:
        """All of them."""
        from comfy_api.latest._io import Hidden

        cls = self.classes[node]
        widgets = {i.id: i.default for i in cls.GET_SCHEMA().inputs if getattr(i, "default", None) is not None}
        hidden: dict[str, Any] = {Hidden.unique_id: "7"}
        if "hidden_inputs" not in signature(cls.PREPARE_CLASS_CLONE).parameters:  # newer hosts tell more
            hidden = {"hidden_inputs": hidden}
        clone = cls.PREPARE_CLASS_CLONE(hidden)
        return clone.execute(**{**widgets, **inputs})

    @contextmanager
    def reports(self) -> Iterator[list[Any]]:
        """The reports of the sampling runs that end while it lasts, in their order, in place of the log."""
        report, published = self.module("methods.detail_guidance.run").Report, []
        publish, report.publish = report.publish, lambda self: published.append(self)
        try:
            yield published
        finally:
            report.publish = publish

    def module(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self.package}.{name}")


def reference_model() -> ModuleType:
    """The reference model's package, as ComfyUI loads it."""
    import nodes

    asyncio.run(nodes.load_custom_node(str(REFERENCE_MODEL)))
    return sys.modules[nodes.NODE_CLASS_MAPPINGS["DetailGuidanceReferenceModel"].__module__]
