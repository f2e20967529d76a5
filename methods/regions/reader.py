"""Reading, in each step of a sampling run, where a region is in the picture: words by attention, the foreground by the
largest channels. The model computes what it would compute anyway, and the pictures stay the same to the bit."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import Any
from uuid import UUID

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor
from torch.nn.functional import interpolate

from ...dit import (
    Anatomy,
    Args,
    AttentionCall,
    Batch,
    Inner,
    Patch,
    TokenLayout,
    Wrappers,
    anatomy_of,
    attention_patch,
    by_key,
    checked,
    chunks_of,
    on_run,
    patched,
    token_layout,
)
from ...dit.branch.request import index_of
from ...dit.family import Key, Order, Stage
from ..common.layers import block_at
from .foreground import Foreground, largest_channels, nearness
from .masks import Region
from .words import Words, word_attention

KEY = "detail_guidance.words"
CONDITION = "detail_guidance_words"  # of a condition: which prompt it is of
MIDDLE = 0.4  # of the depth, where no block of the family was published: about where those of SD3 and FLUX.1 are
NOTHING = (
    "words: nothing was read. The engine that loaded this model, or another node, does not let its blocks be seen: "
    "load the model with ComfyUI's own loader, or remove that node."
)

# Called with a condition's id, its group's index, and values over the image tokens, (pictures, maps, tokens).
OnRead = Callable[[UUID, int, Tensor], None]


def read_each_step(model: ModelPatcher, region: Region, on_maps: Callable[[Tensor], object]) -> ModelPatcher:
    """A clone of the model that reads a region in each step of sampling.

    Args:
        on_maps: called after a step with what `RegionReader.taken` returns.

    Raises:
        ValueError: the region cannot be read on this model.
    """
    anatomy = anatomy_of(model)
    require_readable(region, anatomy)

    @contextmanager
    def start(guider: CFGGuider) -> Iterator[Wrappers]:
        reader = RegionReader(region, anatomy)

        def predict_noise(executor: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            with reader.reading(guider.conds["positive"], x.shape):
                predicted = executor(x, *args, **kwargs)
            maps = reader.taken()
            if maps is not None:
                on_maps(maps)
            return predicted

        yield {**reader.wrappers, WrappersMP.PREDICT_NOISE: predict_noise}

    return on_run(model, KEY, start)


def require_readable(region: Region, anatomy: Anatomy) -> None:
    """Refuse a region that cannot be read on a model.

    Raises:
        ValueError: the family does not say where its attention has the prompt, or whose rows its blocks have.
    """
    if isinstance(region, Words):
        grounding_block(region, anatomy)
    elif not anatomy.family.has_transformer_options:
        raise ValueError(
            f"words: {anatomy.family.name} does not tell its blocks whose rows they are given, so that its foreground "
            "cannot be read. Use a mask."
        )


def require_prompt(region: Region, positive: Iterable[Mapping[str, Any]]) -> None:
    """Refuse conditions of another prompt than the words'.

    Args:
        positive: conditions, as the host's or what they have beside the prompt.

    Raises:
        ValueError: none of them is of the words' prompt.
    """
    if not any(_is_meant(region, cond) for cond in positive):
        raise ValueError(
            "words: the positive is of another prompt. Connect Detail Prompt Words' own conditioning to it."
        )


def grounding_block(words: Words, anatomy: Anatomy) -> int:
    """The number of the block whose attention to the words is read: the user's layer, or the family's published block,
    or the readable one nearest to the middle.

    Raises:
        ValueError: the block's attention to the prompt cannot be read.
    """
    blocks, family = anatomy.blocks, anatomy.family
    readable = [at for at, block in enumerate(blocks) if block.stage.prompt_keys is not None]
    if not readable:
        raise ValueError(f"words: {family.name} does not tell its attention to the prompt. Use a mask.")
    if words.layer is None:
        published = family.word_grounding_block
        if published is not None and published < len(blocks) and blocks[published].stage is blocks[0].stage:
            return published
        return min(readable, key=lambda at: abs(at - MIDDLE * len(blocks)))
    number = block_at(words.layer, len(blocks))
    if number not in readable:
        raise ValueError(
            f"layer: {words.layer:g} is block {number}, whose attention to the prompt {family.name} does not tell. Set "
            f"it to at most {(readable[-1] + 0.5) / len(blocks):.2f}, or to 0."
        )
    return number


class RegionReader:
    """Collects what is read in one sampling run, step by step.

    Attributes:
        wrappers: the run's wrappers by the host's kinds.
        meant: ids of the conditions that are read in the last step.
    """

    def __init__(self, region: Region, anatomy: Anatomy) -> None:
        self.region, self.anatomy = region, anatomy
        self.meant: frozenset[UUID] = frozenset()
        self._step: _Step | None = None  # that is being read
        self._seen: dict[UUID, Tensor] = {}
        self._orders: dict[str, Order] | None = None  # as the run's first forward has shown them
        self.wrappers: Wrappers = {
            WrappersMP.CALC_COND_BATCH: self._calc_cond_batch,
            WrappersMP.APPLY_MODEL: patched(self._patches_for),
        }

    def _calc_cond_batch(self, executor: Any, model: Any, conds: list[Any], x: Tensor, *args: Any) -> list[Tensor]:
        if self._step is not None:
            if x[0].numel() < self._step.latent[1:].numel():
                raise ValueError("words: they cannot be read in context windows. Remove the node that sets them.")
            self._step.index = index_of(self._step.positive, conds)
        return executor(model, conds, x, *args)

    @contextmanager
    def reading(self, positive: Sequence[dict[str, Any]], latent: torch.Size) -> Iterator[None]:
        """While it lasts, a step's forwards are read; of a latent that the host cuts, they raise a ValueError.

        Args:
            positive: the guider's positive conditions, as the host has made them.

        Raises:
            ValueError: none of them is of the words' prompt.
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
        each region and last of the rest; of several positive conditions the largest, and nothing outside their areas.
        None where nothing was computed, or the positive is not active."""
        seen, self._seen = [*self._seen.values()], {}
        # The host may compute conditions on several devices.
        return reduce(lambda one, other: torch.maximum(one, other.to(one.device)), seen) if seen else None

    def _patches_for(self, batch: Batch) -> dict[Key, Patch] | None:
        step, region, anatomy = self._step, self.region, self.anatomy
        if step is None:
            return None
        # Other nodes ask for the positive once more, disturbed: the first answer counts.
        wanted = step.conditions.keys() - self._seen.keys()
        if wanted.isdisjoint(batch.transformer_options["uuids"]):
            return None
        layout = token_layout(anatomy.family, anatomy.network, batch.latent, batch.conditions, self._orders or {})

        def on_read(uuid: UUID, index: int, values: Tensor) -> None:
            if index == step.index:  # for areas, the host gives the negative a copy of the positive's condition
                self._orders = layout.orders
                maps = self._over_the_latent(values, batch.latent)
                self._seen[uuid] = _in_its_area(maps, step.conditions[uuid], step.latent)

        compare_order = self._orders is None  # it waits for the device: once a run is enough
        if isinstance(region, Words):
            return words_patches(region, anatomy, batch, layout, wanted, on_read, compare_order)
        return foreground_patches(region, anatomy, layout, wanted, on_read, compare_order)

    def _over_the_latent(self, values: Tensor, latent: torch.Size) -> Tensor:
        """Values of tokens (pictures, maps, tokens) as maps of a latent's height and width."""
        grid = self._grid(values.shape[-1], latent)
        maps = values.unflatten(-1, grid)
        if isinstance(self.region, Foreground):
            maps = nearness(maps)
        # Tokens that reach beyond the latent's end are padding there.
        height, width = latent[-2:]
        tall, wide = ceil(height / grid[-2]) * grid[-2], ceil(width / grid[-1]) * grid[-1]
        single = maps.flatten(0, -3)[:, None]
        large = interpolate(single, (tall, wide), mode="bilinear", align_corners=False)[..., :height, :width]
        return large.reshape(*maps.shape[:-2], height, width)

    def _grid(self, tokens: int, latent: torch.Size) -> tuple[int, ...]:
        try:
            return self.anatomy.token_grid(tokens, latent)
        except ValueError as error:
            raise ValueError(
                f"words: {self.anatomy.family.name} leaves tokens out of this picture, so where the others lie cannot "
                "be told. Remove the mask or guide of its frames, or use a mask in place of words."
            ) from error


def words_patches(
    words: Words,
    anatomy: Anatomy,
    batch: Batch,
    layout: TokenLayout,
    wanted: Collection[UUID],
    on_read: OnRead,
    compare_order: bool,
) -> dict[Key, Patch]:
    """Block patches that read how much attention each image token gives to each word, for every wanted condition of a
    forward.

    Args:
        compare_order: compare the order of the streams with the table on the way.

    Raises:
        ValueError: the words are of another prompt, or of a block whose attention cannot be read.
        UnknownLayout: inside the forward, where the streams are not what the table says.
    """
    number = grounding_block(words, anatomy)
    length = batch.conditions["context"].shape[1]
    prompt_comes_last = anatomy.family.prompt_comes_last(anatomy.network)

    def read(call: AttentionCall) -> None:
        if call.slices is None:
            return
        places = _keys_of(words, call.slices.prompt, length, prompt_comes_last)
        for chunk, (uuid, index) in enumerate(zip(call.uuids, call.indices, strict=True)):
            if uuid in wanted:
                rows, image = call.rows_of_chunk(chunk), call.slices.image
                mask = call.mask_of(rows, image)
                on_read(uuid, index, word_attention(call.q[rows, :, image], call.k[rows], places, call.scale, mask))

    patches = {number: attention_patch(anatomy, number, layout, batch, read)}
    return _checked(patches, anatomy, layout, wanted, number, compare_order)


def foreground_patches(
    region: Foreground,
    anatomy: Anatomy,
    layout: TokenLayout,
    wanted: Collection[UUID],
    on_read: OnRead,
    compare_order: bool,
) -> dict[Key, Patch]:
    """Block patches that read the largest channels' values at one block's input, for every wanted condition of a
    forward; arguments and errors as of `words_patches`."""
    number = block_at(region.layer, len(anatomy.blocks))
    stage = anatomy.blocks[number].stage

    def read(args: Args, inner: Inner) -> Args:
        for rows, key in _wanted_rows(args, stage, wanted):
            tokens = layout.image_tokens(stage, args, rows)
            on_read(*key, largest_channels(tokens.flatten(1, -2), region.channels))
        return inner(args)

    return _checked({number: read}, anatomy, layout, wanted, number, compare_order)


def _checked(
    patches: dict[int, Patch],
    anatomy: Anatomy,
    layout: TokenLayout,
    wanted: Collection[UUID],
    last: int,
    compare_order: bool,
) -> dict[Key, Patch]:
    def rows_of(args: Args, stage: Stage) -> slice | None:
        return next((rows for rows, _ in _wanted_rows(args, stage, wanted)), None)

    return by_key(checked(patches, anatomy.blocks, layout, rows_of if compare_order else None, last), anatomy.blocks)


def _wanted_rows(args: Args, stage: Stage, wanted: Collection[UUID]) -> list[tuple[slice, tuple[UUID, int]]]:
    """Rows and keys of the chunks of wanted conditions, by what this block is told: another patch may have taken rows
    out. None where the family tells its blocks nothing."""
    options = args.get("transformer_options")
    if options is None:
        return []
    rows_each = stage.image_stream(args, slice(None)).shape[0] // len(options["uuids"])
    return [(chunk.rows, chunk.key) for chunk in chunks_of(options, rows_each) if chunk.uuid in wanted]


def _keys_of(words: Words, prompt: slice, length: int, comes_last: bool) -> list[list[int]]:
    """The keys of each word's tokens.

    Args:
        prompt: the text's keys.
        length: tokens of the prompt that the model is given.
        comes_last: other tokens stand before the prompt's, and not behind them.
    """
    there = prompt.stop - prompt.start
    if there < words.length or (there != length and not comes_last):
        raise ValueError(
            f"words: their prompt has {words.length} tokens, and this block is given {there} of {length}: where the "
            "words are among them is not known. Remove what adds other tokens to the prompt."
        )
    first = prompt.start + (there - words.length if comes_last else 0)
    return [[first + token for token in tokens] for tokens in words.places]


@dataclass
class _Step:
    """A step that is being read.

    Attributes:
        positive: ids of all positive conditions.
        conditions: id → condition, of those that are read.
        latent: shape of the whole latent.
        index: place of the positive in the host's list, in its last call.
    """

    positive: list[UUID]
    conditions: dict[UUID, dict[str, Any]]
    latent: torch.Size
    index: int | None = None


def _is_meant(region: Region, cond: Mapping[str, Any]) -> bool:
    return not isinstance(region, Words) or cond.get(CONDITION) == region.prompt


def _in_its_area(maps: Tensor, cond: dict[str, Any], latent: torch.Size) -> Tensor:
    """A condition's maps over the whole latent: nothing outside its area or mask."""
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
