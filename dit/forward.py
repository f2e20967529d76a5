"""One forward of the model under block patches of this pack."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from . import block_hooks
from .family import Block, Key

Args = dict[str, Any]  # a block's arguments, or what it returns, by name
Inner = Callable[[Args], Args]  # the rest of the chain at this block: another node's patch or the block itself
Patch = Callable[[Args, Inner], Args]
ChunkKey = tuple[UUID, int]


@dataclass(frozen=True)
class Chunk:
    """One condition's rows in a forward's batch.

    Attributes:
        uuid: the condition's id. Not unique: for areas, the host gives the negative a copy of the positive's.
        index: place of the condition's group in the host's list of conditions.
        number: the chunk's place in the batch.
        size: rows in a chunk.
    """

    uuid: UUID
    index: int
    number: int
    size: int

    @property
    def key(self) -> ChunkKey:
        """What identifies the chunk's condition."""
        return self.uuid, self.index

    @property
    def rows(self) -> slice:
        """The chunk's rows in the batch."""
        return slice(self.number * self.size, (self.number + 1) * self.size)


def chunks_of(transformer_options: Mapping[str, Any], rows_each: int) -> list[Chunk]:
    """The chunks of a batch in their order, as transformer_options names them.

    Args:
        rows_each: rows of each chunk.
    """
    named = zip(transformer_options["uuids"], transformer_options["cond_or_uncond"], strict=True)
    return [Chunk(uuid, index, number, rows_each) for number, (uuid, index) in enumerate(named)]


@dataclass(frozen=True)
class Batch:
    """What one forward is given.

    Attributes:
        latent: shape of its latent, (rows, channels, …, height, width).
        conditions: model conditions by name, "context" among them.
        transformer_options: the host's.
    """

    latent: torch.Size
    conditions: Mapping[str, Any]
    transformer_options: dict[str, Any]


def patched(
    patches_for: Callable[[Batch], dict[Key, Patch] | None], on_uncompiled: Callable[[], object] = lambda: None
) -> Callable[..., Tensor]:
    """A wrapper for the host's `apply_model` that runs each forward under the patches for what it is given.

    Args:
        patches_for: the patches of a forward; None leaves the forward as it is.
        on_uncompiled: called where torch.compile around the whole model was set aside.
    """

    def apply_model(
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] = {},
        **conditions: Any,
    ) -> Tensor:
        # Models of pictures and sound take both as one row of numbers; the picture is the first.
        (latent, *_) = conditions.get("latent_shapes") or [x.shape]
        batch = Batch(
            torch.Size([*x.shape[:1], *latent[1:]]), {"context": c_crossattn, **conditions}, transformer_options
        )
        patches = patches_for(batch)
        if patches is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conditions)
        options = _chained(transformer_options, patches)
        with block_hooks.replacing(options), _uncompiled(executor.class_obj, on_uncompiled):
            return executor(x, t, c_concat, c_crossattn, control, options, **conditions)

    return apply_model


def by_key(patches: Mapping[int, Patch], blocks: Sequence[Block]) -> dict[Key, Patch]:
    """Patches by block number under the host's keys, from the first patched block to the last of all: hosts keep a
    block's result until the next patched block returns, so each patch empties the result of the one before."""
    result: Args = {}

    def emptying(patch: Patch) -> Patch:
        def run(args: Args, inner: Inner) -> Args:
            nonlocal result
            result.clear()
            result = {**patch(args, inner)}  # a dict of our own: others may keep theirs
            return result

        return run

    first = min(patches, default=len(blocks))
    return {block.key: emptying(patches.get(at, unchanged)) for at, block in enumerate(blocks) if at >= first}


def unchanged(args: Args, inner: Inner) -> Args:
    """The patch that changes nothing."""
    return inner(args)


def _chained(transformer_options: dict[str, Any], patches: dict[Key, Patch]) -> dict[str, Any]:
    """A copy of transformer_options with the patches put around those that other packs have set on the same blocks."""
    replaced = transformer_options.get("patches_replace", {})
    dit = dict(replaced.get("dit", {}))
    for key, patch in patches.items():
        dit[key] = _around(patch, dit.get(key))
    return {**transformer_options, "patches_replace": {**replaced, "dit": dit}}


def _around(patch: Patch, previous: Callable | None) -> Callable[[Args, dict[str, Any]], Args]:
    def replacement(args: Args, extra: dict[str, Any]) -> Args:
        if previous is None:
            return patch(args, extra["original_block"])
        return patch(args, lambda changed: previous(changed, extra))

    return replacement


@contextmanager
def _uncompiled(model: Any, on_uncompiled: Callable[[], object]) -> Iterator[None]:
    """While it lasts, the host's model runs without torch.compile around the whole of it.

    Patches are different functions in every forward. A compiled model would be compiled anew for each, or, in hosts
    that tell it to ignore transformer_options, run its first graph ever after, patched or not. Compiled blocks stay.
    """
    compiled = model.diffusion_model
    whole = hasattr(compiled, "_orig_mod")
    if whole:
        on_uncompiled()
        model.diffusion_model = compiled._orig_mod
    try:
        yield
    finally:
        if whole:
            model.diffusion_model = compiled
