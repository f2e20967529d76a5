"""Watching one sampling run: what stands at each block's input, without changing anything."""

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import CFGGuider
from torch import Tensor

from ..detail_guidance.recording import Recording, statistics
from . import block_hooks
from .block_patches import Args, Inner, Patch, chained, chunks_of, picture
from .families import Block, Layout, family_of, network
from .patch import without
from .step import uncompiled

KEY = "massive_activation_probe"


def probed(model: ModelPatcher) -> tuple[ModelPatcher, Recording]:
    """A clone of the model, without Detail Guidance, and what is recorded of its positive conditioning when it samples.

    Raises:
        ValueError: no row of the family table fits the model.
    """
    diffusion_model = network(model.get_model_object("diffusion_model"))
    family = family_of(diffusion_model)
    blocks = family.blocks(diffusion_model)
    recording = Recording(family.name, [block.name for block in blocks])
    clone = without(model, family)
    block_hooks.install(clone, family)

    def outer_sample(executor: Any, *args: Any, **kwargs: Any) -> Any:
        guider: CFGGuider = executor.class_obj
        positive = {cond["uuid"] for cond in guider.conds["positive"]}

        def predict_noise(executor: Any, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            recording.sigmas.append(float(timestep.max()))
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
            watched = [chunk.rows for chunk in chunks if chunk.uuid in positive and chunk.index == 0]
            if not watched:
                return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
            layout = family.layout(diffusion_model, x.shape, kwargs)
            patches = {
                block.key: _watching(recording, number, block, diffusion_model, layout, watched[0])
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
    return clone, recording


def _watching(recording: Recording, number: int, block: Block, model: Any, layout: Layout, rows: slice) -> Patch:
    """A block patch that notes what a block is given, of the first forward of each step."""
    stage = block.stage

    def watch(args: Args, inner: Inner) -> Args:
        where = (len(recording.sigmas) - 1, number)
        if where not in recording.image:
            recording.image[where] = statistics(picture(stage, layout, args, rows))
            text = _text(args)
            if text.shape[1]:
                recording.text[where] = statistics(text)
            gates = stage.gates and stage.gates(getattr(model, stage.blocks)[block.key[1]], args)
            if gates is not None:
                recording.gates[where] = gates[rows].abs().flatten(0, 1).mean(dim=0).float()
        return inner(args)

    def _text(args: Args) -> Tensor:
        if len(stage.streams) > 1:
            return args[stage.streams[1]][rows]
        stream = args[stage.image]
        return stream[rows, layout.text(stage, stream.shape[1])] if stage.before == "text" else stream[rows, :0]

    return watch
