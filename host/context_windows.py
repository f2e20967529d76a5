"""Context windows: the host cuts a long video, or a batch, into overlapping parts and blends their predictions."""

from collections.abc import Callable
from typing import Any

from comfy.context_windows import ContextHandlerABC
from torch import Tensor

from .step import Conds, Step


class DetailedWindows(ContextHandlerABC):
    """Another node's context windows, which blend the detail prediction as they blend the conditional one.

    Args:
        inner: the other node's.
        step: the guided step; gets its predictions here.
        model_options: what the windows are predicted with.
    """

    def __init__(self, inner: ContextHandlerABC, step: Step, model_options: dict[str, Any]):
        self.inner = inner
        self.step = step
        self.model_options = model_options

    def should_use_context(self, *args: Any, **kwargs: Any) -> bool:
        return self.inner.should_use_context(*args, **kwargs)

    def get_resized_cond(self, *args: Any, **kwargs: Any) -> list:
        return self.inner.get_resized_cond(*args, **kwargs)

    def execute(
        self, calc_cond_batch: Callable, model: Any, conds: list[Conds | None], x: Tensor, timestep: Tensor, _: Any
    ) -> list[Tensor]:
        step, index = self.step, self.step.positive(conds)
        if index is None or step.predictions is not None:  # another pack's own call
            return self.inner.execute(calc_cond_batch, model, conds, x, timestep, self.model_options)

        def calc_window(model: Any, conds: list, x: Tensor, timestep: Tensor, model_options: dict) -> list[Tensor]:
            part = Step(step.run, x.shape, step.sigma, step.keep)
            out = calc_cond_batch(model, conds[:-1], x, timestep, part.with_wrapper(model_options))
            step.fired |= part.fired
            step.reused |= part.reused
            assert part.predictions is not None  # the positive is among the conditions of every window
            return [*out, part.predictions[1]]

        # One more condition than asked for: a place where the detail prediction is blended.
        out = self.inner.execute(calc_window, model, [*conds, conds[index]], x, timestep, self.model_options)
        *out, disrupted = out
        step.predictions = out[index].clone(), disrupted
        return out
