"""What one guided step is asked for, and what it answers. Both are values: they know nothing of each other, of the run
or of the step that stands between them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

import torch
from torch import Tensor

from ...methods.detail_guidance.reuse import Kept
from ...methods.detail_guidance.settings import Batching
from ...methods.massive_activations.perturbation import Rule
from ..families import Anatomy
from ..token_layout import Order

Conds = list[dict[str, Any]]
Plan = Literal["together", "in turn"]
Source = Literal["computed", "reused", "cached", "nothing"]


@dataclass(frozen=True)
class Call:
    """What the host asks to predict: its `calc_cond_batch` and the arguments of it.

    Attributes:
        index: of the positive condition in `conds`.
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
        return self.conds[self.index] or []

    def predict(self, conds: list[Conds | None], model_options: dict[str, Any]) -> list[Tensor]:
        return self.calc_cond_batch(self.model, conds, self.x, self.timestep, model_options)


@dataclass(frozen=True)
class Task:
    """One guided step.

    Attributes:
        anatomy: of the model.
        rules: block → what weakens the detail prediction at its input; successive blocks.
        keep: ρ of this step.
        shape: of what is predicted, (pictures, …).
        positive: the ids of the guider's positive conditions.
        batching: which plan is wanted.
        always_computed: whether the run computes D_m in all of its steps.
        measure: whether it is wanted how far massive activations stand out at each block, and whether the streams are
            what the table says.
        orders: of kinds of blocks, where an earlier step has shown another one than the table's.
        window: number of the part of the latent that this is, where the host cuts it.
        fingerprints: of an earlier step's tokens (see layout.py), by the condition and its window; None where two steps
            were compared.
        answer_scale: b of this step (detail_guidance/reuse.py).
        kept: of the last step that computed D_m; None before it.
        reuse: the same, where it is to take the place of this step's own D − D_m; else None.
    """

    anatomy: Anatomy
    rules: Mapping[int, Rule]
    keep: float
    shape: torch.Size
    positive: Sequence[UUID]
    batching: Batching
    always_computed: bool
    measure: bool
    orders: Mapping[str, Order]
    window: int
    fingerprints: Mapping[tuple[UUID, int], Tensor | None]
    answer_scale: float
    kept: Kept | None
    reuse: Kept | None

    @property
    def first(self) -> int:
        """The block from which on the two predictions differ."""
        return min(self.rules)

    def index_in(self, conds: list[Conds | None]) -> int | None:
        return index_of(self.positive, conds)


def index_of(positive: Sequence[UUID], conds: list[Conds | None]) -> int | None:
    """Which of the host's conditions is the positive one, whatever place the guider gives it."""
    for index, group in enumerate(conds):
        if positive and [cond.get("uuid") for cond in group or ()] == list(positive):
            return index
    return None


@dataclass(frozen=True)
class Account:
    """What is told of a step.

    Attributes:
        source: where D − D_m is from: a weakened prediction of this step; an earlier step, because the task says so, or
            because another node's cache answered in the model's place; or nowhere.
        plan: None where there was nothing to compute.
        partly: whether parts of the latent have no D_m, because a cache answered for them.
        channels: per block of the task's rules, the channels that were weakened in each condition: bool (channels,);
            empty where the rule is not about channels.
        peak_ratios: per block of the model, the largest channel's magnitude over the median channel's, (); empty where
            it was not wanted.
        orders, fingerprints: what the task's are, of this step.
        uncompiled: whether torch.compile around the whole model was set aside.
    """

    source: Source
    plan: Plan | None = None
    partly: bool = False
    channels: Mapping[int, Sequence[Tensor]] = field(default_factory=dict)
    peak_ratios: Mapping[int, Tensor] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)
    fingerprints: Mapping[tuple[UUID, int], Tensor | None] = field(default_factory=dict)
    uncompiled: bool = False


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        predictions: what the host asked for.
        cond, disrupted: D and D_m.
    """

    predictions: list[Tensor]
    cond: Tensor
    disrupted: Tensor
    account: Account
