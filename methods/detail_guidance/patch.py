"""Putting Detail Guidance on a model."""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ...dit import block_hooks
from ...dit.branch.plans import KEY
from ...dit.families import Family, anatomy
from ..regions.reader import require_readable
from .report import Report
from .run import Run, unasked
from .settings import Settings

log = logging.getLogger(KEY)

# Whether this thread samples under Detail Guidance: guiders may load a second model, whose wrappers nobody calls.
_guided: ContextVar[bool] = ContextVar("guided", default=False)


def patch(
    model: ModelPatcher,
    settings: Settings,
    node_id: str | None,
    tell: Callable[[Report], object] = lambda report: report.publish(),
) -> ModelPatcher:
    """A clone of the model that samples with Detail Guidance; the model itself stays as it is.

    A model carries one Detail Guidance: a new one takes an earlier one's place. Switched off (dg_scale = 0), the clone
    carries none: it costs nothing and samples as if this pack were not there.

    Args:
        node_id: the execution id of the node that asked, to which the report is addressed.
        tell: is given the report of each run.

    Raises:
        ValueError: no row of the family table fits the model, or the settings' profile or words do not.
    """
    of_model = anatomy(model)
    family = of_model.family
    if settings.options.profile is not None:
        settings.options.profile.check(family.name, len(of_model.blocks))
    if settings.options.words is not None:
        require_readable(settings.options.words, of_model)
    replaces = bool(model.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY))
    clone = without(model, family)
    if settings.off:
        if replaces:
            log.warning("Detail Guidance: this model carried one; a later node with dg_scale = 0 has switched it off.")
        return clone
    block_hooks.install(clone, family)

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        run = Run(settings, executor.class_obj, replaces)
        run.install()
        token = _guided.set(True)
        try:
            samples = executor(*args, **kwargs)
        finally:
            _guided.reset(token)
        tell(run.report(node_id))
        return samples

    def before_run(model: ModelPatcher) -> None:
        if not _guided.get():
            tell(unasked(of_model, settings, node_id))

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    clone.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, before_run)
    return clone


def without(model: ModelPatcher, family: Family) -> ModelPatcher:
    """A clone of the model that carries no Detail Guidance."""
    clone = model.clone()
    if clone.get_wrappers(WrappersMP.OUTER_SAMPLE, KEY):
        clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
        clone.remove_callbacks_with_key(CallbacksMP.ON_PRE_RUN, KEY)
        block_hooks.remove(clone, family)
    return clone
