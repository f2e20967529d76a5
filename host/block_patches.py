"""Block patches for one forward of the model.

A forward's batch is made of chunks, one per condition, each with one row per picture. In a guided step some chunks are
detail rows: copies of a conditional chunk that get disrupted. Each forward is patched for what it holds:

    sharing      detail rows beside their conditional rows: blocks before the layers take the latter's outputs
    recording    conditional rows alone: their state at the first layer and their channels are kept
    resuming     detail rows alone: they start from the recorded state

A forward's own state lives in the arguments here; what it shares with others (`records`, the callbacks) is only ever
added to, each condition under its own key, so forwards may run in several threads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from ..detail_guidance.massive import disrupt
from .families import Block, Family, Key, Layout, Stage
from .rows import spread, take

Args = dict[str, Any]
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
    """What a conditional chunk leaves for its detail rows.

    Attributes:
        streams: its streams at the first layer.
        channels: its massive channels, per block.
        outputs: what blocks before the layers returned, per block; only where later blocks are given it too.
    """

    streams: dict[str, Tensor] = field(default_factory=dict)
    channels: dict[int, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Disruption:
    """What to do, where, in one forward.

    Attributes:
        family: the model's row of the table.
        blocks: all of the model's, in execution order.
        layers: numbers of the blocks at whose input the channels are disrupted.
        find: (block, conditional picture tokens) → bool (channels,).
        measure: called with every block and its conditional picture tokens, where it is wanted.
        keep: ρ of this step.
        fired: called each time detail rows are disrupted.
        layout: of this forward.
    """

    family: Family
    blocks: Sequence[Block]
    layers: range
    find: Callable[[int, Tensor], Tensor]
    measure: Callable[[int, Tensor], None] | None
    keep: float
    fired: Callable[[], None]
    layout: Layout

    @property
    def prefix(self) -> range:
        """The blocks that detail rows have in common with their conditional rows."""
        return range(self.layers.start)

    def picture(self, block: int, args: Args, rows: slice) -> Tensor:
        """A view of the picture's tokens of some rows at a block's input."""
        return picture(self.blocks[block].stage, self.layout, args, rows)

    def disrupted(self, block: int, args: Args, channels: Sequence[tuple[slice, Tensor]], ours: bool) -> Args:
        """A block's arguments with the given channels of the given rows disrupted; `ours`: in place, because nobody
        else holds on to the image stream."""
        name = self.blocks[block].stage.image
        if not ours:
            args = {**args, name: args[name].clone()}
        for rows, massive in channels:
            picture = self.picture(block, args, rows)
            picture.copy_(disrupt(picture, massive, self.keep))
        self.fired()
        return args

    def measured(self, of_blocks: dict[int, Patch], conditional: Sequence[Chunk]) -> dict[int, Patch]:
        """The patches, and at every block of the model its conditional rows measured first, where that is wanted."""
        measure = self.measure
        if measure is None:
            return of_blocks

        def measured_at(block: int, patch: Patch) -> Patch:
            def run(args: Args, inner: Inner) -> Args:
                for chunk in conditional:
                    measure(block, self.picture(block, args, chunk.rows))
                return patch(args, inner)

            return run

        return {block: measured_at(block, of_blocks.get(block, _unchanged)) for block in range(len(self.blocks))}

    def patches(self, of_blocks: dict[int, Patch]) -> dict[Key, Patch]:
        """Under the host's keys, from the first patched block to the last of all: hosts keep a block's result until the
        next patched block returns, so each empties the one before."""
        result: Args = {}

        def emptying(patch: Patch) -> Patch:
            def run(args: Args, inner: Inner) -> Args:
                nonlocal result
                result.clear()
                result = {**patch(args, inner)}  # a dict of our own: others may keep theirs
                return result

            return run

        blocks = range(min(of_blocks, default=len(self.blocks)), len(self.blocks))
        return {self.blocks[block].key: emptying(of_blocks.get(block, _unchanged)) for block in blocks}


def picture(stage: Stage, layout: Layout, args: Args, rows: slice) -> Tensor:
    """A view of the picture's tokens of some rows at a block's input."""
    stream = args[stage.image]
    where = [slice(None)] * stream.ndim
    where[1] = layout.tokens(stage, stream.shape[1])
    where[stage.row_dim_of(stage.image)] = rows
    return stream[tuple(where)]


def chunks_of(transformer_options: dict[str, Any], rows_each: int) -> list[Chunk]:
    """The chunks of a forward, in their order."""
    uuids, indices = transformer_options["uuids"], transformer_options["cond_or_uncond"]
    return [
        Chunk(uuid, index, number, rows_each) for number, (uuid, index) in enumerate(zip(uuids, indices, strict=True))
    ]


def sharing(todo: Disruption, chunks: list[Chunk], partner: dict[Chunk, Chunk]) -> dict[Key, Patch]:
    """Detail rows beside their conditional rows; `partner` maps the ones to the others."""
    computed = [chunk for chunk in chunks if chunk not in partner]
    computed_rows, total = [chunk.rows for chunk in computed], sum(chunk.size for chunk in chunks)
    sources = [computed.index(partner.get(chunk, chunk)) for chunk in chunks]
    # Detail rows are conditional rows to other packs' block and attention patches.
    labels: Labels = {"cond_or_uncond": [partner.get(chunk, chunk).index for chunk in chunks]}
    computed_labels: Labels = {
        "cond_or_uncond": [chunk.index for chunk in computed],
        "uuids": [chunk.uuid for chunk in computed],
    }

    def share_at(block: int) -> Patch:
        stage = todo.blocks[block].stage

        def share(args: Args, inner: Inner) -> Args:
            rows = {
                name: take(args[name], computed_rows, total, stage.row_dim_of(name), name in stage.packed)
                for name in stage.rows
                if name in args
            }
            out = inner(_labelled({**args, **rows}, computed_labels))
            streams = {
                name: spread(out[name], len(computed), sources, stage.row_dim_of(name)) for name in stage.streams
            }
            return {**out, **streams}

        return share

    def disrupt_at(block: int) -> Patch:
        # The stream that the last shared block returned was made here, and nobody keeps it but models with long skips.
        ours = block - 1 in todo.prefix and not todo.family.long_skips

        def patch(args: Args, inner: Inner) -> Args:
            channels = [
                (detail.rows, todo.find(block, todo.picture(block, args, conditional.rows)))
                for detail, conditional in partner.items()
            ]
            return inner(_labelled(todo.disrupted(block, args, channels, ours), labels))

        return patch

    def label(args: Args, inner: Inner) -> Args:
        return inner(_labelled(args, labels))

    patches: dict[int, Patch] = {block: label for block in range(len(todo.blocks))}
    patches |= {block: share_at(block) for block in todo.prefix}
    patches |= {block: disrupt_at(block) for block in todo.layers}
    return todo.patches(todo.measured(patches, list(partner.values())))


def recording(todo: Disruption, chunks: list[Chunk], records: dict[UUID, Record]) -> dict[Key, Patch]:
    """Conditional rows whose detail rows come later: fills `records`, changes nothing."""

    def rows_of(block: int, streams: Args, name: str, chunk: Chunk) -> Tensor:
        dim = todo.blocks[block].stage.row_dim_of(name)
        # A clone: blocks, ControlNets and other packs may change these in place.
        return streams[name].narrow(dim, chunk.rows.start, chunk.size).clone()

    def record_at(block: int) -> Patch:
        stage = todo.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            for chunk in chunks:
                record = records.setdefault(chunk.uuid, Record())
                record.channels[block] = todo.find(block, todo.picture(block, args, chunk.rows))
                if block == todo.layers.start:
                    record.streams.update({name: rows_of(block, args, name, chunk) for name in stage.streams})
            return inner(args)

        return patch

    def record_output_of(block: int) -> Patch:
        def patch(args: Args, inner: Inner) -> Args:
            out = inner(args)
            for chunk in chunks:
                record = records.setdefault(chunk.uuid, Record())
                record.outputs[block] = rows_of(block, out, todo.blocks[block].stage.image, chunk)
            return out

        return patch

    prefix = todo.prefix if todo.family.long_skips else ()
    patches = {block: record_output_of(block) for block in prefix}
    patches |= {block: record_at(block) for block in todo.layers}
    return todo.patches(todo.measured(patches, chunks))


def resuming(todo: Disruption, chunks: list[tuple[Chunk, Record]]) -> dict[Key, Patch]:
    """Detail rows only: blocks before the layers do nothing, the first layer starts from the records."""

    def restored(block: int, name: str, parts: list[Tensor], like: Tensor) -> Tensor:
        dim = todo.blocks[block].stage.row_dim_of(name)
        return torch.cat([part.to(like.device) for part in parts], dim)

    def pass_at(block: int) -> Patch:
        stage = todo.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            if todo.family.long_skips:
                outputs = [record.outputs[block] for _, record in chunks]
                return {stage.image: restored(block, stage.image, outputs, args[stage.image])}
            if block == 0:  # hosts may keep the first block's input, and write into what it returns
                return {name: args[name].clone() for name in stage.streams}
            return {name: args[name] for name in stage.streams}

        return patch

    def disrupt_at(block: int) -> Patch:
        stage = todo.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            if block == todo.layers.start:
                states = {
                    name: restored(block, name, [record.streams[name] for _, record in chunks], args[name])
                    for name in stage.streams
                }
                args = {**args, **states}
            device = args[stage.image].device
            channels = [(chunk.rows, record.channels[block].to(device)) for chunk, record in chunks]
            return inner(todo.disrupted(block, args, channels, ours=block == todo.layers.start))

        return patch

    patches = {block: pass_at(block) for block in todo.prefix}
    return todo.patches(patches | {block: disrupt_at(block) for block in todo.layers})


def chained(transformer_options: dict[str, Any], patches: dict[Key, Patch]) -> dict[str, Any]:
    """A copy of transformer_options with the patches put around those that other packs have set on the same blocks."""
    replaced = transformer_options.get("patches_replace", {})
    dit = dict(replaced.get("dit", {}))
    for key, patch in patches.items():
        dit[key] = _around(patch, dit.get(key))
    return {**transformer_options, "patches_replace": {**replaced, "dit": dit}}


def _unchanged(args: Args, inner: Inner) -> Args:
    return inner(args)


def _around(patch: Patch, previous: Callable | None) -> Callable[[Args, dict[str, Any]], Args]:
    def replacement(args: Args, extra: dict[str, Any]) -> Args:
        if previous is None:
            return patch(args, extra["original_block"])
        return patch(args, lambda changed: previous(changed, extra))

    return replacement


def _labelled(args: Args, labels: Labels) -> Args:
    if "transformer_options" not in args:  # some models do not tell their blocks
        return args
    return {**args, "transformer_options": {**args["transformer_options"], **labels}}
