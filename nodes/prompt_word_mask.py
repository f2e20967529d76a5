from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from comfy.sd import VAE
from comfy_api.latest import io
from torch import Tensor

from ..dit import KSamplerSettings
from ..methods.common.numbers import require
from ..methods.detail_guidance.patch import without
from ..methods.detail_guidance.settings import WORDS_SOFT
from ..methods.features.pictures import overlay
from ..methods.regions.masks import Region
from ..methods.regions.word_masks import MaskForm, masks_of_pictures, masks_of_sampling
from .inputs import CATEGORY, WordsType, aliases, fraction, require_given, require_pictures, require_something

SOFT, DIVIDED = "soft", "divided"


class PromptWordMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PromptWordMask",
            display_name="Detail Word Mask",
            category=f"{CATEGORY}/words",
            description="Masks of words, by the model's own attention to them: of what it samples, which costs no "
            "forward, or of a picture of any origin, which is noised and read.",
            inputs=[
                io.Model.Input("model", tooltip="A Diffusion Transformer."),
                io.Conditioning.Input("positive", tooltip="Detail Prompt Words' own conditioning."),
                io.Vae.Input("vae", tooltip="The model's own: it decodes what was sampled, and encodes an image."),
                WordsType.Input("words", tooltip="From Detail Prompt Words or Detail Foreground."),
                io.Combo.Input(
                    "masks",
                    options=[SOFT, DIVIDED],
                    default=SOFT,
                    tooltip="soft: each word's own, with an edge. divided: every place is one word's, or none's.",
                ),
                fraction(
                    "softness", WORDS_SOFT, "Width of a soft mask's edge. 0 is a hard one; raising it blends more."
                ),
                io.Int.Input(
                    "seed", default=0, min=0, max=2**64 - 1, control_after_generate=True, tooltip="Of the noise."
                ),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="Of sampling; an image takes none."),
                io.Float.Input(
                    "cfg",
                    default=4.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Classifier-free guidance of sampling. 1 is off.",
                ),
                io.Combo.Input("sampler_name", options=KSampler.SAMPLERS, default="euler", tooltip="As in KSampler."),
                io.Combo.Input("scheduler", options=KSampler.SCHEDULERS, default="simple", tooltip="As in KSampler."),
                io.Float.Input(
                    "noise_level",
                    default=0.3,
                    min=0.01,
                    max=0.99,
                    step=0.01,
                    round=0.001,
                    tooltip="The noise's share in an image that is read. Raising it goes less by detail.",
                ),
                io.Conditioning.Input("negative", optional=True, tooltip="For sampling, where cfg is not 1."),
                io.Latent.Input("latent_image", optional=True, tooltip="What to sample from."),
                io.Image.Input("image", optional=True, tooltip="Pictures to be read, in place of sampling."),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks", tooltip="Of the first picture one for each word, then of the next picture."
                ),
                io.Image.Output(display_name="overlay", tooltip="The masks as colours over the pictures."),
                io.Latent.Output(display_name="latent", tooltip="What was sampled, or the image's latent."),
            ],
            **aliases("mask", "attention", "segment"),
        )

    @classmethod
    def execute(
        cls,
        model: ModelPatcher,
        positive: list,
        vae: VAE,
        words: Region,
        masks: str,
        softness: float,
        noise_level: float,
        seed: int,
        cfg: float,
        negative: list | None = None,
        latent_image: dict[str, Any] | None = None,
        image: Tensor | None = None,
        **sampling: Any,
    ) -> io.NodeOutput:
        require_given(model=model, positive=positive, vae=vae, words=words)
        require_pictures(image=image)
        require("softness", softness, 0.0, 1.0)
        require("noise_level", noise_level, 0.01, 0.99)
        if (image is None) == (latent_image is None):
            raise ValueError("image: connect either an image, which is read, or latent_image, which is sampled.")
        form = MaskForm(masks == DIVIDED, softness)
        if image is not None:
            # Reading is no run of the Detail Guidance on the model: it would be reported.
            made = masks_of_pictures(without(model), positive, image, vae, words, noise_level, seed, form)
        elif latent_image is not None:
            require_something(positive, latent_image)
            if negative is None and cfg != 1:
                raise ValueError("negative: not connected, and cfg is not 1. Connect it, or set cfg to 1.")
            settings = KSamplerSettings(seed, cfg=cfg, **sampling)
            made = masks_of_sampling(model, positive, negative, latent_image, vae, words, settings, form)
        return io.NodeOutput(made.masks.flatten(0, 1), overlay(made.pictures, made.masks), made.latent)
