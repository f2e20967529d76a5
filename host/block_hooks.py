"""The block-replace hook, for families whose blocks the host gives none.

It is an object patch of the host's: put on with the model it belongs to and taken off when another one is loaded. It
changes a block's class to a subclass, which holds no block and no device, and asks for replacements in the very form
that the host's own hook has.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from types import MappingProxyType
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch.nn import Module

from .families import Block, Key

# Not every one of these families tells its blocks transformer_options. A context variable is each thread's own.
_replacements: ContextVar[Mapping[Key, Callable]] = ContextVar("block replacements", default=MappingProxyType({}))


def install(model: ModelPatcher, blocks: list[Block]) -> None:
    for block in blocks:
        if block.stage.hooked and _name(block) not in model.object_patches:
            model.add_object_patch(_name(block), _hooked(model.get_model_object(_name(block)), block))


def remove(model: ModelPatcher, blocks: list[Block]) -> None:
    for block in blocks:
        model.object_patches.pop(_name(block), None)


@contextmanager
def replacing(transformer_options: dict[str, Any]) -> Iterator[None]:
    """While it lasts, hooked blocks in this thread are replaced as transformer_options says."""
    token = _replacements.set(transformer_options["patches_replace"]["dit"])
    try:
        yield
    finally:
        _replacements.reset(token)


def _name(block: Block) -> str:
    return f"diffusion_model.{block.path}.__class__"


def _hooked(cls: type[Module], block: Block) -> type[Module]:
    names = list(signature(cls.forward).parameters)[1:]
    streams = block.stage.streams

    @wraps(cls.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        replacement = _replacements.get().get(block.key)
        if replacement is None:
            return cls.forward(self, *args, **kwargs)

        def original_block(changed: dict[str, Any]) -> dict[str, Any]:
            out = cls.forward(self, **changed)
            return dict(zip(streams, out if isinstance(out, tuple) else (out,), strict=True))

        out = replacement({**dict(zip(names, args, strict=False)), **kwargs}, {"original_block": original_block})
        return tuple(out[name] for name in streams) if len(streams) > 1 else out[streams[0]]

    return type(cls.__name__, (cls,), {"forward": forward, "__module__": cls.__module__})
