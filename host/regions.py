"""Reading, at each step of a sampling run, which part of the picture is meant."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any
from uuid import UUID

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import CFGGuider
from torch import Tensor
from torch.nn.functional import interpolate

from ..detail_guidance.foreground import nearness
from ..detail_guidance.regions import Region
from ..detail_guidance.words import Words
from ..instruments.recording import grid_of
from . import block_hooks
from .families import Anatomy, anatomy
from .foreground import reading_foreground
from .forward import Batch, Patch, patched
from .layout import Key, Order, grid_in
from .words import reading_words, words_block

KEY = "detail_guidance.words"
CONDITION = "detail_guidance_words"  # of a condition: which prompt it is of
NOTHING = (
    "words: nothing was read. The engine that loaded this model, or another node, keeps its attention to itself: load "
    "the model with ComfyUI's own loader, or remove that node."
)


def watched_region(model: ModelPatcher, region: Region, see: Callable[[Tensor], object]) -> ModelPatcher:
    """A clone of the model that shows, after each step of sampling, what was read of it.

    Args:
        see: given what `RegionWatch.taken` returns.

    Raises:
        ValueError: it cannot be read on this model.
    """
    of_model = anatomy(model)
    require_readable(region, of_model)
    clone = model.clone()
    block_hooks.install(clone, of_model.family)

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider: CFGGuider = executor.class_obj
        watch = RegionWatch(region, of_model)
        watch.install(guider.model_options)

        def predict_noise(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            watch.begin(guider.conds["positive"], guider.model_options)
            predicted = executor(x, *args, **kwargs)
            maps = watch.taken(x.shape)
            if maps is not None:
                see(maps)
            return predicted

        add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise, guider.model_options, is_model_options=True)
        return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    return clone


def require_readable(region: Region, of_model: Anatomy) -> None:
    """
    Raises:
        ValueError: it cannot be read on this model.
    """
    if isinstance(region, Words):
        words_block(region, of_model)


class RegionWatch:
    """Collects what is read in one sampling run, between the beginning of a step and its end."""

    def __init__(self, region: Region, of_model: Anatomy) -> None:
        self.region, self.of_model = region, of_model
        self.conditions: dict[UUID, dict[str, Any]] = {}  # that are read in this step
        self.seen: list[tuple[UUID, Tensor]] = []
        self.orders: dict[str, Order] | None = None  # of kinds of blocks, as the run's first forward has shown them

    def install(self, model_options: dict[str, Any]) -> None:
        """Hook into a run's forwards."""
        add_wrapper_with_key(
            WrappersMP.APPLY_MODEL, KEY, patched(self._patches_for), model_options, is_model_options=True
        )

    def begin(self, positive: Sequence[dict[str, Any]], options: dict[str, Any]) -> None:
        """At the beginning of a step: what the host has made of the guider's conditions.

        Raises:
            ValueError: none of them has the words, or the host cuts the latent.
        """
        if options.get("context_handler") is not None:
            raise ValueError("words: they cannot be read in context windows. Remove the node that sets them.")
        self.seen = []
        self.conditions = {cond["uuid"]: cond for cond in positive if self._is_meant(cond)}
        if not self.conditions:
            raise ValueError("words: the positive is of another prompt. Connect Prompt Words' own conditioning to it.")

    def taken(self, latent: torch.Size) -> Tensor | None:
        """At the end of a step, what it has shown: float32 maps (pictures, regions + 1, …, height, width) of the
        latent's size, of each region and of the rest; of several positive conditions the largest, and nothing outside
        their areas. None where nothing was computed, or the positive is not active."""
        seen, conditions, self.seen, self.conditions = self.seen, self.conditions, [], {}
        whole: Tensor | None = None
        for uuid, maps in seen:
            maps = _in_its_area(maps, conditions[uuid], latent)
            whole = maps if whole is None else torch.maximum(whole, maps)
        return whole

    def _is_meant(self, cond: dict[str, Any]) -> bool:
        return not isinstance(self.region, Words) or cond.get(CONDITION) == self.region.prompt

    def _patches_for(self, batch: Batch) -> dict[Key, Patch] | None:
        if not self.conditions:
            return None
        region, of_model = self.region, self.of_model
        follow, orders = self.orders is None, self.orders or {}
        reading = of_model.family.reading(of_model.network, batch.latent, batch.conditions, orders)

        def shown(uuid: UUID, index: int, values: Tensor) -> None:
            if index == 0:  # for areas, the host gives the negative a copy of the positive's condition
                self.orders = reading.orders
                self.seen.append((uuid, self._over_the_latent(values, batch.latent)))

        if isinstance(region, Words):
            return reading_words(region, of_model, batch, reading, self.conditions, shown)
        return reading_foreground(region, of_model, reading, self.conditions, shown, follow)

    def _over_the_latent(self, values: Tensor, latent: torch.Size) -> Tensor:
        """Values of tokens (pictures, maps, tokens) as maps of a latent's height and width."""
        patch = self.of_model.family.patch
        grid = grid_of(values.shape[-1], latent) if patch is None else grid_in(latent, patch(self.of_model.network))
        maps = values.unflatten(-1, grid)
        if not isinstance(self.region, Words):
            maps = nearness(maps)
        # Tokens that reach beyond the latent's end are padding there.
        height, width = latent[-2:]
        tall, wide = ceil(height / grid[-2]) * grid[-2], ceil(width / grid[-1]) * grid[-1]
        single = maps.flatten(0, -3)[:, None]
        large = interpolate(single, (tall, wide), mode="bilinear", align_corners=False)[..., :height, :width]
        return large.reshape(*maps.shape[:-2], height, width)


def _in_its_area(maps: Tensor, cond: dict[str, Any], latent: torch.Size) -> Tensor:
    area, mask = cond.get("area"), cond.get("mask")
    if area is not None:  # sides, then places; a video's frames before each
        height, width = area[len(area) // 2 - 2 : len(area) // 2]
        top, left = area[-2:]
        canvas = maps.new_zeros(*maps.shape[:-2], *latent[-2:])
        canvas[..., top : top + height, left : left + width] = maps
        maps = canvas
    if mask is not None:
        resized = interpolate(mask.flatten(0, -3)[:, None].float(), latent[-2:], mode="bilinear")
        maps = maps * resized[:1].to(maps)
    return maps
