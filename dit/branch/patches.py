"""The block patches of a step with a second prediction.

A forward's batch is made of chunks, one per condition, each with one row per picture. Perturbed chunks are copies of a
conditional chunk. Each forward is patched for what it holds:

    share_prefix         perturbed rows beside their conditional rows, whose outputs they take before the branch
    capture_prefix       conditional rows alone: their state at the branch, and what is observed of them, is kept
    resume_from_prefix   perturbed rows alone: they start from the captured state
    perturb_in_place     rows that the host computes in any case, perturbed
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..family import Block, Key, Order
from ..forward import Args, Batch, Chunk, ChunkKey, Inner, Patch, by_key, unchanged
from ..rows import concatenated, copied, copy_rows, on_device, repeat_chunks, take_rows
from ..token_layout import TokenLayout, checked
from .request import BlockPerturbation, ForwardRequest, PerturbedCall, Plan, StepStats

Labels = dict[str, list[Any]]  # what transformer_options says of the chunks


@dataclass(frozen=True)
class PrefixState:
    """What a chunk leaves for a later forward: for its perturbed rows, or to stand beside them.

    Attributes:
        statistics: block → what its perturbation observed; empty for other chunks.
        hidden_states: the chunk's hidden states at the branch, where its perturbed rows come later.
        outputs: block → what it returned, of blocks before the branch; only where later blocks are given it too.
    """

    statistics: dict[int, Tensor | None] = field(default_factory=dict)
    hidden_states: dict[str, Any] = field(default_factory=dict)
    outputs: dict[int, Any] = field(default_factory=dict)


@dataclass
class StepTrace:
    """What the forwards of one step leave behind. They may run in several threads: a trace is only ever added to, and
    what is not of the whole step has a key for each condition.

    Attributes:
        prefixes: by the chunk's key.
        perturbed: whether any perturbed chunk was perturbed.
        measured: block → the request's measure, of the first conditional chunk that came by.
        orders: kind of block → order that the streams show in place of the table's.
        token_sums: sums of the first block's tokens, by condition and window; None once two steps were compared.
        uncompiled: whether torch.compile around the whole model was set aside.
    """

    prefixes: dict[ChunkKey, PrefixState] = field(default_factory=dict)
    perturbed: bool = False
    measured: dict[int, Tensor] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    token_sums: dict[ChunkKey, Tensor | None] = field(default_factory=dict)
    uncompiled: bool = False

    def of(self, chunk: Chunk) -> PrefixState:
        """The prefix state of a chunk, to be added to."""
        return self.prefixes.setdefault(chunk.key, PrefixState())

    def stats(self, plan: Plan) -> StepStats:
        """The stats of a step that left this behind."""
        statistics: dict[int, list[Tensor | None]] = defaultdict(list)
        for prefix in self.prefixes.values():
            for block, observed in prefix.statistics.items():
                statistics[block].append(observed)
        return StepStats(
            source="computed" if self.perturbed else "cache",
            plan=plan,
            statistics=statistics,
            measured=self.measured,
            orders=self.orders,
            token_sums=self.token_sums,
            uncompiled=self.uncompiled,
        )


@dataclass(frozen=True)
class StepForward:
    """One forward of a step.

    Attributes:
        batch: what the forward was given.
        layout: where the forward has its image tokens.
    """

    request: ForwardRequest
    batch: Batch
    layout: TokenLayout
    trace: StepTrace

    @property
    def blocks(self) -> Sequence[Block]:
        """All blocks of the model."""
        return self.request.anatomy.blocks

    @property
    def prefix(self) -> range:
        """The blocks that perturbed rows have in common with their conditional rows."""
        return range(self.request.first)

    @property
    def long_skips(self) -> bool:
        """Whether later blocks also receive what earlier ones returned."""
        return self.request.anatomy.family.long_skips

    def image_tokens(self, block: int, args: Args, chunk: Chunk) -> Tensor:
        """A view of a chunk's image tokens at a block's input."""
        return self.layout.image_tokens(self.blocks[block].stage, args, chunk.rows)

    def observe(self, block: int, args: Args, chunk: Chunk) -> Tensor | None:
        """The statistics of a chunk at a block's input, which perturbing it there will need; also noted in the
        trace."""
        perturbation = self.request.perturbations[block]
        if isinstance(perturbation, BlockPerturbation):
            statistics = None
        else:
            statistics = perturbation.observe(self.image_tokens(block, args, chunk))
        self.trace.of(chunk).statistics[block] = statistics
        return statistics

    def run_perturbed(
        self, block: int, args: Args, inner: Inner, statistics: Mapping[Chunk, Tensor | None], ours: bool
    ) -> Args:
        """What a block returns for all rows, those of some chunks perturbed.

        Args:
            statistics: perturbed chunk → what was observed for it.
            ours: whether the image stream may be written to, because nobody else holds on to it.
        """
        perturbation, keep = self.request.perturbations[block], self.request.keep
        self.trace.perturbed |= bool(statistics)
        if isinstance(perturbation, BlockPerturbation):
            call = PerturbedCall(self.request.anatomy, block, args, inner, list(statistics), self.layout, self.batch)
            return perturbation.run(call, keep)
        name = self.blocks[block].stage.image
        if not ours:
            args = {**args, name: copied(args[name])}
        for chunk, observed in statistics.items():
            perturbation.apply(self.image_tokens(block, args, chunk), observed, keep)
        return inner(args)

    def by_key(self, patches: dict[int, Patch], conditional: Sequence[Chunk] = ()) -> dict[Key, Patch]:
        """The patches under the host's keys, inside the checks of the layout.

        Args:
            conditional: chunks that are measured and compared with the table, where the request wants it.
        """
        rows = conditional[0].rows if conditional and self.request.compare_layout else None
        patches = self._measuring(patches, conditional)
        if rows is not None or any(block.stage.order != "image only" for block in self.blocks):
            rows_of = None if rows is None else lambda args, stage: rows
            patches = checked(patches, self.blocks, self.layout, rows_of)
        return by_key(patches, self.blocks)

    def _measuring(self, patches: dict[int, Patch], conditional: Sequence[Chunk]) -> dict[int, Patch]:
        """The patches, and around them what the request wants to know of the conditional chunks."""
        request, trace = self.request, self.trace
        measured = conditional[0] if conditional and request.measure is not None else None

        def measuring(number: int, patch: Patch) -> Patch:
            def run(args: Args, inner: Inner) -> Args:
                trace.orders.update(self.layout.orders)
                if number == 0:
                    for chunk in conditional:
                        self._compare_steps(args, chunk)
                if measured is not None and request.measure is not None and number not in trace.measured:
                    trace.measured[number] = request.measure(self.image_tokens(number, args, measured))
                return patch(args, inner)

            return run

        where = range(len(self.blocks)) if measured is not None else [n for n, b in enumerate(self.blocks) if b.first]
        return patches | {number: measuring(number, patches.get(number, unchanged)) for number in where}

    def _compare_steps(self, args: Args, chunk: Chunk) -> None:
        """Compare the first block's tokens with those of an earlier step."""
        key, block = (chunk.uuid, self.request.window), self.blocks[0]
        earlier = self.request.token_sums.get(key)
        if key in self.request.token_sums and earlier is None:
            return  # compared before
        now = self.layout.token_sums(block, args, chunk.rows)
        if now is None:
            return
        if earlier is not None and earlier.shape == now.shape:
            self.layout.check_changes(block, now, earlier)
            now = None
        self.trace.token_sums[key] = now


def share_prefix(forward: StepForward, chunks: list[Chunk], partner: dict[Chunk, Chunk]) -> dict[Key, Patch]:
    """Patches for perturbed rows beside their conditional rows.

    Args:
        partner: perturbed chunk → its conditional one.
    """
    computed = [chunk for chunk in chunks if chunk not in partner]
    computed_rows, total = [chunk.rows for chunk in computed], sum(chunk.size for chunk in chunks)
    sources = [computed.index(partner.get(chunk, chunk)) for chunk in chunks]
    # Perturbed rows are conditional rows to other packs' block and attention patches.
    labels: Labels = {"cond_or_uncond": [partner.get(chunk, chunk).index for chunk in chunks]}
    computed_labels: Labels = {
        "cond_or_uncond": [chunk.index for chunk in computed],
        "uuids": [chunk.uuid for chunk in computed],
    }

    def share_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def share(args: Args, inner: Inner) -> Args:
            rows = {
                name: take_rows(
                    args[name],
                    computed_rows,
                    total,
                    stage.row_dim_of(name),
                    packed=name in stage.packed,
                    groups=name in stage.grouped,
                )
                for name in stage.row_arguments
                if name in args
            }
            out = inner(_labelled({**args, **rows}, computed_labels))
            for_all = {
                name: repeat_chunks(out[name], len(computed), sources, stage.row_dim_of(name))
                for name in stage.hidden_states
            }
            return {**out, **for_all}

        return share

    def perturb_at(block: int) -> Patch:
        # The stream that the last shared block returned was made here, and nobody keeps it but models with long skips.
        ours = block - 1 in forward.prefix and not forward.long_skips

        def patch(args: Args, inner: Inner) -> Args:
            statistics = {
                perturbed: forward.observe(block, args, conditional) for perturbed, conditional in partner.items()
            }
            return forward.run_perturbed(block, _labelled(args, labels), inner, statistics, ours)

        return patch

    def label(args: Args, inner: Inner) -> Args:
        return inner(_labelled(args, labels))

    patches: dict[int, Patch] = {block: label for block in range(len(forward.blocks))}
    patches |= {block: share_at(block) for block in forward.prefix}
    patches |= {block: perturb_at(block) for block in forward.request.perturbations}
    return forward.by_key(patches, list(partner.values()))


def capture_prefix(forward: StepForward, conditional: list[Chunk], others: list[Chunk]) -> dict[Key, Patch]:
    """Patches that note in the trace what conditional rows, and others, leave for a later forward; they change
    nothing."""
    chunks = [*conditional, *others]

    def kept(block: int, values: Args, name: str, chunk: Chunk) -> Any:
        return copy_rows(values[name], chunk.rows, forward.blocks[block].stage.row_dim_of(name))

    def capture_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            for chunk in conditional:
                forward.observe(block, args, chunk)
            if block == forward.request.first:
                for chunk in chunks:
                    states = {name: kept(block, args, name, chunk) for name in stage.hidden_states}
                    forward.trace.of(chunk).hidden_states.update(states)
            return inner(args)

        return patch

    def capture_output_of(block: int) -> Patch:
        def patch(args: Args, inner: Inner) -> Args:
            out = inner(args)
            for chunk in chunks:
                image = kept(block, out, forward.blocks[block].stage.image, chunk)
                forward.trace.of(chunk).outputs[block] = image
            return out

        return patch

    patches = {block: capture_output_of(block) for block in (forward.prefix if forward.long_skips else ())}
    patches |= {block: capture_at(block) for block in forward.request.perturbations}
    return forward.by_key(patches, conditional)


def resume_from_prefix(forward: StepForward, prefixes: dict[Chunk, PrefixState]) -> dict[Key, Patch]:
    """Patches for rows whose prefix was captured: blocks before the branch do nothing, the branch's first block starts
    from the captured state, and the perturbed rows among them are perturbed."""

    def restored(block: int, name: str, parts: list[Any], device: torch.device) -> Any:
        return concatenated(parts, forward.blocks[block].stage.row_dim_of(name), device)

    def state(block: int, args: Args, device: torch.device) -> Args:
        stage = forward.blocks[block].stage
        captured = [each.hidden_states for each in prefixes.values()]
        states = {
            name: restored(block, name, [each[name] for each in captured], device) for name in stage.hidden_states
        }
        image = states[stage.image]
        if forward.request.anatomy.family.behind and image.shape[1] > args[stage.image].shape[1]:
            # A node that keeps the keys and values of references has dropped their tokens in the meantime.
            states[stage.image] = image[:, : args[stage.image].shape[1]]
        return states

    def pass_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            if forward.long_skips:
                outputs = [each.outputs[block] for each in prefixes.values()]
                return {stage.image: restored(block, stage.image, outputs, args[stage.image].device)}
            if block == 0:  # hosts may keep the first block's input, and write into what it returns
                return {name: copied(args[name]) for name in stage.hidden_states}
            return {name: args[name] for name in stage.hidden_states}

        return patch

    def perturb_at(block: int) -> Patch:
        stage = forward.blocks[block].stage

        def patch(args: Args, inner: Inner) -> Args:
            device = stage.image_stream(args, slice(1)).device
            if block == forward.request.first:
                args = {**args, **state(block, args, device)}
            statistics = {
                chunk: on_device(each.statistics[block], device)
                for chunk, each in prefixes.items()
                if block in each.statistics
            }
            ours = block == forward.request.first
            return forward.run_perturbed(block, args, inner, statistics, ours)

        return patch

    patches = {block: pass_at(block) for block in forward.prefix}
    return forward.by_key(patches | {block: perturb_at(block) for block in forward.request.perturbations})


def perturb_in_place(forward: StepForward, perturbed: list[Chunk], others: list[Chunk]) -> dict[Key, Patch]:
    """Patches for rows that the host computes in any case: what is observed of them at a block is of these rows, and
    comes from perturbed ones at the second and later blocks of several.

    Args:
        others: the forward's other chunks, of which one is measured.
    """

    def perturb_at(block: int) -> Patch:
        def patch(args: Args, inner: Inner) -> Args:
            statistics = {chunk: forward.observe(block, args, chunk) for chunk in perturbed}
            return forward.run_perturbed(block, args, inner, statistics, ours=False)

        return patch

    patches = {block: perturb_at(block) for block in forward.request.perturbations}
    return forward.by_key(patches, others or perturbed)


def _labelled(args: Args, labels: Labels) -> Args:
    if "transformer_options" not in args:  # some models do not tell their blocks
        return args
    return {**args, "transformer_options": {**args["transformer_options"], **labels}}
