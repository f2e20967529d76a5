"""Block patches for one forward of the model.

A forward's batch is made of chunks, one per condition, each with one row per picture. In a guided step some chunks are
detail rows: copies of a conditional chunk that get disrupted. Each forward is patched for what it holds:

    sharing      detail rows beside their conditional rows: blocks before the layers take the latter's outputs
    recording    conditional rows alone: their state at the first layer and their channels are kept
    resuming     detail rows alone: they start from the recorded state

A forward's own state lives in the arguments here; what it shares with others (`records`, the callbacks) is only ever
added to, each condition under its own key, so forwards may run in several threads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from ..detail_guidance.massive import disrupt
from .families import Family

Args = dict[str, Any]
Key = tuple[str, int]
Inner = Callable[[Args], Args]  # the rest of the chain at this block: others' patch or the block itself
Patch = Callable[[Args, Inner], Args]
Labels = dict[str, list[Any]]  # what transformer_options says of the chunks


@dataclass(frozen=True)
class Chunk:
    """One condition's rows in a forward's batch.

    Attributes:
        uuid: the condition's. Not unique: for areas, the host gives the negative a copy of the positive's.
        index: of its condition in the host's list.
        number: of the chunk in the batch.
        size: rows in a chunk.
    """

    uuid: UUID
    index: int
    number: int
    size: int

    @property
    def rows(self) -> slice:
        return slice(self.number * self.size, (self.number + 1) * self.size)


@dataclass(frozen=True)
class Record:
    """What a conditional chunk leaves for its detail rows: its streams at the first layer, and channels per block."""

    streams: dict[str, Tensor] = field(default_factory=dict)
    channels: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Disruption:
    """What to do, where.

    Attributes:
        family: the model's row of the table.
        keys: the host's key of every block in execution order.
        layers: numbers of the blocks at whose input the channels are disrupted.
        find: (block, conditional image tokens) → bool (channels,).
        keep: ρ of this step.
        fired: called each time detail rows are disrupted.
    """

    family: Family
    keys: list[Key]
    layers: range
    find: Callable[[int, Tensor], Tensor]
    keep: float
    fired: Callable[[], None]

    @property
    def prefix(self) -> list[Key]:
        return self.keys[: self.layers.start]

    def disrupted(self, args: Args, channels: list[tuple[slice, Tensor]]) -> Args:
        """A block's arguments with the given channels of the given rows disrupted."""
        image = args[self.family.image].clone()  # the rows of others are theirs to keep
        for rows, massive in channels:
            image[rows] = disrupt(image[rows], massive, self.keep)
        self.fired()
        return {**args, self.family.image: image}


def chunks_of(transformer_options: dict[str, Any], rows_each: int) -> list[Chunk]:
    """The chunks of a forward, in their order."""
    uuids, indices = transformer_options["uuids"], transformer_options["cond_or_uncond"]
    return [
        Chunk(uuid, index, number, rows_each) for number, (uuid, index) in enumerate(zip(uuids, indices, strict=True))
    ]


def sharing(todo: Disruption, chunks: list[Chunk], partner: dict[Chunk, Chunk]) -> dict[Key, Patch]:
    """Detail rows beside their conditional rows; `partner` maps the ones to the others."""
    computed = [chunk for chunk in chunks if chunk not in partner]
    sources = [computed.index(partner.get(chunk, chunk)) for chunk in chunks]
    # Detail rows are conditional rows to other packs' block and attention patches.
    labels: Labels = {"cond_or_uncond": [partner.get(chunk, chunk).index for chunk in chunks]}
    computed_labels: Labels = {
        "cond_or_uncond": [chunk.index for chunk in computed],
        "uuids": [chunk.uuid for chunk in computed],
    }

    def share(args: Args, inner: Inner) -> Args:
        rows = {name: _take(args[name], computed) for name in todo.family.row_arguments}
        out = inner(_labelled({**args, **rows}, computed_labels))
        return {**out, **{name: _spread(out[name], len(computed), sources) for name in todo.family.streams}}

    def disrupt_at(block: int) -> Patch:
        def patch(args: Args, inner: Inner) -> Args:
            image = args[todo.family.image]
            channels = [
                (detail.rows, todo.find(block, image[conditional.rows])) for detail, conditional in partner.items()
            ]
            return inner(_labelled(todo.disrupted(args, channels), labels))

        return patch

    def label(args: Args, inner: Inner) -> Args:
        return inner(_labelled(args, labels))

    patches: dict[Key, Patch] = {key: label for key in todo.keys}
    patches |= {key: share for key in todo.prefix}
    return patches | {todo.keys[block]: disrupt_at(block) for block in todo.layers}


def recording(todo: Disruption, chunks: list[Chunk], records: dict[UUID, Record]) -> dict[Key, Patch]:
    """Conditional rows whose detail rows come later: fills `records`, changes nothing."""

    def record_at(block: int) -> Patch:
        def patch(args: Args, inner: Inner) -> Args:
            for chunk in chunks:
                record = records.setdefault(chunk.uuid, Record())
                record.channels[block] = todo.find(block, args[todo.family.image][chunk.rows])
                if block == todo.layers.start:
                    # Clones: blocks, ControlNets and other packs may change these in place.
                    record.streams.update({name: args[name][chunk.rows].clone() for name in todo.family.streams})
            return inner(args)

        return patch

    return {todo.keys[block]: record_at(block) for block in todo.layers}


def resuming(todo: Disruption, chunks: list[tuple[Chunk, Record]]) -> dict[Key, Patch]:
    """Detail rows only: blocks before the layers do nothing, the first layer starts from the records."""

    def pass_by(args: Args, inner: Inner) -> Args:
        return {name: args[name] for name in todo.family.streams}

    def disrupt_at(block: int) -> Patch:
        def patch(args: Args, inner: Inner) -> Args:
            image = args[todo.family.image]
            if block == todo.layers.start:
                states = {
                    name: torch.cat([record.streams[name].to(image.device) for _, record in chunks])
                    for name in todo.family.streams
                }
                args = {**args, **states}
            channels = [(chunk.rows, record.channels[block].to(image.device)) for chunk, record in chunks]
            return inner(todo.disrupted(args, channels))

        return patch

    patches: dict[Key, Patch] = {key: pass_by for key in todo.prefix}
    return patches | {todo.keys[block]: disrupt_at(block) for block in todo.layers}


def chained(transformer_options: dict[str, Any], patches: dict[Key, Patch]) -> dict[str, Any]:
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


def _labelled(args: Args, labels: Labels) -> Args:
    return {**args, "transformer_options": {**args["transformer_options"], **labels}}


def _take(tensor: Tensor, chunks: list[Chunk]) -> Tensor:
    return torch.cat([tensor[chunk.rows] for chunk in chunks])


def _spread(tensor: Tensor, chunks: int, sources: list[int]) -> Tensor:
    parts = tensor.chunk(chunks)
    return torch.cat([parts[source] for source in sources])
