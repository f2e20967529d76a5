from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..dit import anatomy_of
from ..methods.common.drawing import require_matplotlib
from ..methods.common.layers import block_at
from ..methods.common.numbers import require
from ..methods.detail_guidance.settings import LAYER, Options
from ..methods.massive_activations.figures import maps
from ..methods.massive_activations.profile import Profile
from ..methods.massive_activations.recording import MapRecording
from .inputs import CATEGORY, DetailGuidanceProfile, finding_inputs, fraction, require_given, sampled, sampling_inputs


class MassiveActivationMap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MassiveActivationMap",
            display_name="Massive Activation Map",
            category=f"{CATEGORY}/massive activations",
            description="Samples like KSampler and draws, for each step, where over the picture a block's massive "
            "activations lie, and how uniform they are.",
            inputs=[
                *sampling_inputs(),
                fraction(
                    "layer", LAYER, "The block, as a fraction of the model's depth. Raising it looks at a later block."
                ),
                *finding_inputs(),
                DetailGuidanceProfile.Input(
                    "profile", optional=True, tooltip="Channels measured before, in place of finding them at each step."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="maps", tooltip="One for each step, on one scale."),
                io.String.Output(display_name="report", tooltip="How uniform they are, step by step."),
                io.Latent.Output(display_name="latent", tooltip="What was sampled: the same as without the map."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        layer: float,
        massive_ratio: float,
        max_channels: int,
        profile: Profile | None = None,
        **values: Any,
    ) -> io.NodeOutput:
        require_matplotlib()
        require("layer", layer, 0.0, 1.0)
        require_given(model=model)
        anatomy = anatomy_of(model)
        block = block_at(layer, len(anatomy.blocks))
        if profile is not None:
            profile.check(anatomy.family.names, len(anatomy.blocks))
        options = Options(massive_ratio=massive_ratio, max_channels=max_channels, profile=profile)
        recording = MapRecording(block, options.channels_at(block))
        latent = sampled(recording, model, **values)
        name = f"block {block} ({anatomy.blocks[block].name})"
        drawn = maps(recording, name, anatomy.token_grid)
        return io.NodeOutput(drawn, recording.report(), latent)
