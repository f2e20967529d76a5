"""One sampling run under Detail Guidance."""

from collections import defaultdict
from itertools import chain
from math import inf
from typing import Any
from uuid import UUID, uuid5

import torch
from comfy.model_management import get_free_memory
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import CFGGuider
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ..detail_guidance.guidance import detail_guidance
from ..detail_guidance.layers import block_range
from ..detail_guidance.massive import listed_channels, massive_channels
from ..detail_guidance.settings import Settings
from ..detail_guidance.window import Window, keep_factor
from .block_patches import Chunk, Disruption, Key, Patch, Record, chained, chunks_of, recording, resuming, sharing
from .families import family_of
from .report import Report

KEY = "detail_guidance"

Conds = list[dict[str, Any]]


class Run:
    """Made when a sampling run starts, gone when it ends: two runs share nothing.

    Args:
        settings: valid settings that are not off.
        guider: the host's guider, inside its `sample`.
    """

    def __init__(self, settings: Settings, guider: CFGGuider):
        model = guider.model_patcher
        self.settings = settings
        self.guider = guider
        self.diffusion_model = model.get_model_object("diffusion_model")
        self.family = family_of(self.diffusion_model)
        self.keys = self.family.block_keys(self.diffusion_model)
        self.layers = block_range(settings.layer_start, settings.layer_end, len(self.keys))
        sampling = model.get_model_object("model_sampling")
        self.window = Window(
            start=float(sampling.percent_to_sigma(settings.start_percent)) if settings.start_percent > 0 else inf,
            end=float(sampling.percent_to_sigma(settings.end_percent)),
            noisiest=float(sampling.sigma_max),
        )
        self.together = settings.options.batching != "in turn"

        self.steps = self.guided = self.fired = 0
        self.strengths: list[Tensor] = []
        self.channels: dict[int, list[Tensor]] = defaultdict(list)

    def install(self) -> None:
        """Hook into this run's steps: the guider's model options are a copy that the host drops after the run."""
        add_wrapper_with_key(
            WrappersMP.PREDICT_NOISE, KEY, self.predict_noise, self.guider.model_options, is_model_options=True
        )

    def predict_noise(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: Any = None
    ) -> Tensor:
        """D̂ for one step: the guider's own prediction plus the detail term."""
        self.steps += 1
        sigma = float(timestep.max())
        if sigma not in self.window:
            return executor(x, timestep, model_options, seed)
        options = self.settings.options
        step = Step(self, x.shape, keep_factor(options.keep_start, options.keep_end, self.window.progress(sigma)))
        base = executor(x, timestep, step.installed(model_options), seed)
        if step.disrupted is None:
            return base  # the report says so
        self.guided += 1
        self.fired += step.fired
        guided, strength = detail_guidance(
            base,
            step.cond,
            step.disrupted,
            self.settings.dg_scale,
            mask=None if options.mask is None else _mask_like(options.mask, base),
            limit=options.limit,
            rescale=options.rescale,
        )
        self.strengths.append(strength)
        return guided

    def find(self, block: int, z: Tensor) -> Tensor:
        """bool (channels,): the massive ones at a block's input, of conditional image tokens z."""
        options = self.settings.options
        listed = options.channels_at(block)
        if listed is None:
            found = massive_channels(z, options.massive_ratio, options.max_channels)
        else:
            found = listed_channels(listed, z)
        self.channels[block].append(found)
        return found

    def report(self, node_id: str | None) -> Report:
        channels = {block: _true_indices(self.channels[block]) for block in self.layers}
        return Report(
            node=node_id,
            family=self.family.name,
            block_count=len(self.keys),
            block_names=[f"{kind} {index}" for kind, index in self.keys],
            first_block=self.layers.start,
            last_block=self.layers.stop - 1,
            channels=channels,
            steps=self.steps,
            steps_guided=self.guided,
            steps_fired=self.fired,
            plan="together" if self.together else "in turn",
            relative_strength=torch.cat(self.strengths).mean().item() if self.strengths else 0.0,
            warnings=list(self._warnings(channels)),
        )

    def _warnings(self, channels: dict[int, list[int]]):
        guider = type(self.guider).__name__
        if self.steps == 0:
            yield f"nothing was guided: {guider} does not predict through the host's guider, which this pack extends."
        elif self.guided == 0:
            sigmas = f"σ {self.window.start:.3g} to {self.window.end:.3g}"
            yield (
                f"nothing was guided: no step fell into the window ({sigmas}), or {guider} has no positive "
                "conditioning. Widen start_percent and end_percent, or use a guider with a positive prompt."
            )
        elif self.fired < self.guided:
            yield f"{self.guided - self.fired} of {self.guided} guided steps ran no block (served from a cache?)."
        if self.guided > 0:
            nothing = [block for block, found in channels.items() if not found]
            if nothing:
                yield (
                    f"no massive channel at block {', '.join(map(str, nothing))}: no channel exceeds "
                    f"{self.settings.options.massive_ratio:g} times the median. Choose other layers, lower "
                    "massive_ratio, or list the channels."
                )


class Step:
    """One guided step: asks for the detail prediction beside the conditional one."""

    def __init__(self, run: Run, shape: torch.Size, keep: float):
        self.run = run
        self.shape = shape
        self.keep = keep
        self.cond: Tensor | None = None
        self.disrupted: Tensor | None = None
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
        if index is None or self.disrupted is not None:  # another pack's own call
            return executor(model, conds, x, timestep, model_options)
        if x.shape != self.shape:
            raise ValueError(
                f"Detail Guidance cannot work in parts of the latent: it was asked for {tuple(x.shape)} of "
                f"{tuple(self.shape)}. Remove the context windows, or remove Detail Guidance."
            )
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
        if not self.fired and self.run.fired == 0 and out[index].any():  # all zero where no positive is active yet
            raise RuntimeError(
                f"Detail Guidance had no effect: {type(self.run.diffusion_model).__name__} ran without calling its "
                "block patches, so nothing could be disrupted. The engine that loaded this model ignores them: load "
                "the model with ComfyUI's own loader, or remove Detail Guidance."
            )
        self.run.together = self.together
        self.cond, self.disrupted = out[index].clone(), disrupted  # pre-CFG functions may write into theirs
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
        patches = self._patches(chunks_of(transformer_options, len(x)))
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
            chunk.uuid: chunk
            for chunk in chunks
            if chunk.index == self.index and chunk.uuid in self.partner.values()
        }
        if not detail:
            return {} if self.together else recording(todo, list(conditional.values()), self.records)
        partners = [self.partner[chunk.uuid] for chunk in detail]
        if all(uuid in conditional for uuid in partners):
            return sharing(todo, chunks, {c: conditional[uuid] for c, uuid in zip(detail, partners, strict=True)})
        if all(uuid in self.records for uuid in partners) and len(detail) == len(chunks):
            return resuming(todo, [(c, self.records[uuid]) for c, uuid in zip(detail, partners, strict=True)])
        self.separated = True
        return {}


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


def _mask_like(mask: Tensor, x: Tensor) -> Tensor:
    """A mask (pictures, height, width) for latents (pictures, channels, …, height, width)."""
    resized = torch.nn.functional.interpolate(mask.unsqueeze(1), x.shape[-2:], mode="bilinear").to(x)
    return repeat_to_batch_size(resized, len(x)).view(len(x), *[1] * (x.ndim - 3), *x.shape[-2:])


def _true_indices(masks: list[Tensor]) -> list[int]:
    """Channels that any of the masks holds; the only place that waits for the device."""
    if not masks:
        return []
    return torch.stack([mask.cpu() for mask in masks]).any(dim=0).nonzero().flatten().tolist()
