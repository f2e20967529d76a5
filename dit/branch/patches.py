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

import torch
from torch import Tensor

from ...methods.massive_activations.channels import peak_ratio
from ..forward import Args, Chunk, ChunkKey, Inner, Patch, by_key, unchanged
from ..rows import copied, rows_of, spread, take, together
from ..token_layout import Block, Key, Order, Reading
from .request import Task

Labels = dict[str, list[Any]]  # what transformer_options says of the chunks


@dataclass(frozen=True)
class Handover:
    """What a chunk leaves: a conditional one for its detail rows, another one where it is to stand beside them again.

    Attributes:
        found: what the rules observed, per block; nothing in others.
        streams: its streams at the first rule's block, where its detail rows come later.
        outputs: what blocks before that returned, per block; only where later blocks are given it too.
    """

    found: dict[int, Tensor] = field(default_factory=dict)
    streams: dict[str, Any] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)


@dataclass
class Trace:
    """What the forwards of one step leave behind, which may run in several threads: it is only ever added to, and what
    is not of the whole step has a key for each condition.

    Attributes:
        handovers: by the chunk's key.
        weakened: whether any detail chunk was.
        peak_ratios: per block, of the first conditional chunk that came by, where the task wants them.
        orders: of kinds of blocks, where the streams show another one than the table's.
        fingerprints: of the first block's tokens (see layout.py), by the condition and its window; None once two were
            compared.
        compiled: whether torch.compile around the whole model was set aside.
    """

    handovers: dict[ChunkKey, Handover] = field(default_factory=dict)
    weakened: bool = False
    peak_ratios: dict[int, Tensor] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    fingerprints: dict[ChunkKey, Tensor | None] = field(default_factory=dict)
    compiled: bool = False

    def of(self, chunk: Chunk) -> Handover:
        """What a chunk leaves."""
        return self.handovers.setdefault(chunk.key, Handover())


@dataclass(frozen=True)
class Forward:
    """One forward of a step.

    Attributes:
        reading: where it has its picture.
    """

    task: Task
    reading: Reading
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
        return self.reading.picture(self.blocks[block].stage, args, chunk.rows)

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
            args = {**args, name: copied(args[name])}
        for detail, seen in found.items():
            picture = self.picture(block, args, detail)
            picture.copy_(self.task.rules[block].weaken(picture, seen, self.task.keep))
            self.trace.weakened = True
        return args

    def by_key(self, patches: dict[int, Patch], conditional: Sequence[Chunk] = ()) -> dict[Key, Patch]:
        """Under the host's keys.

        Args:
            conditional: chunks that are measured and compared with the table, where the task wants it.
        """
        return by_key(self._watched(patches, conditional), self.blocks)

    def _watched(self, patches: dict[int, Patch], conditional: Sequence[Chunk]) -> dict[int, Patch]:
        """The patches, and around them what is to be seen of the streams."""
        measured = next(iter(conditional), None) if self.task.measure else None

        def watching(number: int, patch: Patch) -> Patch:
            block = self.blocks[number]

            def run(args: Args, inner: Inner) -> Args:
                if block.first:
                    self._enter(number, args, conditional)
                if measured is None:
                    return patch(args, inner)
                if number not in self.trace.peak_ratios:
                    self.trace.peak_ratios[number] = peak_ratio(self.picture(number, args, measured))
                out = patch(args, inner)
                if block.last:
                    self.reading.leave(block, out, measured.rows)
                return out

            return run

        every = measured is not None
        alone = all(block.stage.order == "picture" for block in self.blocks)  # nothing to tell apart
        seen = [n for n, block in enumerate(self.blocks) if every or (block.first and not alone)]
        return patches | {number: watching(number, patches.get(number, unchanged)) for number in seen}

    def _enter(self, number: int, args: Args, conditional: Sequence[Chunk]) -> None:
        """At the first block of a stage: the streams against the table."""
        block, task, trace = self.blocks[number], self.task, self.trace
        self.reading.count(block, args)
        if number > 0 and task.measure and conditional:
            self.reading.follow(block, args, conditional[0].rows)
            trace.orders.update(self.reading.orders)
        for chunk in conditional if number == 0 else ():
            key = (chunk.uuid, task.window)
            earlier = task.fingerprints.get(key)
            if key in task.fingerprints and earlier is None:
                continue  # compared before
            now = self.reading.fingerprint(block, args, chunk.rows)
            if now is None:
                continue
            if earlier is not None and earlier.shape == now.shape:
                self.reading.compare(block, now, earlier)
                trace.fingerprints[key] = None
            else:
                trace.fingerprints[key] = now


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
                name: take(
                    args[name],
                    computed_rows,
                    total,
                    stage.row_dim_of(name),
                    packed=name in stage.packed,
                    groups=name in stage.grouped,
                )
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
    return forward.by_key(patches, list(partner.values()))


def recording(forward: Forward, conditional: list[Chunk], others: list[Chunk]) -> dict[Key, Patch]:
    """Conditional rows whose detail rows come later, and others: notes them in the trace, changes nothing."""
    chunks = [*conditional, *others]

    def kept(block: int, streams: Args, name: str, chunk: Chunk) -> Any:
        return rows_of(streams[name], chunk.rows, forward.blocks[block].stage.row_dim_of(name))

    def record_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            for chunk in conditional:
                forward.observed(block, args, chunk)
            if block == forward.task.first:
                for chunk in chunks:
                    streams = {name: kept(block, args, name, chunk) for name in stage.streams}
                    forward.trace.of(chunk).streams.update(streams)
            return inner(args)

        return patch

    def record_output_of(block: int) -> Patch:
        def patch(args: Args, inner: Inner) -> Args:
            out = inner(args)
            for chunk in chunks:
                image = kept(block, out, forward.blocks[block].stage.image, chunk)
                forward.trace.of(chunk).outputs[block] = image
            return out

        return patch

    patches = {block: record_output_of(block) for block in (forward.prefix if forward.long_skips else ())}
    patches |= {block: record_at(block) for block in forward.task.rules}
    return forward.by_key(patches, conditional)


def resuming(forward: Forward, handovers: dict[Chunk, Handover]) -> dict[Key, Patch]:
    """Rows that were recorded: blocks before the rules do nothing, the first rule's starts from what was handed over,
    and the detail rows among them are weakened."""

    def restored(block: int, name: str, parts: list[Any], device: torch.device) -> Any:
        return together(parts, forward.blocks[block].stage.row_dim_of(name), device)

    def state(block: int, args: Args, device: torch.device) -> Args:
        stage = forward.blocks[block].stage
        streams = [each.streams for each in handovers.values()]
        states = {name: restored(block, name, [each[name] for each in streams], device) for name in stage.streams}
        image = states[stage.image]
        if forward.task.anatomy.family.behind and image.shape[1] > args[stage.image].shape[1]:
            # A node that keeps the keys and values of references has dropped their tokens in the meantime.
            states[stage.image] = image[:, : args[stage.image].shape[1]]
        return states

    def pass_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            if forward.long_skips:
                outputs = [each.outputs[block] for each in handovers.values()]
                return {stage.image: restored(block, stage.image, outputs, args[stage.image].device)}
            if block == 0:  # hosts may keep the first block's input, and write into what it returns
                return {name: copied(args[name]) for name in stage.streams}
            return {name: args[name] for name in stage.streams}

        return patch

    def weaken_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            device = stage.image_of(args, slice(1)).device
            if block == forward.task.first:
                args = {**args, **state(block, args, device)}
            found = {chunk: each.found[block].to(device) for chunk, each in handovers.items() if block in each.found}
            return inner(forward.weakened(block, args, found, ours=block == forward.task.first))

        return patch

    patches = {block: pass_at(block) for block in forward.prefix}
    return forward.by_key(patches | {block: weaken_at(block) for block in forward.task.rules})


def _labelled(args: Args, labels: Labels) -> Args:
    if "transformer_options" not in args:  # some models do not tell their blocks
        return args
    return {**args, "transformer_options": {**args["transformer_options"], **labels}}
