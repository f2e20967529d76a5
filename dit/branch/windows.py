"""Context windows: the host cuts a long video, or a batch, into overlapping parts and blends their predictions."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from comfy.context_windows import ContextHandlerABC
from torch import Tensor

from ..token_layout import Order
from .plans import asking, reusing
from .request import Account, Conds, Outcome, Task


class DetailedWindows(ContextHandlerABC):
    """Another node's context windows, which blend the detail prediction as they blend the conditional one.

    Args:
        inner: the other node's.
        task: the guided step.
        model_options: what the windows are predicted with.
        outcomes: gets the step's outcome.
    """

    def __init__(
        self, inner: ContextHandlerABC, task: Task, model_options: dict[str, Any], outcomes: list[Outcome]
    ) -> None:
        self.inner = inner
        self.task = task
        self.model_options = model_options
        self.outcomes = outcomes

    def should_use_context(self, *args: Any, **kwargs: Any) -> bool:
        return self.inner.should_use_context(*args, **kwargs)

    def get_resized_cond(self, *args: Any, **kwargs: Any) -> list:
        return self.inner.get_resized_cond(*args, **kwargs)

    def execute(
        self, calc_cond_batch: Callable, model: Any, conds: list[Conds | None], x: Tensor, timestep: Tensor, *rest: Any
    ) -> list[Tensor]:
        index = self.task.index_in(conds)
        if index is None or self.outcomes:  # another pack's own call
            return self.inner.execute(calc_cond_batch, model, conds, x, timestep, self.model_options)
        if self.task.reuse is not None:
            whole = self.inner.execute(calc_cond_batch, model, conds, x, timestep, self.model_options)
            self.outcomes.append(reusing(self.task.reuse, self.task.answer_scale, whole, index))
            return whole
        parts: list[Account] = []

        def calc_window(model: Any, conds: list, x: Tensor, timestep: Tensor, model_options: dict) -> list[Tensor]:
            window: list[Outcome] = []
            with asking(model_options, _of_window(self.task, x.shape, parts), window):
                out = calc_cond_batch(model, conds[:-1], x, timestep, model_options)
            (outcome,) = window  # the positive is among the conditions of every window
            parts.append(outcome.account)
            return [*out, outcome.disrupted]

        # One more condition than asked for: a place where the detail prediction is blended.
        *predictions, disrupted = self.inner.execute(
            calc_window, model, [*conds, conds[index]], x, timestep, self.model_options
        )
        self.outcomes.append(Outcome(predictions, predictions[index].clone(), disrupted, _of_all(parts)))
        return predictions


def _of_window(task: Task, shape: torch.Size, before: Sequence[Account]) -> Task:
    """A part of the step. It keeps to the plan that the window before had to take; one window is enough to see where
    massive activations are; what an earlier step computed is of the whole."""
    return replace(
        task,
        shape=shape,
        batching="in turn" if before and before[-1].plan == "in turn" else task.batching,
        measure=task.measure and not any(part.peak_ratios for part in before),
        orders={**task.orders, **_orders(before)},
        window=len(before),
        kept=None,
    )


def _orders(parts: Sequence[Account]) -> dict[str, Order]:
    return {kind: order for part in parts for kind, order in part.orders.items()}


def _of_all(parts: Sequence[Account]) -> Account:
    channels: dict[int, list[Tensor]] = defaultdict(list)
    for part in parts:
        for block, found in part.channels.items():
            channels[block].extend(found)
    return Account(
        source="computed" if any(part.source == "computed" for part in parts) else "nothing",
        partly=any(part.source != "computed" for part in parts),
        plan=parts[-1].plan,
        channels=channels,
        orders=_orders(parts),
        fingerprints={key: value for part in parts for key, value in part.fingerprints.items()},
        peak_ratios=next((part.peak_ratios for part in parts if part.peak_ratios), {}),
        uncompiled=any(part.uncompiled for part in parts),
    )
