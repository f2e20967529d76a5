"""One guided step: the two plans to get the detail prediction beside the conditional one."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import torch
from comfy.model_management import get_free_memory
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from . import block_hooks
from .block_patches import (
    Chunk,
    Disruption,
    Patch,
    Record,
    chained,
    chunks_of,
    recording,
    resuming,
    sharing,
)
from .families import Key

if TYPE_CHECKING:
    from .run import Run

KEY = "detail_guidance"  # of this pack's wrappers

Conds = list[dict[str, Any]]


class Step:
    """Asks the host for D_m whenever it asks for D.

    together: one call with detail rows, copies of the positive condition's, in it.
    in turn: the host's own call, which is recorded, then a call for the detail rows alone.

    Attributes:
        predictions: D and D_m, once the host has asked for D.
        fired: whether any detail row was disrupted.
        reused: whether D − D_m is the last computed step's, because a cache answered in the model's place.
    """

    def __init__(self, run: "Run", shape: torch.Size, sigma: float, keep: float):
        self.run = run
        self.shape = shape
        self.sigma = sigma
        self.keep = keep
        self.predictions: tuple[Tensor, Tensor] | None = None
        self.fired = False
        self.reused = False
        self.index = 0  # of the positive in the host's list of conditions
        self.partner: dict[UUID, UUID] = {}  # detail condition → its conditional one
        self.records: dict[UUID, Record] = {}
        self.together = run.together
        self.separated = False  # the host put detail rows and their conditional rows into different forwards

    def with_wrapper(self, model_options: dict[str, Any]) -> dict[str, Any]:
        return _with_wrapper(model_options, WrappersMP.CALC_COND_BATCH, self.calc_cond_batch)

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: list[Conds | None], x: Tensor, timestep: Tensor, model_options: dict
    ) -> list[Tensor]:
        """The host's predictions for `conds`; on the way, the detail prediction for the positive one."""
        index = self.positive(conds)
        if index is None or self.predictions is not None:  # another pack's own call
            return executor(model, conds, x, timestep, model_options)
        if x.shape != self.shape:
            raise _in_parts(f"predictions for {tuple(x.shape)} of {tuple(self.shape)}")
        positive = conds[index] or []
        self.index = index
        # An id of their own, the same at every step: caches keyed by it must not mix the two up.
        detail = [{**cond, "uuid": uuid5(cond["uuid"], KEY)} for cond in positive]
        self.partner = {new["uuid"]: old["uuid"] for new, old in zip(detail, positive, strict=True)}
        patched = _with_wrapper(model_options, WrappersMP.APPLY_MODEL, self.apply_model)

        if self.together and (_others_around_the_model(model_options) or not self._may_share_rows(positive)):
            self.together = False
        if self.together and self.run.settings.options.batching == "auto":
            self.together = _fit_together(model, [*conds, detail], x)
        if self.together:
            out = executor(model, [*conds, detail], x, timestep, patched)
            if not self.separated:
                *out, disrupted = out
            else:
                self.together = False
        if not self.together:
            out = executor(model, conds, x, timestep, patched)
            # In the positive's place of the list: other packs' patches go by it.
            if self.records:
                disrupted = executor(model, [None] * index + [detail], x, timestep, patched)[index]
        cond = out[index].clone()  # a clone: pre-CFG functions may write into theirs
        if not self.fired:
            disrupted = self._disrupted_unseen(cond, model_options)
        self.run.together = self.together
        self.predictions = cond, disrupted
        return out

    def _disrupted_unseen(self, cond: Tensor, model_options: dict[str, Any]) -> Tensor:
        """D_m where no detail row was disrupted: no positive is active in this step, or another node's cache answered
        in the model's place. A cache keeps what the model last answered, a noise or velocity; so does this.

        Raises:
            RuntimeError: the model ignores its block patches.
        """
        if not cond.any():  # all zero where no positive is active
            return cond
        if self.run.difference is not None and self.run.difference.shape == cond.shape:
            self.reused = True
            return cond - self.sigma * self.run.difference
        if _others_around_the_model(model_options):
            return cond  # the report says so
        raise RuntimeError(
            f"Detail Guidance had no effect: {type(self.run.diffusion_model).__name__} ran without calling its block "
            "patches, so nothing could be disrupted. Either the engine that loaded this model ignores them: load it "
            "with ComfyUI's own loader. Or a caching node answered in the model's place at the first guided step: "
            "remove it, or let it start later."
        )

    def _may_share_rows(self, positive: Conds) -> bool:
        return not any(name in cond["model_conds"] for cond in positive for name in self.run.family.not_together)

    def positive(self, conds: list[Conds | None]) -> int | None:
        """Which of the host's conditions is the guider's positive one, whatever place the guider gives it."""
        wanted = [cond["uuid"] for cond in self.run.guider.conds.get("positive", [])]
        for index, group in enumerate(conds):
            if wanted and [cond.get("uuid") for cond in group or ()] == wanted:
                return index
        return None

    def apply_model(
        self,
        executor: Any,
        x: Tensor,
        t: Tensor,
        c_concat: Any = None,
        c_crossattn: Any = None,
        control: Any = None,
        transformer_options: dict[str, Any] = {},
        **kwargs: Any,
    ) -> Tensor:
        """One forward of the model, patched for the rows it holds."""
        chunks = chunks_of(transformer_options, rows_each=self.shape[0])
        if len(x) != sum(chunk.size for chunk in chunks):
            raise _in_parts(f"a forward of {len(x)} rows where the host's batch has {sum(c.size for c in chunks)}")
        options = chained(transformer_options, self._patches(chunks, x.shape, kwargs))
        with block_hooks.replacing(options), uncompiled(executor.class_obj) as was_compiled:
            self.run.uncompiled |= was_compiled
            return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _fire(self) -> None:
        self.fired = True

    def _patches(self, chunks: list[Chunk], latent: torch.Size, conditions: dict[str, Any]) -> dict[Key, Patch]:
        """The block patches for a forward of these chunks."""
        run = self.run
        layout = run.family.layout(run.diffusion_model, latent, conditions)
        measure = None if run.fired else run.measure  # once a run is enough to see where they are
        todo = Disruption(run.family, run.blocks, run.layers, run.find, measure, self.keep, self._fire, layout)
        detail = [chunk for chunk in chunks if chunk.uuid in self.partner]
        conditional = {
            chunk.uuid: chunk for chunk in chunks if chunk.index == self.index and chunk.uuid in self.partner.values()
        }
        if not detail:
            if self.together:
                return {}
            if not conditional.keys().isdisjoint(self.records):
                raise _in_parts("several forwards of one condition in one step")
            return recording(todo, list(conditional.values()), self.records)
        partners = [self.partner[chunk.uuid] for chunk in detail]
        if all(uuid in conditional for uuid in partners):
            return sharing(todo, chunks, {c: conditional[uuid] for c, uuid in zip(detail, partners, strict=True)})
        if all(uuid in self.records for uuid in partners) and len(detail) == len(chunks):
            return resuming(todo, [(c, self.records[uuid]) for c, uuid in zip(detail, partners, strict=True)])
        self.separated = True
        return {}


def _in_parts(what: str) -> ValueError:
    return ValueError(
        f"Detail Guidance cannot work in parts of the latent or of the batch, and another node asks for {what}. Remove "
        "that node (tiled diffusion, say), or remove Detail Guidance."
    )


def _with_wrapper(model_options: dict[str, Any], kind: str, wrapper: Any) -> dict[str, Any]:
    options = create_model_options_clone(model_options)
    add_wrapper_with_key(kind, KEY, wrapper, options, is_model_options=True)
    return options


@contextmanager
def uncompiled(model: Any) -> Iterator[bool]:
    """While it lasts, the host's model runs without torch.compile around the whole of it; yields whether it had one.

    Patches are different functions in every forward. A compiled model would be compiled anew for each, or, in hosts
    that tell it to ignore transformer_options, run its first graph ever after, patched or not. Compiled blocks stay.
    """
    compiled = model.diffusion_model
    whole = hasattr(compiled, "_orig_mod")
    if whole:
        model.diffusion_model = compiled._orig_mod
    try:
        yield whole
    finally:
        if whole:
            model.diffusion_model = compiled


def _others_around_the_model(model_options: dict[str, Any]) -> bool:
    """Whether other nodes stand between the host's batch and the blocks. Caches do; one that answers for detail rows
    which it has never seen fails."""
    wrappers = model_options["transformer_options"].get("wrappers", {})
    return any(wrappers.get(WrappersMP.DIFFUSION_MODEL, {}).values())


def _fit_together(model: Any, conds: list[Conds | None], x: Tensor) -> bool:
    """Whether the host would run all these conditions as one forward: its own test, on the whole picture."""
    every = list(chain.from_iterable(group or () for group in conds))
    shapes = defaultdict(list)
    for cond in every:
        for name, value in cond["model_conds"].items():
            shapes[name].append(value.size())
    rows = len(every) * len(x)
    return model.memory_required([rows, *x.shape[1:]], cond_shapes=shapes) * 1.5 < get_free_memory(x.device)
