from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from comfy.utils import ProgressBar
from comfy_api.latest import io
from torch import Tensor

from ..dit import Anatomy, anatomy_of
from ..dit.encoding import encoded, of_whole_tokens, require_one_caption
from ..methods.common.layers import block_at
from ..methods.common.numbers import require
from ..methods.detail_guidance.patch import without
from ..methods.detail_guidance.settings import AUTO, Options, parse_channels
from ..methods.features.extraction import Extraction, features_of
from ..methods.features.features import Features
from ..methods.massive_activations.profile import Profile
from .inputs import (
    CATEGORY,
    DetailGuidanceProfile,
    DiTFeaturesType,
    finding_inputs,
    fraction,
    require_given,
    require_pictures,
)

NONE = "none"
MODULATED, RAW = "modulated", "raw"
LAYER, NOISE_LEVEL, DRAWS = 0.5, 0.26, 8  # [DiTF]: of FLUX.1-dev, block 28 of 57


class DiTFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiTFeatures",
            display_name="DiT Features",
            category=f"{CATEGORY}/features",
            description="What a block of a Diffusion Transformer knows of pictures: they are noised and shown to the "
            "model up to that block; its massive channels are dropped, and the block's own modulation is applied. "
            "Equal parts of different pictures get alike features.",
            inputs=[
                io.Model.Input("model", tooltip="A Diffusion Transformer."),
                io.Conditioning.Input("positive", tooltip="What the pictures show: one caption for all of them."),
                fraction(
                    "layer",
                    LAYER,
                    "The block, as a fraction of the model's depth. Raising it looks at a later block; those behind it "
                    "are not computed.",
                ),
                io.Float.Input(
                    "noise_level",
                    default=NOISE_LEVEL,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    round=0.001,
                    tooltip="The noise's share in what the model is shown. Raising it looks more at what things are, "
                    "less at how they look.",
                ),
                io.Int.Input(
                    "draws",
                    default=DRAWS,
                    min=1,
                    max=64,
                    tooltip="Over so many draws of noise the features are averaged. Raising it makes them steadier, "
                    "and takes longer.",
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of the noise."
                ),
                io.String.Input(
                    "channels",
                    default=AUTO,
                    tooltip='Massive channels, which are dropped. "auto" finds them in the first picture; "none" drops '
                    'none; or list them, such as "154, 1446".',
                ),
                *finding_inputs(),
                io.Combo.Input(
                    "normalise",
                    options=[MODULATED, RAW],
                    default=MODULATED,
                    tooltip="Modulated: LayerNorm, then the block's own AdaLN scale and shift, where the model has "
                    "them. Raw: the hidden state as it is.",
                ),
                io.Boolean.Input(
                    "maps",
                    default=False,
                    tooltip="On appends the massive channels' own maps to the features, one for each.",
                ),
                io.Image.Input("image", optional=True, tooltip="The pictures; a video's frames. Needs the vae."),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The model's own: it encodes the image, or says how many pixels a latent has.",
                ),
                io.Latent.Input("latent", optional=True, tooltip="In place of the image."),
                DetailGuidanceProfile.Input(
                    "profile", optional=True, tooltip="Channels measured before, in place of the list or of finding."
                ),
            ],
            outputs=[
                DiTFeaturesType.Output(
                    display_name="features", tooltip="For Match DiT Features and Show DiT Features."
                ),
                io.String.Output(display_name="report", tooltip="Which block, which channels, and how many tokens."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: list,
        layer: float,
        noise_level: float,
        draws: int,
        seed: int,
        channels: str,
        massive_ratio: float,
        max_channels: int,
        normalise: str,
        maps: bool,
        image: Tensor | None = None,
        vae: VAE | None = None,
        latent: dict[str, Any] | None = None,
        profile: Profile | None = None,
    ) -> io.NodeOutput:
        require_given(model=model, positive=positive)
        require_pictures(image=image)
        if image is not None and latent is None:
            require_given(vae=vae)
        require("layer", layer, 0.0, 1.0)
        require("noise_level", noise_level, 0.01, 0.99)
        require("draws", draws, 1, 64)
        anatomy = anatomy_of(model)
        if profile is not None:
            profile.check(anatomy.family.names, len(anatomy.blocks))
        require_one_caption(positive)
        samples, size = _latent_of(anatomy, image, vae, latent)
        if samples.ndim == 4 and model.get_model_object("latent_format").latent_dimensions == 3:
            samples = samples.unsqueeze(2)  # a picture for a video's model
        bar = ProgressBar(draws * len(samples))
        listed = () if channels.strip().lower() == NONE else parse_channels(channels)
        options = Options(listed, massive_ratio, max_channels, profile=profile)
        block = block_at(layer, len(anatomy.blocks))
        how = Extraction(block, noise_level, draws, seed, options.channels_at(block), normalise == MODULATED, maps)
        features = features_of(without(model), positive, samples, size, how, bar.update_absolute)
        return io.NodeOutput(features, _report(features, anatomy.family.name, normalise, image))


def _latent_of(
    anatomy: Anatomy, image: Tensor | None, vae: VAE | None, latent: dict[str, Any] | None
) -> tuple[Tensor, tuple[int, int]]:
    """The latent of whole tokens, and the height and width in pixels that they cover from the upper left corner."""
    if latent is not None and image is not None:
        raise ValueError("latent: there is an image too. Connect one of them.")
    if latent is not None:
        return of_whole_tokens(anatomy, vae, latent)
    if image is None:
        raise ValueError("image: there is none. Connect an image and the vae, or a latent and the vae.")
    return encoded(anatomy, vae, image)


def _report(features: Features, family: str, normalise: str, given: Tensor | None) -> str:
    lines = [f"{family}: {features}"]
    if given is not None and given.shape[1:3] != (features.height, features.width):
        lines.append(
            f"The tokens cover {features.width} × {features.height} pixels from the upper left corner of the image's "
            f"{given.shape[2]} × {given.shape[1]}; the rest is left out."
        )
    if normalise == MODULATED and not features.modulated:
        lines.append(f"Raw: this pack does not know {family}'s AdaLN, or it has other values for each token here.")
    if not features.dropped:
        lines.append("No channel was dropped: none is massive at this block, or none is listed.")
    return "\n".join(lines)
