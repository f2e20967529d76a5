from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..dit import anatomy_of
from ..methods.common.drawing import require_matplotlib
from ..methods.detail_guidance.settings import Options
from ..methods.massive_activations.figures import figures
from ..methods.massive_activations.recording import Recording
from .inputs import CATEGORY, DetailGuidanceProfile, finding_inputs, require_given, sampled, sampling_inputs


class MassiveActivationProbe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MassiveActivationProbe",
            display_name="Massive Activation Probe",
            category=f"{CATEGORY}/massive activations",
            description="Samples like KSampler and looks at the model meanwhile: which channels carry its massive "
            "activations, at which blocks, and how far they stand out. Detail Guidance on the model is left out.",
            inputs=[*sampling_inputs(), *finding_inputs()],
            outputs=[
                DetailGuidanceProfile.Output(
                    display_name="profile", tooltip="For Detail Guidance Options, or to be saved."
                ),
                io.Image.Output(
                    display_name="figures", tooltip="Which channels, how far they stand out, and the gates."
                ),
                io.String.Output(display_name="report", tooltip="What was found, block by block."),
                io.Latent.Output(display_name="latent", tooltip="What was sampled: the same as without the probe."),
            ],
        )

    @classmethod
    def execute(cls, model: ModelPatcher, massive_ratio: float, max_channels: int, **values: Any) -> io.NodeOutput:
        require_matplotlib()
        Options(massive_ratio=massive_ratio, max_channels=max_channels)  # refuses, before sampling
        require_given(model=model)
        anatomy = anatomy_of(model)
        recording = Recording(anatomy.family.name, anatomy.family.id, anatomy.block_names)
        latent = sampled(recording, model, **values)
        profile = recording.profile(massive_ratio, max_channels)
        return io.NodeOutput(profile, figures(recording, profile), recording.report(profile), latent)
