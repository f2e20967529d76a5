"""Putting Detail Guidance on a model, and taking it off."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP
from comfy.samplers import CFGGuider

from ...dit import Anatomy, Wrappers, anatomy_of, has_run, on_run, without_run
from ..common.layers import block_range
from ..regions.reader import require_readable
from .report import Report
from .run import Run
from .settings import Settings

KEY = "detail_guidance"  # of its wrappers on a model

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
        node_id: execution id of the node that asked, to which the report is addressed.
        tell: called with the report of each run.

    Raises:
        ValueError: no row of the family table fits the model, or the settings' profile or words do not.
    """
    anatomy = anatomy_of(model)
    if settings.options.profile is not None:
        settings.options.profile.check(anatomy.family.names, len(anatomy.blocks))
    if settings.options.words is not None:
        require_readable(settings.options.words, anatomy)
    replaces = has_run(model, KEY)
    if settings.off:
        if replaces:
            log.warning("Detail Guidance: this model carried one; a later node with dg_scale = 0 has switched it off.")
        return without(model)

    @contextmanager
    def start(guider: CFGGuider) -> Iterator[Wrappers]:
        run = Run(settings, guider, replaces)
        token = _guided.set(True)
        try:
            yield run.wrappers
        finally:
            _guided.reset(token)
        tell(run.report(node_id))

    def before_run(model: ModelPatcher) -> None:
        if not _guided.get():
            tell(unasked(anatomy, settings, node_id))

    clone = on_run(without(model), KEY, start)
    clone.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, before_run)
    return clone


def without(model: ModelPatcher) -> ModelPatcher:
    """A clone of the model that carries no Detail Guidance."""
    clone = without_run(model, KEY)
    clone.remove_callbacks_with_key(CallbacksMP.ON_PRE_RUN, KEY)
    return clone


def unasked(anatomy: Anatomy, settings: Settings, node_id: str | None) -> Report:
    """The report of a run that loads the model, but does not predict the positive with it."""
    layers = block_range(settings.layer_start, settings.layer_end, len(anatomy.blocks))
    return Report(
        node=node_id,
        fingerprint="",
        family=anatomy.family.name,
        block_count=len(anatomy.blocks),
        block_names=anatomy.block_names,
        first_block=layers.start,
        last_block=layers.stop - 1,
        channels={},
        peak_ratios={},
        steps=0,
        steps_guided=0,
        steps_fired=0,
        steps_reused=0,
        plan="together",
        relative_strength=0.0,
        made_with=settings.numbers,
        warnings=[
            "nothing was guided: the guider loads this model, but does not ask it for the positive in a way that this "
            "pack extends. If it has two models, as DualModelGuider, put the node on the positive's."
        ],
    )
