"""The block patches of a guided step.

A forward's batch is made of chunks, one per condition, each with one row per picture. In a guided step some chunks are
detail rows: copies of a conditional chunk that get weakened. Each forward is patched for what it holds:

    sharing      detail rows beside their conditional rows: blocks before the rules take the latter's outputs
    recording    conditional rows alone: their state at the first rule's block, and what the rules observe, are kept
    resuming     detail rows alone: they start from the recorded state
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from ..detail_guidance.massive import peak_ratio
from .families import Block, Key, Layout
from .forward import Args, Chunk, Inner, Patch
from .rows import spread, take
from .task import Task

Labels = dict[str, list[Any]]  # what transformer_options says of the chunks


@dataclass(frozen=True)
class Handover:
    """What a conditional chunk leaves for its detail rows.

    Attributes:
        found: what the rules observed, per block.
        streams: its streams at the first rule's block, where its detail rows come later.
        outputs: what blocks before that returned, per block; only where later blocks are given it too.
    """

    found: dict[int, Tensor] = field(default_factory=dict)
    streams: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)


@dataclass
class Trace:
    """What the forwards of one step leave behind, which may run in several threads: it is only ever added to, and what
    is not of the whole step has a key for each condition.

    Attributes:
        handovers: by the conditional chunk's id.
        weakened: whether any detail chunk was.
        peak_ratios: per block, of the first conditional chunk that came by, where the task wants them.
        compiled: whether torch.compile around the whole model was set aside.
    """

    handovers: dict[UUID, Handover] = field(default_factory=dict)
    weakened: bool = False
    peak_ratios: dict[int, Tensor] = field(default_factory=dict)
    compiled: bool = False

    def of(self, chunk: Chunk) -> Handover:
        """What a conditional chunk leaves."""
        return self.handovers.setdefault(chunk.uuid, Handover())


@dataclass(frozen=True)
class Forward:
    """One forward of a step.

    Attributes:
        layout: where it has its picture.
    """

    task: Task
    layout: Layout
    trace: Trace

    @property
    def blocks(self) -> Sequence[Block]:
        return self.task.anatomy.blocks

    @property
    def prefix(self) -> range:
        """The blocks that detail rows have in common with their conditional rows."""
        return range(self.task.first)

    @property
    def long_skips(self) -> bool:
        return self.task.anatomy.family.long_skips

    def picture(self, block: int, args: Args, chunk: Chunk) -> Tensor:
        """A view of the picture's tokens of a chunk at a block's input."""
        return self.layout.picture_of(self.blocks[block].stage, args, chunk.rows)

    def observed(self, block: int, args: Args, conditional: Chunk) -> Tensor:
        """What the rule finds at a block's input; also noted in the trace."""
        found = self.task.rules[block].observe(self.picture(block, args, conditional))
        self.trace.of(conditional).found[block] = found
        return found

    def weakened(self, block: int, args: Args, found: Mapping[Chunk, Tensor], ours: bool) -> Args:
        """A block's arguments with these detail chunks weakened by what was found; `ours`: in place, because nobody
        else holds on to the image stream."""
        name = self.blocks[block].stage.image
        if not ours:
            args = {**args, name: args[name].clone()}
        for detail, seen in found.items():
            picture = self.picture(block, args, detail)
            picture.copy_(self.task.rules[block].weaken(picture, seen, self.task.keep))
            self.trace.weakened = True
        return args

    def measured(self, patches: dict[int, Patch], conditional: Sequence[Chunk]) -> dict[int, Patch]:
        """The patches, and at every block of the model its first conditional chunk measured before, where that is
        wanted."""
        if not self.task.measure or not conditional:
            return patches

        def measured_at(block: int, patch: Patch) -> Patch:
            def run(args: Args, inner: Inner) -> Args:
                if block not in self.trace.peak_ratios:
                    self.trace.peak_ratios[block] = peak_ratio(self.picture(block, args, conditional[0]))
                return patch(args, inner)

            return run

        return {block: measured_at(block, patches.get(block, _unchanged)) for block in range(len(self.blocks))}

    def by_key(self, patches: dict[int, Patch]) -> dict[Key, Patch]:
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

        blocks = range(min(patches, default=len(self.blocks)), len(self.blocks))
        return {self.blocks[block].key: emptying(patches.get(block, _unchanged)) for block in blocks}


def sharing(forward: Forward, chunks: list[Chunk], partner: dict[Chunk, Chunk]) -> dict[Key, Patch]:
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
        stage = forward.blocks[block].stage

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

    def weaken_at(block: int) -> Patch:
        # The stream that the last shared block returned was made here, and nobody keeps it but models with long skips.
        ours = block - 1 in forward.prefix and not forward.long_skips

        def patch(args: Args, inner: Inner) -> Args:
            found = {detail: forward.observed(block, args, conditional) for detail, conditional in partner.items()}
            return inner(_labelled(forward.weakened(block, args, found, ours), labels))

        return patch

    def label(args: Args, inner: Inner) -> Args:
        return inner(_labelled(args, labels))

    patches: dict[int, Patch] = {block: label for block in range(len(forward.blocks))}
    patches |= {block: share_at(block) for block in forward.prefix}
    patches |= {block: weaken_at(block) for block in forward.task.rules}
    return forward.by_key(forward.measured(patches, list(partner.values())))


def recording(forward: Forward, chunks: list[Chunk]) -> dict[Key, Patch]:
    """Conditional rows whose detail rows come later: notes them in the trace, changes nothing."""

    def rows_of(block: int, streams: Args, name: str, chunk: Chunk) -> Tensor:
        dim = forward.blocks[block].stage.row_dim_of(name)
        # A clone: blocks, ControlNets and other packs may change these in place.
        return streams[name].narrow(dim, chunk.rows.start, chunk.size).clone()

    def record_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            for chunk in chunks:
                forward.observed(block, args, chunk)
                if block == forward.task.first:
                    streams = {name: rows_of(block, args, name, chunk) for name in stage.streams}
                    forward.trace.of(chunk).streams.update(streams)
            return inner(args)

        return patch

    def record_output_of(block: int) -> Patch:
        def patch(args: Args, inner: Inner) -> Args:
            out = inner(args)
            for chunk in chunks:
                image = rows_of(block, out, forward.blocks[block].stage.image, chunk)
                forward.trace.of(chunk).outputs[block] = image
            return out

        return patch

    patches = {block: record_output_of(block) for block in (forward.prefix if forward.long_skips else ())}
    patches |= {block: record_at(block) for block in forward.task.rules}
    return forward.by_key(forward.measured(patches, chunks))


def resuming(forward: Forward, handovers: dict[Chunk, Handover]) -> dict[Key, Patch]:
    """Detail rows only: blocks before the rules do nothing, the first rule's starts from what was handed over."""

    def restored(block: int, name: str, parts: list[Tensor], like: Tensor) -> Tensor:
        dim = forward.blocks[block].stage.row_dim_of(name)
        return torch.cat([part.to(like.device) for part in parts], dim)

    def pass_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            if forward.long_skips:
                outputs = [each.outputs[block] for each in handovers.values()]
                return {stage.image: restored(block, stage.image, outputs, args[stage.image])}
            if block == 0:  # hosts may keep the first block's input, and write into what it returns
                return {name: args[name].clone() for name in stage.streams}
            return {name: args[name] for name in stage.streams}

        return patch

    def weaken_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            if block == forward.task.first:
                states = {
                    name: restored(block, name, [each.streams[name] for each in handovers.values()], args[name])
                    for name in stage.streams
                }
                args = {**args, **states}
            device = args[stage.image].device
            found = {chunk: each.found[block].to(device) for chunk, each in handovers.items()}
            return inner(forward.weakened(block, args, found, ours=block == forward.task.first))

        return patch

    patches = {block: pass_at(block) for block in forward.prefix}
    return forward.by_key(patches | {block: weaken_at(block) for block in forward.task.rules})


def _unchanged(args: Args, inner: Inner) -> Args:
    return inner(args)


def _labelled(args: Args, labels: Labels) -> Args:
    if "transformer_options" not in args:  # some models do not tell their blocks
        return args
    return {**args, "transformer_options": {**args["transformer_options"], **labels}}
