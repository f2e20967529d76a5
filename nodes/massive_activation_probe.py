from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from comfy_api.latest import io

from nodes import common_ksampler

from ..detail_guidance.figures import figures, require_matplotlib
from ..detail_guidance.settings import MASSIVE_RATIO, MAX_CHANNELS
from ..host.probe import probed
from .inputs import CATEGORY, DetailGuidanceProfile


class MassiveActivationProbe(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MassiveActivationProbe",
            display_name="Massive Activation Probe",
            category=CATEGORY,
            description="Samples like KSampler and looks at the model meanwhile: which channels carry its massive "
            "activations, at which blocks, and how far they stand out. Detail Guidance on the model is left out.",
            inputs=[
                io.Model.Input("model", tooltip="A Diffusion Transformer."),
                io.Conditioning.Input(
                    "positive", tooltip="What the picture shows; its prediction is what is measured."
                ),
                io.Conditioning.Input("negative", tooltip="What it should not show. Not measured."),
                io.Latent.Input("latent_image", tooltip="What to sample from; its size decides how long it takes."),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of the noise."
                ),
                io.Int.Input(
                    "steps",
                    default=8,
                    min=1,
                    max=10000,
                    tooltip="Raising it measures more noise levels, and takes longer.",
                ),
                io.Float.Input(
                    "cfg",
                    default=1.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Classifier-free guidance of the sampling. 1 is off, and enough to measure.",
                ),
                io.Combo.Input("sampler_name", options=KSampler.SAMPLERS, default="euler", tooltip="As in KSampler."),
                io.Combo.Input("scheduler", options=KSampler.SCHEDULERS, default="simple", tooltip="As in KSampler."),
                io.Float.Input(
                    "massive_ratio",
                    default=MASSIVE_RATIO,
                    min=1.0,
                    max=1000.0,
                    step=0.5,
                    round=0.01,
                    tooltip="A channel is massive if its mean magnitude exceeds this many times the median channel's. "
                    "Raising it keeps only channels that stand out more.",
                ),
                io.Int.Input(
                    "max_channels",
                    default=MAX_CHANNELS,
                    min=1,
                    max=64,
                    tooltip="At most so many channels a block, the largest first. Raising it can find more.",
                ),
            ],
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
    def execute(
        cls,
        model: ModelPatcher,
        positive: list,
        negative: list,
        latent_image: dict[str, Any],
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        massive_ratio: float,
        max_channels: int,
    ) -> io.NodeOutput:
        require_matplotlib()
        if not positive:
            raise ValueError("positive: it is empty. Connect a text encoder's conditioning.")
        if not latent_image["samples"].numel():
            raise ValueError(f"latent_image: it is empty, its shape is {tuple(latent_image['samples'].shape)}.")
        watched, recording = probed(model)
        (latent,) = common_ksampler(
            watched, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image
        )
        profile = recording.profile(massive_ratio, max_channels)
        return io.NodeOutput(profile, figures(recording, profile), recording.report(profile), latent)
