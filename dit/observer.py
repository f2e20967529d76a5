"""Watching one sampling run: what stands at each block's input, without changing anything."""

from collections.abc import Callable
from typing import Any, Protocol

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import CFGGuider
from torch import Tensor

from ..methods.detail_guidance.patch import without
from ..methods.massive_activations.recording import Sight
from . import block_hooks
from .families import anatomy
from .forward import Args, Batch, Chunk, Inner, Patch, patched
from .rows import copied
from .token_layout import Block, Key, Order, Reading, Stage

KEY = "massive_activation_probe"


class Watcher(Protocol):
    """Something that watches a sampling run.

    Attributes:
        sigmas: noise level of each step so far; the run adds to it.
    """

    sigmas: list[float]

    def see(self, block: int, sight: Sight) -> None:
        """Told of every block of the first forward of each step with the positive conditioning in it."""


def watched(model: ModelPatcher, watcher: Watcher, last: int | None = None) -> ModelPatcher:
    """A clone of the model, without Detail Guidance, that samples under the watcher's eyes.

    Args:
        last: the block whose input is all that is wanted: it and those behind it are not computed, and what is sampled
            is worth nothing.

    Raises:
        ValueError: no row of the family table fits the model.
    """
    of_model = anatomy(model)
    family = of_model.family
    clone = without(model, family)
    block_hooks.install(clone, family)

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider: CFGGuider = executor.class_obj
        positive = {cond["uuid"] for cond in guider.conds["positive"]}
        seen: set[int] = set()  # steps
        orders: dict[str, Order] = {}  # that the streams have shown

        def predict_noise(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            watcher.sigmas.append(float(timestep.max()))
            return executor(x, timestep, *args, **kwargs)

        def passing(block: Block) -> Patch:
            return _passing(block.stage, copied if block is of_model.blocks[0] else lambda stream: stream)

        def patches_for(batch: Batch) -> dict[Key, Patch] | None:
            chunks = batch.chunks(rows_each=batch.latent[0] // len(batch.transformer_options["uuids"]))
            shown = [chunk for chunk in chunks if chunk.uuid in positive and chunk.index == 0]
            step = len(watcher.sigmas) - 1
            if not shown or step in seen:
                return None if last is None else {block.key: passing(block) for block in of_model.blocks}
            seen.add(step)
            reading = family.reading(of_model.network, batch.latent, batch.conditions, orders)

            def patch_of(number: int, block: Block) -> Patch:
                if last is not None and number > last:
                    return passing(block)
                inner = passing(block) if number == last else None
                return _showing(watcher, number, block, of_model.network, reading, shown[0], step, orders, inner)

            return {block.key: patch_of(number, block) for number, block in enumerate(of_model.blocks)}

        options = guider.model_options
        add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise, options, is_model_options=True)
        add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, patched(patches_for), options, is_model_options=True)
        return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    return clone


def _passing(stage: Stage, handed: Callable[[Any], Any]) -> Patch:
    """A block patch in whose place nothing is computed: what comes in goes out. `handed`: hosts may keep the first
    block's input, and write into what it returns."""

    def patch(args: Args, inner: Inner) -> Args:
        return {name: handed(args[name]) for name in stage.streams}

    return patch


def _showing(
    watcher: Watcher,
    number: int,
    block: Block,
    network: Any,
    reading: Reading,
    chunk: Chunk,
    step: int,
    orders: dict[str, Order],
    instead: Patch | None,
) -> Patch:
    """A block patch that shows what a block is given and changes nothing, unless another patch is to run instead."""
    stage, rows = block.stage, chunk.rows

    def show(args: Args, inner: Inner) -> Args:
        if block.first:
            reading.count(block, args)
            reading.follow(block, args, rows)
            orders.update(reading.orders)
        picture = reading.picture(stage, args, rows)
        watcher.see(number, Sight(step, picture, reading.text_of(stage, args, rows), lambda: modulation(args)))
        if instead is not None:
            return instead(args, inner)
        out = inner(args)
        if block.last:
            reading.leave(block, out, rows)
        return out

    def modulation(args: Args) -> Tensor | None:
        if stage.modulation is None:
            return None
        made = stage.modulation(stage.block_in(network, block.key[1]), args)
        return None if made is None else made[rows]

    return show
