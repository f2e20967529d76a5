"""What a step with a perturbed prediction is asked for, and what it answers.

A branch is a second conditional prediction that departs from the first one at a block: blocks before it are computed
once, and from it on a copy of the positive's rows runs through the model in a perturbed form. Request and result are
values: they know nothing of each other, of the method that asks or of the plan that stands between them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

import torch
from torch import Tensor

from ..anatomy import Anatomy
from ..family import Order, Stage
from ..forward import Args, Batch, Chunk, Inner
from ..rows import copied
from ..token_layout import TokenLayout

Conds = list[dict[str, Any]]  # one group of the host's conditions: the positive's, say
Plan = Literal["batched", "sequential", "in place"]
Batching = Literal["auto", "batched", "sequential"]
TokenSums = Mapping[tuple[UUID, int], Tensor | None]

# Where a step's perturbed prediction is from: computed in this step; not wanted; another node's cache has answered in
# the model's place; or the positive is not active in this step.
Source = Literal["computed", "not requested", "cache", "inactive"]


class Perturbation(Protocol):
    """One way to perturb a prediction at one block of the model, by its image tokens at the block's input."""

    def observe(self, hidden_states: Tensor) -> Tensor | None:
        """The statistics that `apply` needs of a condition's image tokens, taken where nothing has been perturbed.

        Args:
            hidden_states: image tokens at a block's input, (rows, tokens, channels); (rows, frames, rows of tokens,
                columns, channels) on families whose blocks keep that grid.

        Returns:
            A tensor on the same device, computed without waiting for the device; None where there is nothing to know.
        """

    def apply(self, hidden_states: Tensor, statistics: Any, keep: float) -> None:
        """Perturb image tokens in place.

        Args:
            hidden_states: the perturbed rows' image tokens, shaped as in `observe`, a view that may be written to. At
                the second and later blocks of several they already come from perturbed ones.
            statistics: the result of `observe` for the condition that these rows are copies of.
            keep: ρ, 0 to 1: how much is kept of what the perturbation takes away; 0 is the whole perturbation.
        """


@dataclass(frozen=True)
class PerturbedCall:
    """One call of a block of whose rows some are perturbed.

    Attributes:
        anatomy: the model's anatomy.
        number: the block's number.
        args: the block's arguments, for all rows.
        inner: the rest of the chain at this block: other nodes' patches and the block itself.
        chunks: the perturbed chunks.
        layout: where the forward has its image tokens.
        batch: what the forward was given.
    """

    anatomy: Anatomy
    number: int
    args: Args
    inner: Inner
    chunks: Sequence[Chunk]
    layout: TokenLayout
    batch: Batch

    @property
    def stage(self) -> Stage:
        """The block's stage."""
        return self.anatomy.blocks[self.number].stage

    def with_image_tokens(self, changed: Callable[[Tensor], Tensor]) -> Args:
        """The block's arguments with other image tokens for the perturbed chunks.

        Args:
            changed: is given a chunk's image tokens, shaped as in `Perturbation.observe`, and returns as many.
        """
        name = self.stage.image
        args = {**self.args, name: copied(self.args[name])}  # others may hold on to theirs
        for chunk in self.chunks:
            tokens = self.layout.image_tokens(self.stage, args, chunk.rows)
            tokens.copy_(changed(tokens))
        return args

    def token_grid(self, tokens: int) -> tuple[int, ...]:
        """Frames (of a video), rows and columns of so many image tokens."""
        return self.anatomy.token_grid(tokens, self.batch.latent)


@runtime_checkable
class BlockPerturbation(Protocol):
    """One way to perturb a prediction at one block of the model, by what the block does."""

    def run(self, call: PerturbedCall, keep: float) -> Args:
        """Run the block for all rows, and perturb the perturbed chunks' result.

        Args:
            keep: ρ, 0 to 1, as of `Perturbation.apply`.

        Returns:
            What the block returns, by name; rows of other chunks as `call.inner` returns them.
        """


@dataclass(frozen=True)
class CondBatchCall:
    """One call of the host's `calc_cond_batch`, with its arguments.

    Attributes:
        index: place of the positive conditions in `conds`.
    """

    calc_cond_batch: Callable[..., list[Tensor]]
    model: Any
    conds: list[Conds | None]
    x: Tensor
    timestep: Tensor
    model_options: dict[str, Any]
    index: int

    @property
    def positive(self) -> Conds:
        """The positive conditions."""
        return self.conds[self.index] or []

    def predict(self, conds: list[Conds | None], model_options: dict[str, Any]) -> list[Tensor]:
        """The host's predictions for other conditions or options than the call's own."""
        return self.calc_cond_batch(self.model, conds, self.x, self.timestep, model_options)


@dataclass(frozen=True)
class ForwardRequest:
    """What the forwards of one step are asked to perturb, and to measure.

    Attributes:
        anatomy: the model's anatomy.
        perturbations: block → what perturbs rows there.
        keep: ρ of this step, 0 to 1.
        measure: applied to the image tokens at every block's input, of one condition; None measures nothing.
        compare_layout: whether the order of the streams is compared with the table, which waits for the device.
        orders: kind of block → order that an earlier step has shown in place of the table's.
        window: number of the part of the latent that this is, where the host cuts the latent.
        token_sums: token sums of an earlier step, by condition and window (token_layout.py); None where two steps were
            compared.
        computed_before: whether an earlier step of this run had a perturbed prediction.
    """

    anatomy: Anatomy
    perturbations: Mapping[int, Perturbation | BlockPerturbation]
    _: KW_ONLY
    keep: float
    measure: Callable[[Tensor], Tensor] | None = None
    compare_layout: bool = True
    orders: Mapping[str, Order] = field(default_factory=dict)
    window: int = 0
    token_sums: TokenSums = field(default_factory=dict)
    computed_before: bool = False

    @property
    def first(self) -> int:
        """The block from which on perturbed rows differ from others."""
        return min(self.perturbations)


@dataclass(frozen=True, kw_only=True)
class StepRequest(ForwardRequest):
    """What one step with a second prediction is asked for.

    Attributes:
        shape: shape of the prediction, (pictures, …).
        positive: ids of the guider's positive conditions.
        compute: whether the perturbed prediction is wanted; False notes the positive's prediction only.
        batching: the plan that is wanted.
        every_step: whether the run computes the perturbed prediction in all of its steps.
    """

    shape: torch.Size
    positive: Sequence[UUID]
    compute: bool = True
    batching: Batching = "auto"
    every_step: bool = True

    def index_in(self, conds: list[Conds | None]) -> int | None:
        """Place of the positive conditions in the host's list; None where they are not in it."""
        return index_of(self.positive, conds)


def index_of(positive: Sequence[UUID], conds: list[Conds | None]) -> int | None:
    """Which group of the host's conditions has these ids, whatever place a guider gives it; None where none has."""
    for index, group in enumerate(conds):
        if positive and [cond.get("uuid") for cond in group or ()] == list(positive):
            return index
    return None


@dataclass(frozen=True)
class StepStats:
    """What happened in a step.

    Attributes:
        source: where the perturbed prediction is from.
        plan: None where nothing had to be computed.
        partly: whether parts of the latent have no perturbed prediction, because a cache answered for them.
        statistics: block → what its perturbation observed, one for each condition.
        measured: block → the request's `measure` of it; empty where the request has none.
        orders, token_sums: this step's, as in the request.
        uncompiled: whether torch.compile around the whole model was set aside.
    """

    source: Source
    plan: Plan | None = None
    partly: bool = False
    statistics: Mapping[int, Sequence[Tensor | None]] = field(default_factory=dict)
    measured: Mapping[int, Tensor] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)
    token_sums: TokenSums = field(default_factory=dict)
    uncompiled: bool = False


@dataclass(frozen=True)
class StepResult:
    """What a step answers.

    Attributes:
        predictions: the predictions that the host asked for.
        cond: D, the positive's prediction.
        perturbed: D_m, the perturbed prediction; None where none was computed.
    """

    predictions: list[Tensor]
    cond: Tensor
    perturbed: Tensor | None
    stats: StepStats
