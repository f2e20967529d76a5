"""One guided step: the two plans to get the detail prediction beside the conditional one."""

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import torch
from comfy.model_management import get_free_memory
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from torch import Tensor

from .block_patches import Chunk, Disruption, Key, Patch, Record, chained, chunks_of, recording, resuming, sharing

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
    """

    def __init__(self, run: "Run", shape: torch.Size, keep: float):
        self.run = run
        self.shape = shape
        self.keep = keep
        self.predictions: tuple[Tensor, Tensor] | None = None
        self.fired = False
        self.index = 0  # of the positive in the host's list of conditions
        self.partner: dict[UUID, UUID] = {}  # detail condition → its conditional one
        self.records: dict[UUID, Record] = {}
        self.together = run.together
        self.separated = False  # the host put detail rows and their conditional rows into different forwards

    def installed(self, model_options: dict[str, Any]) -> dict[str, Any]:
        return _with_wrapper(model_options, WrappersMP.CALC_COND_BATCH, self.calc_cond_batch)

    def calc_cond_batch(
        self, executor: Any, model: Any, conds: list[Conds | None], x: Tensor, timestep: Tensor, model_options: dict
    ) -> list[Tensor]:
        """The host's predictions for `conds`; on the way, the detail prediction for the positive one."""
        index = self._positive(conds)
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
            disrupted = executor(model, [None] * index + [detail], x, timestep, patched)[index]
            if not self.fired:  # a cache answered in the model's place: there is no D_m to go with its D
                disrupted = out[index]
        if not self.fired and self.run.fired == 0 and out[index].any():  # all zero where no positive is active yet
            raise RuntimeError(
                f"Detail Guidance had no effect: {type(self.run.diffusion_model).__name__} ran without calling its "
                "block patches, so nothing could be disrupted. Either the engine that loaded this model ignores them: "
                "load it with ComfyUI's own loader. Or a caching node answered in the model's place at the first "
                "guided step: remove it, or let it start later."
            )
        self.run.together = self.together
        self.predictions = out[index].clone(), disrupted  # a clone: pre-CFG functions may write into theirs
        return out

    def _positive(self, conds: list[Conds | None]) -> int | None:
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
        patches = self._patches(chunks)
        options = chained(transformer_options, patches)
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    def _fire(self) -> None:
        self.fired = True

    def _patches(self, chunks: list[Chunk]) -> dict[Key, Patch]:
        """The block patches for a forward of these chunks."""
        run = self.run
        todo = Disruption(run.family, run.keys, run.layers, run.find, self.keep, self._fire)
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
        "that node (context windows, tiled diffusion), or remove Detail Guidance."
    )


def _with_wrapper(model_options: dict[str, Any], kind: str, wrapper: Any) -> dict[str, Any]:
    options = create_model_options_clone(model_options)
    add_wrapper_with_key(kind, KEY, wrapper, options, is_model_options=True)
    return options


def _fit_together(model: Any, conds: list[Conds | None], x: Tensor) -> bool:
    """Whether the host would run all these conditions as one forward: its own test, on the whole picture."""
    every = list(chain.from_iterable(group or () for group in conds))
    shapes = defaultdict(list)
    for cond in every:
        for name, value in cond["model_conds"].items():
            shapes[name].append(value.size())
    rows = len(every) * len(x)
    return model.memory_required([rows, *x.shape[1:]], cond_shapes=shapes) * 1.5 < get_free_memory(x.device)
