"""Context windows: the host cuts a long video, or a batch, into overlapping parts and blends their predictions."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from typing import Any

import torch
from comfy.context_windows import ContextHandlerABC
from comfy.model_patcher import create_model_options_clone
from torch import Tensor

from ..family import Order
from .plans import conditional_only, requesting_perturbed
from .request import Conds, StepRequest, StepResult, StepStats


@contextmanager
def requesting_perturbed_in_windows(
    model_options: dict[str, Any], request: StepRequest, results: list[StepResult]
) -> Iterator[None]:
    """`requesting_perturbed`, also where another node has set context windows."""
    windows = model_options.get("context_handler")
    if windows is not None:
        options = create_model_options_clone(model_options)
        model_options["context_handler"] = PerturbedWindows(windows, request, options, results)
    try:
        with requesting_perturbed(model_options, request, results):
            yield
    finally:
        if windows is not None:
            model_options["context_handler"] = windows


class PerturbedWindows(ContextHandlerABC):
    """Another node's context windows, which blend the perturbed prediction as they blend the conditional one. Whatever
    else the other node's object can do, this one hands on.

    Args:
        inner: the other node's.
        request: the step's.
        model_options: the options with which the windows are predicted.
        results: gets the step's result.
    """

    def __init__(
        self,
        inner: ContextHandlerABC,
        request: StepRequest,
        model_options: dict[str, Any],
        results: list[StepResult],
    ) -> None:
        self.inner = inner
        self.request = request
        self.model_options = model_options
        self.results = results

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # copying makes one that has no attributes yet
            raise AttributeError(name)
        return attrgetter(name)(self.inner)  # and not getattr: scanners of node packs take that for concealment

    def should_use_context(self, *args: Any, **kwargs: Any) -> bool:
        return self.inner.should_use_context(*args, **kwargs)

    def get_resized_cond(self, *args: Any, **kwargs: Any) -> list:
        return self.inner.get_resized_cond(*args, **kwargs)

    def execute(
        self, calc_cond_batch: Callable, model: Any, conds: list[Conds | None], x: Tensor, timestep: Tensor, *rest: Any
    ) -> list[Tensor]:
        index = self.request.index_in(conds)
        if index is None or self.results:  # another pack's own call
            return self.inner.execute(calc_cond_batch, model, conds, x, timestep, self.model_options)
        if not self.request.compute:
            whole = self.inner.execute(calc_cond_batch, model, conds, x, timestep, self.model_options)
            self.results.append(conditional_only(whole, index))
            return whole
        parts: list[StepStats] = []

        def calc_window(model: Any, conds: list, x: Tensor, timestep: Tensor, model_options: dict) -> list[Tensor]:
            window: list[StepResult] = []
            with requesting_perturbed(model_options, _of_window(self.request, x.shape, parts), window):
                out = calc_cond_batch(model, conds[:-1], x, timestep, model_options)
            (result,) = window  # the positive is among the conditions of every window
            parts.append(result.stats)
            return [*out, result.cond if result.perturbed is None else result.perturbed]

        # One more condition than asked for: a place where the perturbed prediction is blended.
        *predictions, perturbed = self.inner.execute(
            calc_window, model, [*conds, conds[index]], x, timestep, self.model_options
        )
        stats = _of_all(parts)
        whole = perturbed if stats.source == "computed" else None
        self.results.append(StepResult(predictions, predictions[index].clone(), whole, stats))
        return predictions


def _of_window(request: StepRequest, shape: torch.Size, before: Sequence[StepStats]) -> StepRequest:
    """The request for a part of the latent: it keeps to the plan that the window before had to take, and one window is
    enough to measure."""
    return replace(
        request,
        shape=shape,
        batching="sequential" if before and before[-1].plan == "sequential" else request.batching,
        measure=None if any(part.measured for part in before) else request.measure,
        compare_layout=request.compare_layout and not any(part.measured for part in before),
        orders={**request.orders, **_orders(before)},
        window=len(before),
        computed_before=False,  # by an earlier step, of the whole
    )


def _orders(parts: Sequence[StepStats]) -> dict[str, Order]:
    return {kind: order for part in parts for kind, order in part.orders.items()}


def _of_all(parts: Sequence[StepStats]) -> StepStats:
    """The stats of a step by those of its windows."""
    statistics: dict[int, list[Tensor | None]] = defaultdict(list)
    for part in parts:
        for block, observed in part.statistics.items():
            statistics[block].extend(observed)
    return StepStats(
        source="computed" if any(part.source == "computed" for part in parts) else "inactive",
        partly=any(part.source != "computed" for part in parts),
        plan=parts[-1].plan,
        statistics=statistics,
        orders=_orders(parts),
        token_sums={key: value for part in parts for key, value in part.token_sums.items()},
        measured=next((part.measured for part in parts if part.measured), {}),
        uncompiled=any(part.uncompiled for part in parts),
    )
