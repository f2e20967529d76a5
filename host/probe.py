"""Watching one sampling run: what stands at each block's input, without changing anything."""

from typing import Any, Protocol

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import CFGGuider
from torch import Tensor

from ..detail_guidance.recording import Sight
from . import block_hooks
from .block_patches import Args, Inner, Patch, chained, chunks_of, picture
from .families import Block, Layout, family_of, network
from .patch import without
from .step import uncompiled

KEY = "massive_activation_probe"


class Watcher(Protocol):
    """Something that watches a sampling run.

    Attributes:
        sigmas: noise level of each step so far; the run adds to it.
    """

    sigmas: list[float]

    def see(self, block: int, sight: Sight) -> None:
        """Told of every block of the first forward of each step with the positive conditioning in it."""


def describe(model: ModelPatcher) -> tuple[str, list[str]]:
    """The model's family and the names of its blocks, in execution order.

    Raises:
        ValueError: no row of the family table fits the model.
    """
    diffusion_model = network(model.get_model_object("diffusion_model"))
    family = family_of(diffusion_model)
    return family.name, [block.name for block in family.blocks(diffusion_model)]


def watched(model: ModelPatcher, watcher: Watcher) -> ModelPatcher:
    """A clone of the model, without Detail Guidance, that samples under the watcher's eyes."""
    diffusion_model = network(model.get_model_object("diffusion_model"))
    family = family_of(diffusion_model)
    blocks = family.blocks(diffusion_model)
    clone = without(model, family)
    block_hooks.install(clone, family)

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider: CFGGuider = executor.class_obj
        positive = {cond["uuid"] for cond in guider.conds["positive"]}
        seen: set[int] = set()  # steps

        def predict_noise(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            watcher.sigmas.append(float(timestep.max()))
            return executor(x, timestep, *args, **kwargs)

        def apply_model(
            executor: Any,
            x: Tensor,
            t: Tensor,
            c_concat: Any = None,
            c_crossattn: Any = None,
            control: Any = None,
            transformer_options: dict[str, Any] = {},
            **kwargs: Any,
        ) -> Tensor:
            chunks = chunks_of(transformer_options, rows_each=len(x) // len(transformer_options["uuids"]))
            rows = [chunk.rows for chunk in chunks if chunk.uuid in positive and chunk.index == 0]
            step = len(watcher.sigmas) - 1
            if not rows or step in seen:
                return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
            seen.add(step)
            layout = family.layout(diffusion_model, x.shape, kwargs)
            patches = {
                block.key: _showing(watcher, number, block, diffusion_model, layout, rows[0], step)
                for number, block in enumerate(blocks)
            }
            options = chained(transformer_options, patches)
            with block_hooks.replacing(options), uncompiled(executor.class_obj):
                return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

        options = guider.model_options
        add_wrapper_with_key(WrappersMP.PREDICT_NOISE, KEY, predict_noise, options, is_model_options=True)
        add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, apply_model, options, is_model_options=True)
        return executor(*args, **kwargs)

    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, outer_sample)
    return clone


def _showing(watcher: Watcher, number: int, block: Block, model: Any, layout: Layout, rows: slice, step: int) -> Patch:
    """A block patch that shows what a block is given and changes nothing."""
    stage = block.stage

    def show(args: Args, inner: Inner) -> Args:
        image = picture(stage, layout, args, rows)
        watcher.see(number, Sight(step, image.movedim(stage.row_dim_of(stage.image), 0), text(args), gates(args)))
        return inner(args)

    def text(args: Args) -> Tensor | None:
        if len(stage.streams) > 1:
            return args[stage.streams[1]][rows]
        if stage.before == "text":
            stream = args[stage.image]
            return stream[rows, layout.text(stream.shape[1])]
        return None

    def gates(args: Args) -> Tensor | None:
        if stage.gates is None:
            return None
        made = stage.gates(getattr(model, stage.blocks)[block.key[1]], args)
        return None if made is None else made[rows]

    return show
