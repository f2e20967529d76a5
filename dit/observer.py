"""Observing one sampling run: what stands at each block's input, without changing anything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from .anatomy import anatomy_of
from .family import Block, Key, Order, Stage
from .forward import Args, Batch, Inner, Patch, chunks_of, patched
from .rows import copied
from .run import Wrappers, on_run
from .token_layout import checked, token_layout

KEY = "detail_guidance.observer"


@dataclass(frozen=True)
class BlockInput:
    """What one block is given at one step, of the positive conditioning. Views: to be looked at, not kept.

    Attributes:
        step: number of the step in the run, from 0.
        image: image tokens, (pictures, tokens, …, channels).
        text: the text's tokens, (pictures, tokens, channels); None where they cannot be told apart.
        latent: shape of the forward's latent, (rows, channels, …, height, width): of a part of the picture where a
            condition has an area.
        modulation: makes AdaLN's numbers, (pictures, branches, 3, channels): shift, scale and residual gate α, the
            attention's branch first; None where the family has none in its blocks.
    """

    step: int
    image: Tensor
    text: Tensor | None
    latent: torch.Size
    modulation: Callable[[], Tensor | None]


class Observer(Protocol):
    """Something that observes a sampling run.

    Attributes:
        sigmas: noise level of each step so far; the run adds to it.
    """

    sigmas: list[float]

    def on_block(self, number: int, given: BlockInput) -> None:
        """Called for every block of the first forward of each step with the positive conditioning in it."""


def observed(model: ModelPatcher, observer: Observer, last: int | None = None) -> ModelPatcher:
    """A clone of the model whose sampling runs the observer sees.

    Args:
        last: number of the last block whose input is wanted: that block and those behind it are not computed, and what
            is sampled is worth nothing. All are computed without it.

    Raises:
        ValueError: no row of the family table fits the model.
    """
    anatomy = anatomy_of(model)
    family, blocks = anatomy.family, anatomy.blocks

    @contextmanager
    def start(guider: CFGGuider) -> Iterator[Wrappers]:
        positive = {cond["uuid"] for cond in guider.conds["positive"]}
        seen: set[int] = set()  # steps
        orders: dict[str, Order] = {}  # that the streams have shown

        def predict_noise(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            observer.sigmas.append(float(timestep.max()))
            return executor(x, timestep, *args, **kwargs)

        def patches_for(batch: Batch) -> dict[Key, Patch] | None:
            chunks = chunks_of(batch.transformer_options, batch.latent[0] // len(batch.transformer_options["uuids"]))
            rows = [chunk.rows for chunk in chunks if chunk.uuid in positive and chunk.index == 0]
            step = len(observer.sigmas) - 1
            if not rows or step in seen:
                return None if last is None else {block.key: _passing(block, blocks) for block in blocks}
            seen.add(step)
            layout = token_layout(family, anatomy.network, batch.latent, batch.conditions, orders)

            def observing(number: int, block: Block) -> Patch:
                stage = block.stage
                passing = None if last is None or number < last else _passing(block, blocks)
                if last is not None and number > last:
                    return _passing(block, blocks)

                def patch(args: Args, inner: Inner) -> Args:
                    orders.update(layout.orders)
                    image = layout.image_tokens(stage, args, rows[0])
                    text = layout.text_tokens(stage, args, rows[0])
                    observer.on_block(number, BlockInput(step, image, text, batch.latent, modulation_of(args)))
                    return inner(args) if passing is None else passing(args, inner)

                def modulation_of(args: Args) -> Callable[[], Tensor | None]:
                    def modulation() -> Tensor | None:
                        if stage.modulation is None:
                            return None
                        made = stage.modulation(anatomy.block(number), args)
                        return None if made is None else made[rows[0]]

                    return modulation

                return patch

            patches = {number: observing(number, block) for number, block in enumerate(blocks)}
            patches = checked(patches, blocks, layout, lambda args, stage: rows[0], last)
            return {blocks[number].key: patch for number, patch in patches.items()}

        yield {WrappersMP.PREDICT_NOISE: predict_noise, WrappersMP.APPLY_MODEL: patched(patches_for)}

    return on_run(model, KEY, start)


def _passing(block: Block, blocks: tuple[Block, ...]) -> Patch:
    """A block patch that computes nothing: what comes in goes out."""
    # Hosts may keep the first block's input, and write into what it returns.
    handed = copied if block is blocks[0] else _same
    stage: Stage = block.stage

    def patch(args: Args, inner: Inner) -> Args:
        return {name: handed(args[name]) for name in stage.hidden_states}

    return patch


def _same(value: Any) -> Any:
    return value
