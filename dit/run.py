"""Doing something in every sampling run of a model: the one wrapper around a run."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key, copy_nested_dicts, get_wrappers_with_key
from comfy.samplers import CFGGuider
from torch import Tensor

from . import block_hooks
from .anatomy import anatomy_of

Wrappers = Mapping[str, Callable[..., Any]]  # the host's WrappersMP kind → wrapper
Start = Callable[[CFGGuider], AbstractContextManager[Wrappers]]


def on_run(model: ModelPatcher, key: str, start: Start) -> ModelPatcher:
    """A clone of the model that calls `start` at the beginning of each of its sampling runs.

    State of a run lives in the variables of `start`, so that two runs share nothing.

    Args:
        start: is given the guider and returns a context manager. It yields the wrappers of this run, by the host's
            kinds, which the host drops after the run; its exit is the end of the run.
        key: name of the wrappers; a second call with the same key takes the first one's place.

    Raises:
        ValueError: no row of the family table fits the model.
    """
    clone = without_run(model, key)
    block_hooks.install(clone, anatomy_of(model).family)

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider: CFGGuider = executor.class_obj
        with start(guider) as wrappers:
            _add({**wrappers, WrappersMP.PREDICT_NOISE: _with_options(wrappers, key)}, key, guider.model_options)
            return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, key, outer_sample)
    return clone


def _add(wrappers: Wrappers, key: str, model_options: dict[str, Any]) -> None:
    for kind, wrapper in wrappers.items():
        add_wrapper_with_key(kind, key, wrapper, model_options, is_model_options=True)


def _with_options(wrappers: Wrappers, key: str) -> Callable[..., Tensor]:
    """The run's PREDICT_NOISE wrapper, which is always given transformer_options: some samplers call the model without
    any. These then have the run's own wrappers, and no other node's, as the host has it."""
    own = wrappers.get(WrappersMP.PREDICT_NOISE)
    others = {kind: wrapper for kind, wrapper in wrappers.items() if kind != WrappersMP.PREDICT_NOISE}

    def predict_noise(
        executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: Any = None
    ) -> Tensor:
        options = model_options.get("transformer_options", {})
        missing = {k: each for k, each in others.items() if each not in get_wrappers_with_key(k, key, options)}
        if missing or "transformer_options" not in model_options:
            model_options = {**model_options, "transformer_options": copy_nested_dicts(options)}
            _add(missing, key, model_options)
        if own is None:
            return executor(x, timestep, model_options, seed)
        return own(executor, x, timestep, model_options, seed)

    return predict_noise


def has_run(model: ModelPatcher, key: str) -> bool:
    """Whether `on_run` was called on this model with this key."""
    return bool(model.get_wrappers(WrappersMP.OUTER_SAMPLE, key))


def without_run(model: ModelPatcher, key: str) -> ModelPatcher:
    """A clone of the model without what `on_run` put on it under this key."""
    clone = model.clone()
    if has_run(clone, key):
        clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, key)
        if not clone.get_all_wrappers(WrappersMP.OUTER_SAMPLE):
            block_hooks.remove(clone, anatomy_of(model).family)
    return clone
