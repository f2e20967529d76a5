"""What is known of a tiny model beforehand: see family_models.py."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from math import prod
from pathlib import Path
from typing import Any

import comfy
import comfy.supported_models as supported
import torch
from comfy.nested_tensor import NestedTensor
from family_sizes import CONTEXT, TEXT
from plain import Stream


@cache
def host_source(file: str) -> str:
    """A file of the host's package, "" where it has none."""
    path = Path(comfy.supported_models.__file__).parent / file
    return path.read_text() if path.exists() else ""


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        config: name of the host's model configuration class.
        sizes: what the host would read from the weights.
        latent: shape of one picture's latent, (channels, …, height, width); of pictures and sound, both shapes.
        blocks: diffusion model → its blocks in execution order.
        streams: of each of them.
        conditions: seed → what stands beside the prompt in a condition.
        text: tokens of a prompt.
        one_row: the host itself takes these conditions for one picture and one condition at a time.
        needs: a file of the host's package, and what it must hold, for hosts that know the model but not this use.
        changed: attributes of the configuration class that would make the model too large, or hide its sizes.
        prepared: what other node stands on the model.
    """

    config: str
    sizes: dict[str, Any]
    latent: tuple
    blocks: Callable[[Any], list]
    streams: list[Stream]
    conditions: Callable[[int], dict[str, Any]] = field(default=lambda seed: {})
    text: int = TEXT
    one_row: bool = False
    needs: tuple[str, str] | None = None
    changed: dict[str, Any] = field(default_factory=dict)
    prepared: Callable[[Any], Any] = lambda patcher: patcher

    @property
    def depth(self) -> int:
        return len(self.streams)

    @property
    def numbers(self) -> int | None:
        """How many of a latent's numbers are the picture's, where the others are sound."""
        return None if isinstance(self.latent[0], int) else prod(self.latent[0])

    @property
    def lacking(self) -> str | None:
        """Why this host cannot run it."""
        for file, text in (("supported_models.py", f"class {self.config}("), *([self.needs] if self.needs else [])):
            if text not in host_source(file):
                return f"this host's comfy/{file} has no {text}"
        return None

    @property
    def class_of_config(self) -> type:
        known = getattr(supported, self.config)
        return type(known.__name__, (known,), self.changed) if self.changed else known

    def conditioning(self, seed: int) -> list:
        width = self.sizes.get("context width", CONTEXT)
        entry = {"pooled_output": normal(seed, 1, CONTEXT), **self.conditions(seed)}
        return [[normal(seed + 100, 1, self.text, width), entry]]

    def noise(self, batch: int, seed: int = 5) -> torch.Tensor | NestedTensor:
        if isinstance(self.latent[0], int):
            return normal(seed, batch, *self.latent)
        return NestedTensor([normal(seed + 20 * part, batch, *shape) for part, shape in enumerate(self.latent)])


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reference(seed: int, *shape: int) -> dict[str, Any]:
    return {"reference_latents": [normal(seed, 1, *shape)]}


@dataclass(frozen=True)
class Part(Stream):
    """A stream that is one part of a tuple."""

    part: int = 0

    def find(self, block, args, kwargs):
        arguments, key = super().find(block, args, kwargs)
        parts = list(arguments[key])
        if not isinstance(arguments, tuple):
            arguments[key] = parts
        return parts, self.part


@dataclass(frozen=True)
class Flat(Stream):
    """A stream (tokens, channels) of one picture, without a dimension for rows."""

    def picture(self, stream, length):
        return super().picture(stream[None], length)


@dataclass(frozen=True)
class Method:
    """A block whose work is another method than forward, and for which PyTorch has no hooks."""

    block: Any
    name: str

    @property
    def forward(self):
        return getattr(self.block, self.name)

    def modules(self):
        return self.block.modules()

    def register_forward_pre_hook(self, hook, with_kwargs=True):
        before = vars(self.block).get(self.name)
        inner = self.forward
        parameters = signature(inner)

        def run(*args, **kwargs):
            changed = hook(self, args, kwargs)
            args, kwargs = changed or (args, kwargs)
            return inner(*args, **kwargs)

        run.__signature__ = parameters
        object.__setattr__(self.block, self.name, run)
        return Removal(self.block, self.name, before)


@dataclass(frozen=True)
class Removal:
    block: Any
    name: str
    before: Any

    def remove(self):
        if self.before is None:
            object.__delattr__(self.block, self.name)
        else:
            object.__setattr__(self.block, self.name, self.before)


def double_and_single(model):
    return [*model.double_blocks, *model.single_blocks]


def blocks(model):
    return [*model.blocks]


def text_first(picture: int, text: int = TEXT) -> list[Stream]:
    return [Stream("img", slice(0, picture))] * 2 + [Stream("x", slice(text, text + picture))] * 2
