"""A prediction that the host computes in any case, perturbed in place: no row and no forward more."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

from torch import Tensor

from ..family import Key
from ..forward import Batch, Patch
from ..token_layout import token_layout
from .patches import StepForward, StepTrace, perturb_in_place
from .plans import chunks_in, patched_options, require_patches_called, wrapping_calc_cond_batch
from .request import Conds, ForwardRequest, StepStats, index_of


@contextmanager
def perturbing_in_place(
    model_options: dict[str, Any], request: ForwardRequest, conditions: Sequence[UUID], calls: list[StepStats]
) -> Iterator[None]:
    """While it lasts, the host's model options make the host predict a group of conditions in a perturbed form.

    The stats of each of the host's calls that predict the group are added to `calls`: one a step, or one for each
    context window or tile; none where the host does not predict it.

    Args:
        conditions: ids of the group's conditions: the guider's negative, say.

    Raises:
        ValueError: during the step: another node asks for parts of the batch.
        RuntimeError: during the step: the model ignores its block patches.
    """

    def calc_cond_batch(
        executor: Any, model: Any, conds: list[Conds | None], x: Tensor, timestep: Tensor, model_options: dict[str, Any]
    ) -> list[Tensor]:
        index = index_of(conditions, conds)
        if index is None:
            return executor(model, conds, x, timestep, model_options)
        trace = StepTrace()
        first = not any(each.measured for each in calls)
        asked = replace(
            request,
            window=len(calls),
            measure=request.measure if first else None,
            compare_layout=request.compare_layout and first,
            orders={**request.orders, **{kind: order for each in calls for kind, order in each.orders.items()}},
        )
        forwards = 0

        def patches_for(batch: Batch) -> dict[Key, Patch]:
            nonlocal forwards
            chunks = chunks_in(batch, rows_each=len(x))
            perturbed = [chunk for chunk in chunks if chunk.index == index]
            if not perturbed:
                return {}
            forwards += 1
            family, network = asked.anatomy.family, asked.anatomy.network
            layout = token_layout(family, network, batch.latent, batch.conditions, {**asked.orders, **trace.orders})
            others = [chunk for chunk in chunks if chunk.index != index]
            # Only rows that nothing perturbs tell how far massive activations stand out.
            measured = asked if others else replace(asked, measure=None)
            return perturb_in_place(StepForward(measured, batch, layout, trace), perturbed, others)

        out = executor(model, conds, x, timestep, patched_options(model_options, patches_for, trace))
        if forwards and not trace.perturbed:
            require_patches_called(request, model_options)
        stats = trace.stats("in place")
        calls.append(stats if forwards else replace(stats, source="inactive"))
        return out

    with wrapping_calc_cond_batch(model_options, calc_cond_batch):
        yield
