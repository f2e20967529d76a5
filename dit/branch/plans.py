"""The two plans of a step to get the perturbed prediction D_m beside the conditional one, D."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any
from uuid import UUID, uuid5

from comfy.model_management import get_free_memory
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from ..family import Key
from ..forward import Batch, Chunk, Patch, chunks_of, patched
from ..token_layout import token_layout
from .neighbours import naming_neighbour
from .patches import StepForward, StepTrace, capture_prefix, resume_from_prefix, share_prefix
from .request import CondBatchCall, Conds, ForwardRequest, Plan, StepRequest, StepResult, StepStats

KEY = "detail_guidance.branch"  # of the wrappers
NAMESPACE = "detail_guidance"  # of the perturbed conditions' ids
_ATTENTION_INPUTS = ("attn1_patch", "attn2_patch")
_ATTENTION_OUTPUTS = ("attn1_output_patch", "attn2_output_patch")
_MODEL_INPUTS = ("post_input",)


@contextmanager
def requesting_perturbed(
    model_options: dict[str, Any], request: StepRequest, results: list[StepResult]
) -> Iterator[None]:
    """While it lasts, the host's model options make the host predict D_m whenever it predicts D.

    The first answer is added to `results`; where the host never predicts D, there is none. The options stay the object
    that they are: other nodes keep their own state in them from step to step.
    """

    def calc_cond_batch(
        executor: Any, model: Any, conds: list[Conds | None], x: Tensor, timestep: Tensor, model_options: dict[str, Any]
    ) -> list[Tensor]:
        index = request.index_in(conds)
        if index is None or results:  # another pack's own call
            return executor(model, conds, x, timestep, model_options)
        if x.shape != request.shape:
            raise _in_parts(f"predictions for {tuple(x.shape)} of {tuple(request.shape)}")
        call = CondBatchCall(executor, model, conds, x, timestep, model_options, index)
        if request.compute:
            results.append(predict_both(request, call))
        else:
            results.append(conditional_only(call.predict(conds, model_options), index))
        return results[0].predictions

    with wrapping_calc_cond_batch(model_options, calc_cond_batch):
        yield


@contextmanager
def wrapping_calc_cond_batch(model_options: dict[str, Any], wrapper: Callable[..., list[Tensor]]) -> Iterator[None]:
    """While it lasts, the host's model options have this wrapper of the kind CALC_COND_BATCH."""
    transformer_options = model_options.setdefault("transformer_options", {})
    before = transformer_options.get("wrappers", {})
    ours = {WrappersMP.CALC_COND_BATCH: {**before.get(WrappersMP.CALC_COND_BATCH, {}), KEY: [wrapper]}}
    transformer_options["wrappers"] = {**before, **ours}
    try:
        yield
    finally:
        transformer_options["wrappers"] = before


def predict_both(request: StepRequest, call: CondBatchCall) -> StepResult:
    """D and D_m, by the plan that is wanted and possible.

    Raises:
        ValueError: another node asks for parts of the latent or of the batch, or counts the calls of the model.
        RuntimeError: the model ignores its block patches, or another node's wrapper fails with the perturbed rows.
    """
    with naming_neighbour(call.model_options.get("model_function_wrapper")):
        result = batched(request, call) if _may_be_batched(request, call) else sequential(request, call)
    return result if result.perturbed is not None else _not_computed(request, call, result)


def conditional_only(predictions: list[Tensor], index: int) -> StepResult:
    """The host's own predictions, and D noted: nothing more is computed."""
    cond = predictions[index].clone()  # pre-CFG functions may write into theirs
    return StepResult(predictions, cond, None, StepStats("not requested"))


def batched(request: StepRequest, call: CondBatchCall) -> StepResult:
    """One call with perturbed rows, copies of the positive conditions', in it. Sequential where the host puts them and
    their conditional rows into different forwards."""
    trace, partner = StepTrace(), _partners(call)
    apart: list[Batch] = []

    def patches_for(batch: Batch) -> dict[Key, Patch]:
        forward, chunks, conditional = _forward(request, call, batch, trace)
        perturbed = [chunk for chunk in chunks if chunk.uuid in partner]
        if not perturbed:
            return {}
        if any(partner[chunk.uuid] not in conditional for chunk in perturbed):
            apart.append(batch)
            return {}
        return share_prefix(forward, chunks, {chunk: conditional[partner[chunk.uuid]] for chunk in perturbed})

    options = patched_options(call.model_options, patches_for, trace)
    *predictions, perturbed = call.predict([*call.conds, _perturbed_conds(call)], options)
    if apart:
        return sequential(request, call)
    return _result(call, predictions, perturbed, "batched", trace)


def sequential(request: StepRequest, call: CondBatchCall) -> StepResult:
    """The host's own call, whose prefix is captured, then a call for the perturbed rows: alone, or in the conditional
    rows' place among the others, where another node's attention patches look at rows beside each other."""
    trace, partner = StepTrace(), _partners(call)
    # Patches of attention's input may keep keys and values by the places of the rows.
    beside = _rows_look_at_each_other(request, call) or _patched_at(_ATTENTION_INPUTS, call)

    def capturing(batch: Batch) -> dict[Key, Patch]:
        forward, chunks, conditional = _forward(request, call, batch, trace)
        if any(chunk.key in trace.prefixes for chunk in conditional.values()):
            raise _in_parts("several forwards of one condition in one step")
        others = [chunk for chunk in chunks if beside and chunk not in conditional.values()]
        return capture_prefix(forward, list(conditional.values()), others)

    def resuming(batch: Batch) -> dict[Key, Patch]:
        forward, chunks, _ = _forward(request, call, batch, trace)
        keys = {chunk: (partner.get(chunk.uuid, chunk.uuid), chunk.index) for chunk in chunks}
        # Nothing was captured where a cache answered in the model's place.
        captured = {chunk: trace.prefixes[key] for chunk, key in keys.items() if key in trace.prefixes}
        return resume_from_prefix(forward, captured) if len(captured) == len(chunks) else {}

    predictions = call.predict(call.conds, patched_options(call.model_options, capturing, trace))
    perturbed = predictions[call.index]
    if trace.prefixes:
        # In the positive's place of the list: other packs' patches go by it.
        others = call.conds if beside else [None] * len(call.conds)
        conds = [*others[: call.index], _perturbed_conds(call), *(others[call.index + 1 :] if beside else [])]
        perturbed = call.predict(conds, patched_options(call.model_options, resuming, trace))[call.index]
    return _result(call, predictions, perturbed, "sequential", trace)


def _result(
    call: CondBatchCall, predictions: list[Tensor], perturbed: Tensor, plan: Plan, trace: StepTrace
) -> StepResult:
    cond = predictions[call.index].clone()  # pre-CFG functions may write into theirs
    return StepResult(predictions, cond, perturbed if trace.perturbed else None, trace.stats(plan))


def _not_computed(request: StepRequest, call: CondBatchCall, result: StepResult) -> StepResult:
    """Why no row was perturbed: no positive is active in this step, or another node's cache answered in the model's
    place.

    Raises:
        RuntimeError: neither: the model ignores its block patches.
    """
    if not result.cond.any():  # all zero where no positive is active
        return replace(result, stats=replace(result.stats, source="inactive"))
    require_patches_called(request, call.model_options)
    return result


def require_patches_called(request: ForwardRequest, model_options: dict[str, Any]) -> None:
    """Accept a step without a perturbed row where a cache may have answered in the model's place.

    Raises:
        RuntimeError: none is there, so the model ignores its block patches.
    """
    if request.computed_before or _others_around_the_model(model_options):
        return
    raise RuntimeError(
        f"Detail Guidance had no effect: {type(request.anatomy.network).__name__} ran without calling its block "
        "patches, so nothing could be disrupted. Either the engine that loaded this model ignores them: load it with "
        "ComfyUI's own loader. Or a caching node answered in the model's place at the first guided step: remove it, or "
        "let it start later."
    )


# Conditions and forwards of a step


def _perturbed_conds(call: CondBatchCall) -> Conds:
    """Copies of the positive conditions. Each has an id of its own, the same at every step: caches keyed by it must not
    mix the two up."""
    return [{**cond, "uuid": uuid5(cond["uuid"], NAMESPACE)} for cond in call.positive]


def _partners(call: CondBatchCall) -> dict[UUID, UUID]:
    """Id of a perturbed condition → id of the condition that it is a copy of."""
    copies = zip(_perturbed_conds(call), call.positive, strict=True)
    return {perturbed["uuid"]: cond["uuid"] for perturbed, cond in copies}


def _forward(
    request: StepRequest, call: CondBatchCall, batch: Batch, trace: StepTrace
) -> tuple[StepForward, list[Chunk], dict[UUID, Chunk]]:
    """A forward, its chunks, and those of the positive conditions by id."""
    chunks = chunks_in(batch, rows_each=request.shape[0])
    orders = {**request.orders, **trace.orders}
    layout = token_layout(request.anatomy.family, request.anatomy.network, batch.latent, batch.conditions, orders)
    wanted = {cond["uuid"] for cond in call.positive}
    conditional = {chunk.uuid: chunk for chunk in chunks if chunk.index == call.index and chunk.uuid in wanted}
    return StepForward(request, batch, layout, trace), chunks, conditional


def chunks_in(batch: Batch, rows_each: int) -> list[Chunk]:
    """The chunks of a forward, in their order.

    Args:
        rows_each: rows of each chunk.

    Raises:
        ValueError: another node has made the forward of a part of the host's batch.
    """
    chunks = chunks_of(batch.transformer_options, rows_each)
    rows = sum(chunk.size for chunk in chunks)
    if batch.latent[0] != rows:
        raise _in_parts(f"a forward of {batch.latent[0]} rows where the host's batch has {rows}")
    return chunks


def patched_options(
    model_options: dict[str, Any], patches_for: Callable[[Batch], dict[Key, Patch]], trace: StepTrace
) -> dict[str, Any]:
    """A copy of the model options with which forwards are patched."""

    def on_uncompiled() -> None:
        trace.uncompiled = True

    options = create_model_options_clone(model_options)
    wrapper = patched(patches_for, on_uncompiled)
    add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, wrapper, options, is_model_options=True)
    return options


def _in_parts(what: str) -> ValueError:
    return ValueError(
        f"Detail Guidance cannot work in parts of the latent or of the batch, and another node asks for {what}. Remove "
        "that node (tiled diffusion, say), or remove Detail Guidance."
    )


# Which plan


def _may_be_batched(request: StepRequest, call: CondBatchCall) -> bool:
    if request.batching == "sequential" or _others_around_the_model(call.model_options):
        return False
    if _rows_look_at_each_other(request, call):
        return False
    if _patched_at(_MODEL_INPUTS, call):
        return False  # style references join tokens for as many rows as they were made for
    if not request.every_step and _patched_at(_ATTENTION_INPUTS, call):
        return False  # what they keep from a batch with perturbed rows is not for one without
    for cond in call.positive:
        conditions = {name: value.cond for name, value in cond["model_conds"].items()}
        if not request.anatomy.family.shares_rows(request.anatomy.network, conditions):
            return False
    return request.batching == "batched" or _fit_in_one_forward(call)


def _rows_look_at_each_other(request: StepRequest, call: CondBatchCall) -> bool:
    """Whether another node changes attention's output, which it may do by the places of the conditions in the batch (as
    guidance within attention does), or has put a forward of its own into the blocks."""
    if _patched_at(_ATTENTION_OUTPUTS, call):
        return True
    lists = tuple(f"diffusion_model.{stage.blocks}." for stage in request.anatomy.family.stages)
    objects = call.model.current_patcher.object_patches
    return any(name.startswith(lists) and name.endswith(".forward") for name in objects)


def _patched_at(kinds: tuple[str, ...], call: CondBatchCall) -> bool:
    patches = call.model_options["transformer_options"].get("patches", {})
    return any(patches.get(kind) for kind in kinds)


def _others_around_the_model(model_options: dict[str, Any]) -> bool:
    """Whether other nodes stand between the host's batch and the blocks. Caches do; one that answers for perturbed rows
    which it has never seen fails."""
    wrappers = model_options["transformer_options"].get("wrappers", {})
    return any(wrappers.get(WrappersMP.DIFFUSION_MODEL, {}).values())


def _fit_in_one_forward(call: CondBatchCall) -> bool:
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
