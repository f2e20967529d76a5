"""Reading, at each step of a sampling run, which part of the picture is meant."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import Any
from uuid import UUID

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import CFGGuider
from torch import Tensor
from torch.nn.functional import interpolate

from ...dit import block_hooks
from ...dit.branch.request import index_of
from ...dit.families import Anatomy, anatomy
from ...dit.forward import Batch, Patch, patched
from ...dit.token_layout import Key, Order
from .attention import reading_words, words_block
from .foreground import nearness
from .largest_channels import reading_foreground
from .masks import Region
from .words import Words

KEY = "detail_guidance.words"
CONDITION = "detail_guidance_words"  # of a condition: which prompt it is of
NOTHING = (
    "words: nothing was read. The engine that loaded this model, or another node, does not let its blocks be seen: "
    "load the model with ComfyUI's own loader, or remove that node."
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
            with watch.reading(guider.conds["positive"], x.shape):
                predicted = executor(x, *args, **kwargs)
            maps = watch.taken()
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
    elif not of_model.family.told:
        raise ValueError(
            f"words: {of_model.family.name} does not tell its blocks whose rows they are given, so that its foreground "
            "cannot be read. Use a mask."
        )


def require_prompt(region: Region, positive: Iterable[Mapping[str, Any]]) -> None:
    """
    Args:
        positive: conditions, as the host's or what they have beside the prompt.

    Raises:
        ValueError: none of them is of the words' prompt.
    """
    if not any(_is_meant(region, cond) for cond in positive):
        raise ValueError("words: the positive is of another prompt. Connect Prompt Words' own conditioning to it.")


class RegionWatch:
    """Collects what is read in one sampling run, step by step.

    Attributes:
        meant: ids of the conditions that are read in the last step.
    """

    def __init__(self, region: Region, of_model: Anatomy) -> None:
        self.region, self.of_model = region, of_model
        self.meant: frozenset[UUID] = frozenset()
        self._step: _Step | None = None  # that is being read
        self._seen: dict[UUID, Tensor] = {}
        self._orders: dict[str, Order] | None = None  # of kinds of blocks, as the run's first forward has shown them

    def install(self, model_options: dict[str, Any]) -> None:
        """Hook into a run's forwards."""

        def calc_cond_batch(executor: Any, model: Any, conds: list[Any], x: Tensor, *args: Any) -> list[Tensor]:
            if self._step is not None:
                if x[0].numel() < self._step.latent[1:].numel():
                    raise ValueError("words: they cannot be read in context windows. Remove the node that sets them.")
                self._step.index = index_of(self._step.positive, conds)
            return executor(model, conds, x, *args)

        for kind, wrapper in (
            (WrappersMP.CALC_COND_BATCH, calc_cond_batch),
            (WrappersMP.APPLY_MODEL, patched(self._patches_for)),
        ):
            add_wrapper_with_key(kind, KEY, wrapper, model_options, is_model_options=True)

    @contextmanager
    def reading(self, positive: Sequence[dict[str, Any]], latent: torch.Size) -> Iterator[None]:
        """While it lasts, a step's forwards are read. Of a latent that the host cuts, they raise a ValueError.

        Args:
            positive: what the host has made of the guider's conditions.

        Raises:
            ValueError: none of them has the words.
        """
        if positive:  # a guider may have none
            require_prompt(self.region, positive)
        conditions = {cond["uuid"]: cond for cond in positive if _is_meant(self.region, cond)}
        self.meant, self._seen = frozenset(conditions), {}
        self._step = _Step([cond["uuid"] for cond in positive], conditions, latent)
        try:
            yield
        finally:
            self._step = None

    def taken(self) -> Tensor | None:
        """What the last step has shown: float32 maps (pictures, regions + 1, …, height, width) of the latent's size, of
        each region and of the rest; of several positive conditions the largest, and nothing outside their areas. None
        where nothing was computed, or the positive is not active."""
        seen, self._seen = [*self._seen.values()], {}
        # The host may compute conditions on several devices.
        return reduce(lambda one, other: torch.maximum(one, other.to(one.device)), seen) if seen else None

    def _patches_for(self, batch: Batch) -> dict[Key, Patch] | None:
        step, region, of_model = self._step, self.region, self.of_model
        if step is None:
            return None
        # Other nodes ask for the positive once more, disturbed: the first answer counts.
        wanted = step.conditions.keys() - self._seen.keys()
        if wanted.isdisjoint(batch.transformer_options["uuids"]):
            return None
        follow, orders = self._orders is None, self._orders or {}
        reading = of_model.family.reading(of_model.network, batch.latent, batch.conditions, orders)

        def shown(uuid: UUID, index: int, values: Tensor) -> None:
            if index == step.index:  # for areas, the host gives the negative a copy of the positive's condition
                self._orders = reading.orders
                maps = self._over_the_latent(values, batch.latent)
                self._seen[uuid] = _in_its_area(maps, step.conditions[uuid], step.latent)

        if isinstance(region, Words):
            return reading_words(region, of_model, batch, reading, wanted, shown)
        return reading_foreground(region, of_model, reading, wanted, shown, follow)

    def _over_the_latent(self, values: Tensor, latent: torch.Size) -> Tensor:
        """Values of tokens (pictures, maps, tokens) as maps of a latent's height and width."""
        grid = self._grid(values.shape[-1], latent)
        maps = values.unflatten(-1, grid)
        if not isinstance(self.region, Words):
            maps = nearness(maps)
        # Tokens that reach beyond the latent's end are padding there.
        height, width = latent[-2:]
        tall, wide = ceil(height / grid[-2]) * grid[-2], ceil(width / grid[-1]) * grid[-1]
        single = maps.flatten(0, -3)[:, None]
        large = interpolate(single, (tall, wide), mode="bilinear", align_corners=False)[..., :height, :width]
        return large.reshape(*maps.shape[:-2], height, width)

    def _grid(self, tokens: int, latent: torch.Size) -> tuple[int, ...]:
        try:
            return self.of_model.grid(tokens, latent)
        except ValueError as error:
            raise ValueError(
                f"words: {self.of_model.family.name} leaves tokens out of this picture, so where the others lie cannot "
                "be told. Remove the mask or guide of its frames, or use a mask in place of words."
            ) from error


@dataclass
class _Step:
    """
    Attributes:
        positive: ids of all positive conditions.
        conditions: those that are read.
        latent: the whole one's shape.
        index: of the positive in the host's list, in its last call.
    """

    positive: list[UUID]
    conditions: dict[UUID, dict[str, Any]]
    latent: torch.Size
    index: int | None = None


def _is_meant(region: Region, cond: Mapping[str, Any]) -> bool:
    return not isinstance(region, Words) or cond.get(CONDITION) == region.prompt


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
