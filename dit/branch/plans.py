"""One guided step: two plans to get the detail prediction D_m beside the conditional one, D."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import getsourcefile, isroutine, unwrap
from itertools import chain
from pathlib import PurePath
from traceback import walk_tb
from typing import Any
from uuid import UUID, uuid5

from comfy.model_management import get_free_memory
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ...methods.detail_guidance.reuse import Kept
from ..forward import Batch, Chunk, Patch, patched
from ..token_layout import Key
from .patches import Forward, Trace, recording, resuming, sharing
from .request import Account, Call, Conds, Outcome, Plan, Task

KEY = "detail_guidance"  # of this pack's wrappers
_ATTENTION_INPUTS = ("attn1_patch", "attn2_patch")
_ATTENTION_OUTPUTS = ("attn1_output_patch", "attn2_output_patch")


@contextmanager
def asking(model_options: dict[str, Any], task: Task, outcomes: list[Outcome]) -> Iterator[None]:
    """While it lasts, these model options of the host's make it ask for D_m when it asks for D: adds the outcome to
    `outcomes`, once. Where it never asks, there is none.

    The options stay the object that they are: other nodes keep their own state in them from step to step.
    """

    def calc_cond_batch(
        executor: Any, model: Any, conds: list[Conds | None], x: Tensor, timestep: Tensor, model_options: dict[str, Any]
    ) -> list[Tensor]:
        index = task.index_in(conds)
        if index is None or outcomes:  # another pack's own call
            return executor(model, conds, x, timestep, model_options)
        if x.shape != task.shape:
            raise _in_parts(f"predictions for {tuple(x.shape)} of {tuple(task.shape)}")
        call = Call(executor, model, conds, x, timestep, model_options, index)
        if task.reuse is not None:
            outcomes.append(reusing(task.reuse, task.answer_scale, call.predict(conds, model_options), index))
        else:
            outcomes.append(answer(task, call))
        return outcomes[0].predictions

    transformer_options = model_options.setdefault("transformer_options", {})
    before = transformer_options.get("wrappers", {})
    ours = {WrappersMP.CALC_COND_BATCH: {**before.get(WrappersMP.CALC_COND_BATCH, {}), KEY: [calc_cond_batch]}}
    transformer_options["wrappers"] = {**before, **ours}
    try:
        yield
    finally:
        transformer_options["wrappers"] = before


def answer(task: Task, call: Call) -> Outcome:
    """D and D_m, by the plan that is wanted and possible.

    Raises:
        ValueError: another node asks for parts of the latent or of the batch, or counts the calls of the model.
        RuntimeError: the model ignores its block patches, or another node's wrapper fails with the detail rows.
    """
    with _neighbour_named(call):
        outcome = together(task, call) if _may_go_together(task, call) else in_turn(task, call)
    return outcome if outcome.account.source == "computed" else _unseen(task, call, outcome)


def reusing(kept: Kept, answer_scale: float, predictions: list[Tensor], index: int) -> Outcome:
    """The host's own predictions, and D_m by the difference of an earlier step: nothing is computed for it."""
    cond = predictions[index].clone()  # pre-CFG functions may write into theirs
    return Outcome(predictions, cond, kept.disrupted(cond, answer_scale), Account("reused"))


def together(task: Task, call: Call) -> Outcome:
    """One call with detail rows, copies of the positive condition's, in it. In turn where the host puts them and their
    conditional rows into different forwards."""
    trace, partner = Trace(), _partners(call)
    apart: list[Batch] = []

    def patches_for(batch: Batch) -> dict[Key, Patch]:
        forward, chunks, conditional = _forward(task, call, batch, trace)
        detail = [chunk for chunk in chunks if chunk.uuid in partner]
        if not detail:
            return {}
        if any(partner[chunk.uuid] not in conditional for chunk in detail):
            apart.append(batch)
            return {}
        return sharing(forward, chunks, {chunk: conditional[partner[chunk.uuid]] for chunk in detail})

    options = _patched(call, patches_for, trace)
    *predictions, disrupted = call.predict([*call.conds, _detail(call)], options)
    if apart:
        return in_turn(task, call)
    return _outcome(task, call, predictions, disrupted, "together", trace)


def in_turn(task: Task, call: Call) -> Outcome:
    """The host's own call, which is recorded, then a call for the detail rows: alone, or in the conditional rows' place
    among the others, where another node's attention patches look at rows beside each other."""
    trace, partner = Trace(), _partners(call)
    # Patches of attention's input may keep keys and values by the places of the rows.
    beside = _rows_look_at_each_other(task, call) or _patched_at(_ATTENTION_INPUTS, call)

    def noting(batch: Batch) -> dict[Key, Patch]:
        forward, chunks, conditional = _forward(task, call, batch, trace)
        if any(chunk.key in trace.handovers for chunk in conditional.values()):
            raise _in_parts("several forwards of one condition in one step")
        others = [chunk for chunk in chunks if beside and chunk not in conditional.values()]
        return recording(forward, list(conditional.values()), others)

    def resumed(batch: Batch) -> dict[Key, Patch]:
        forward, chunks, _ = _forward(task, call, batch, trace)
        keys = {chunk: (partner.get(chunk.uuid, chunk.uuid), chunk.index) for chunk in chunks}
        # Nothing is left where a cache answered in the model's place.
        left = {chunk: trace.handovers[key] for chunk, key in keys.items() if key in trace.handovers}
        return resuming(forward, left) if len(left) == len(chunks) else {}

    predictions = call.predict(call.conds, _patched(call, noting, trace))
    disrupted = predictions[call.index]
    if trace.handovers:
        # In the positive's place of the list: other packs' patches go by it.
        others = call.conds if beside else [None] * len(call.conds)
        conds = [*others[: call.index], _detail(call), *(others[call.index + 1 :] if beside else [])]
        disrupted = call.predict(conds, _patched(call, resumed, trace))[call.index]
    return _outcome(task, call, predictions, disrupted, "in turn", trace)


def _outcome(task: Task, call: Call, predictions: list[Tensor], disrupted: Tensor, plan: Plan, trace: Trace) -> Outcome:
    channels: dict[int, list[Tensor]] = defaultdict(list)
    for handover in trace.handovers.values():
        for block, found in handover.found.items():
            meant = task.rules[block].channels(found)
            if meant is not None:
                channels[block].append(meant)
    account = Account(
        source="computed" if trace.weakened else "nothing",
        plan=plan,
        channels=channels,
        peak_ratios=trace.peak_ratios,
        orders=trace.orders,
        fingerprints=trace.fingerprints,
        uncompiled=trace.compiled,
    )
    cond = predictions[call.index].clone()  # pre-CFG functions may write into theirs
    return Outcome(predictions, cond, disrupted, account)


def _unseen(task: Task, call: Call, outcome: Outcome) -> Outcome:
    """Where no detail row was weakened: no positive is active in this step, or another node's cache answered in the
    model's place. A cache keeps what the model last answered, a noise or velocity; so does this."""
    cond = outcome.cond
    if not cond.any():  # all zero where no positive is active
        return replace(outcome, disrupted=cond)
    if task.kept is not None:
        account = replace(outcome.account, source="cached")
        return replace(outcome, disrupted=task.kept.disrupted(cond, task.answer_scale), account=account)
    if _others_around_the_model(call.model_options):
        return replace(outcome, disrupted=cond)  # the report says so
    raise RuntimeError(
        f"Detail Guidance had no effect: {type(task.anatomy.network).__name__} ran without calling its block patches, "
        "so nothing could be disrupted. Either the engine that loaded this model ignores them: load it with ComfyUI's "
        "own loader. Or a caching node answered in the model's place at the first guided step: remove it, or let it "
        "start later."
    )


# Conditions and forwards of a step


def _detail(call: Call) -> Conds:
    """Copies of the positive conditions. Each has an id of its own, the same at every step: caches keyed by it must not
    mix the two up."""
    return [{**cond, "uuid": uuid5(cond["uuid"], KEY)} for cond in call.positive]


def _partners(call: Call) -> dict[UUID, UUID]:
    """Detail condition → its conditional one."""
    return {detail["uuid"]: cond["uuid"] for detail, cond in zip(_detail(call), call.positive, strict=True)}


def _forward(task: Task, call: Call, batch: Batch, trace: Trace) -> tuple[Forward, list[Chunk], dict[UUID, Chunk]]:
    """A forward, its chunks, and those of the positive conditions by id."""
    chunks = batch.chunks(rows_each=task.shape[0])
    rows = sum(chunk.size for chunk in chunks)
    if batch.latent[0] != rows:
        raise _in_parts(f"a forward of {batch.latent[0]} rows where the host's batch has {rows}")
    orders = {**task.orders, **trace.orders}
    reading = task.anatomy.family.reading(task.anatomy.network, batch.latent, batch.conditions, orders)
    wanted = {cond["uuid"] for cond in call.positive}
    conditional = {chunk.uuid: chunk for chunk in chunks if chunk.index == call.index and chunk.uuid in wanted}
    return Forward(task, reading, trace), chunks, conditional


def _patched(call: Call, patches_for: Callable[[Batch], dict[Key, Patch]], trace: Trace) -> dict[str, Any]:
    """A copy of the call's model options with which forwards are patched."""

    def was_compiled() -> None:
        trace.compiled = True

    options = create_model_options_clone(call.model_options)
    wrapper = patched(patches_for, was_compiled)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, wrapper, options, is_model_options=True)
    return options


def _in_parts(what: str) -> ValueError:
    return ValueError(
        f"Detail Guidance cannot work in parts of the latent or of the batch, and another node asks for {what}. Remove "
        "that node (tiled diffusion, say), or remove Detail Guidance."
    )


# What other packs call the caches of theirs that keep a state for the positive and for the negative, call by call.
_COUNTERS = ("teacache", "fbcache", "fb_cache", "firstblockcache", "magcache")


@contextmanager
def _neighbour_named(call: Call) -> Iterator[None]:
    """Errors of another node's wrapper around the model say whose they are; one that counts calls is refused."""
    wrapper = call.model_options.get("model_function_wrapper")
    if wrapper is None:
        yield
        return
    while isinstance(wrapper, partial):
        wrapper = wrapper.func
    function = wrapper if isroutine(wrapper) else type(wrapper).__call__
    # The host names a pack's modules by the path of its folder.
    name = f"{PurePath(function.__module__).name}.{function.__qualname__.removesuffix('.__call__')}"
    remedy = "Remove that node, or Detail Guidance."
    if any(counter in name.lower() for counter in _COUNTERS):
        raise ValueError(
            f"Detail Guidance cannot work beside {name}: it keeps a state for the positive and one for the negative, "
            f"from call to call, and the detail rows are neither. {remedy}"
        )
    try:
        yield
    except (LookupError, TypeError, RuntimeError) as error:
        (*_, (deepest, _)) = walk_tb(error.__traceback__)
        if deepest.f_code.co_filename != getsourcefile(unwrap(function)):
            raise
        raise RuntimeError(
            f"{name}, another node's wrapper around the model, failed beside Detail Guidance: "
            f"{type(error).__name__}: {error}. {remedy}"
        ) from error


# Which plan


def _may_go_together(task: Task, call: Call) -> bool:
    if task.batching == "in turn" or _others_around_the_model(call.model_options):
        return False
    if _rows_look_at_each_other(task, call):
        return False
    if not task.always_computed and _patched_at(_ATTENTION_INPUTS, call):
        return False  # what they keep from a batch with detail rows is not for one without
    for cond in call.positive:
        conditions = {name: value.cond for name, value in cond["model_conds"].items()}
        if not task.anatomy.family.shares_rows(task.anatomy.network, conditions):
            return False
    return task.batching == "together" or _fit_together(call)


def _rows_look_at_each_other(task: Task, call: Call) -> bool:
    """Whether another node changes attention's output, which it may do by the places of the conditions in the batch (as
    guidance within attention does), or has put a forward of its own into the blocks."""
    if _patched_at(_ATTENTION_OUTPUTS, call):
        return True
    lists = tuple(f"diffusion_model.{stage.blocks}." for stage in task.anatomy.family.stages)
    objects = call.model.current_patcher.object_patches
    return any(name.startswith(lists) and name.endswith(".forward") for name in objects)


def _patched_at(kinds: tuple[str, ...], call: Call) -> bool:
    patches = call.model_options["transformer_options"].get("patches", {})
    return any(patches.get(kind) for kind in kinds)


def _others_around_the_model(model_options: dict[str, Any]) -> bool:
    """Whether other nodes stand between the host's batch and the blocks. Caches do; one that answers for detail rows
    which it has never seen fails."""
    wrappers = model_options["transformer_options"].get("wrappers", {})
    return any(wrappers.get(WrappersMP.DIFFUSION_MODEL, {}).values())


def _fit_together(call: Call) -> bool:
    """Whether the host would run all these conditions as one forward: its own test, on the whole picture."""
    every = list(chain.from_iterable(group or () for group in (*call.conds, call.positive)))
    shapes = defaultdict(list)
    for cond in every:
        for name, value in cond["model_conds"].items():
            shapes[name].append(value.size())
    rows = len(every) * len(call.x)
    needed = call.model.memory_required([rows, *call.x.shape[1:]], cond_shapes=shapes)
    # Newer hosts ask the model's patcher, which knows what can be freed for this.
    free_memory = getattr(call.model.current_patcher, "get_free_memory", get_free_memory)
    return needed * 1.5 < free_memory(call.x.device)
