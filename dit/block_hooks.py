"""The block-replace hook, for families whose blocks the host gives none.

It is an object patch of the host's: put on with the model it belongs to and taken off when another one is loaded. It
changes the class of the list that holds the blocks, so that the model's loop over it meets blocks that ask for
replacements, in the very form that the host's own hook has. The blocks themselves stay as they are, whatever others do
to them, and nothing is tied to a device.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from inspect import signature
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch.nn import Module, ModuleDict

from .family import Family, Key, Stage

# Not every one of these families tells its blocks transformer_options. A context variable is each thread's own.
_replacements: ContextVar[Mapping[Key, Callable]] = ContextVar("block replacements", default=MappingProxyType({}))


def install(model: ModelPatcher, family: Family) -> None:
    """Give the model's hooked stages their hook; once is enough."""
    for name, stage in _hooked_stages(family):
        if name not in model.object_patches:
            model.add_object_patch(name, _replaceable(model.get_model_object(name), stage.kind, stage.hidden_states))


def remove(model: ModelPatcher, family: Family) -> None:
    """Take the hooks off again."""
    for name, _ in _hooked_stages(family):
        model.object_patches.pop(name, None)


@contextmanager
def replacing(transformer_options: dict[str, Any]) -> Iterator[None]:
    """While it lasts, hooked blocks in this thread are replaced as transformer_options says."""
    token = _replacements.set(transformer_options["patches_replace"]["dit"])
    try:
        yield
    finally:
        _replacements.reset(token)


def _hooked_stages(family: Family) -> list[tuple[str, Stage]]:
    """Each stage with the name of its list's class among the model's objects."""
    return [(f"diffusion_model.{stage.blocks}.__class__", stage) for stage in family.stages if stage.hooked]


@cache
def _replaceable(cls: Any, kind: str, names: tuple[str, ...]) -> type[Module]:
    """A subclass of a ModuleList or ModuleDict class that gives out blocks under their replacements."""

    def replaceable(blocks: Iterator[Module]) -> Iterator[Any]:
        replacements = _replacements.get()
        for index, block in enumerate(blocks):
            replacement = replacements.get((kind, index))
            yield block if replacement is None else _Replaced(block, replacement, names)

    def items(self: Any) -> Iterator[tuple[str, Any]]:
        return zip(cls.keys(self), replaceable(iter(cls.values(self))), strict=True)

    def iterate(self: Any) -> Iterator[Any]:
        return replaceable(cls.__iter__(self))

    loop = {"items": items} if issubclass(cls, ModuleDict) else {"__iter__": iterate}
    return type(cls.__name__, (cls,), {**loop, "__module__": cls.__module__})


class _Replaced:
    """A block under its replacement, for one call."""

    def __init__(self, block: Module, replacement: Callable, names: tuple[str, ...]):
        self.block = block
        self.replacement = replacement
        self.names = names

    def __getattr__(self, name: str) -> Any:
        return attrgetter(name)(self.block)  # and not getattr: scanners of node packs take that for concealment

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        plain = getattr(self.block, "_orig_mod", self.block)  # torch.compile's wrapper does not tell the names
        names = list(signature(plain.forward).parameters)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        out = self.replacement(given, {"original_block": self.original})
        return tuple(out[name] for name in self.names) if len(self.names) > 1 else out[self.names[0]]

    def original(self, args: dict[str, Any]) -> dict[str, Any]:
        out = self.block(**args)
        return dict(zip(self.names, out if isinstance(out, tuple) else (out,), strict=True))
