from collections.abc import Sequence
from math import ceil
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler
from comfy.sd import VAE
from comfy.utils import ProgressBar
from comfy_api.latest import io
from torch import Tensor
from torch.nn.functional import interpolate, pad

from nodes import common_ksampler

from ..dit.families import anatomy
from ..dit.noised import shown
from ..methods.common.numbers import require
from ..methods.detail_guidance.patch import without
from ..methods.detail_guidance.settings import WORDS_SOFT
from ..methods.features.pictures import overlay
from ..methods.regions.masks import Region, divided, soft_masks
from ..methods.regions.reader import NOTHING, watched_region
from .inputs import CATEGORY, WordsType, fraction, require_something
from .pictures import encoded, require_one_caption

SOFT, DIVIDED = "soft", "divided"
COUNTS_FROM = 0.5  # of a run's steps: in the late ones the layout is the picture's
DRAWS = 4  # of noise, of a picture that is read


class PromptWordMask(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PromptWordMask",
            display_name="Prompt Word Mask",
            category=CATEGORY,
            description="Masks of words, by the model's own attention to them: of what it samples, which costs no "
            "forward, or of a picture of any origin, which is noised and read.",
            inputs=[
                io.Model.Input("model", tooltip="A Diffusion Transformer."),
                io.Conditioning.Input("positive", tooltip="Prompt Words' own conditioning."),
                io.Vae.Input("vae", tooltip="The model's own: it decodes what was sampled, and encodes an image."),
                WordsType.Input("words", tooltip="From Prompt Words or Foreground."),
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
        require("softness", softness, 0.0, 1.0)
        require("noise_level", noise_level, 0.01, 0.99)
        if (image is None) == (latent_image is None):
            raise ValueError("image: connect either an image, which is read, or latent_image, which is sampled.")
        seen: list[Tensor] = []
        of_model = anatomy(model)
        # Reading is no run of the Detail Guidance on the model: it would be reported.
        watched = watched_region(model if image is None else without(model, of_model.family), words, seen.append)
        if image is not None:
            require_one_caption(positive)
            samples, size = encoded(of_model, vae, image)
            latent = {"samples": samples}
            attention = _read(watched, positive, samples, noise_level, seed, seen)
        elif latent_image is not None:
            require_something(positive, latent_image)
            if negative is None and cfg != 1:
                raise ValueError("negative: not connected, and cfg is not 1. Connect it, or set cfg to 1.")
            (latent,) = common_ksampler(
                watched,
                seed,
                cfg=cfg,
                positive=positive,
                negative=negative or positive,
                latent=latent_image,
                **sampling,
            )
            attention = _mean(seen)
        pictures = vae.decode(latent["samples"]).flatten(0, -4) if image is None else image
        pictures = pictures[..., :3].cpu()
        covered = pictures.shape[1:3] if image is None else size
        large = _as_large(attention, len(pictures), covered)
        beyond = [pictures.shape[2] - covered[1], pictures.shape[1] - covered[0]]  # of an image, what fills no token
        large = pad(large, (0, beyond[0], 0, beyond[1]), mode="replicate")
        found = divided(large) if masks == DIVIDED else soft_masks(large, softness)
        return io.NodeOutput(found.flatten(0, 1), overlay(pictures, found), latent)


def _read(
    watched: ModelPatcher, positive: list, latent: Tensor, noise_level: float, seed: int, seen: list[Tensor]
) -> Tensor:
    """The attention of pictures that are noised and shown, (pictures, words + 1, …)."""
    sums: list[Any] = [0] * len(latent)
    bar = ProgressBar(DRAWS * len(latent))
    for pictures in shown(watched, positive, latent, noise_level, DRAWS, seed):
        for picture, attention in zip(pictures, _mean(seen), strict=True):
            sums[picture] = sums[picture] + attention / DRAWS
        seen.clear()
        bar.update(len(pictures))
    return torch.stack(sums)


def _mean(seen: list[Tensor]) -> Tensor:
    """Of the attention that counts.

    Raises:
        ValueError: nothing was read.
    """
    if not seen:
        raise ValueError(NOTHING)
    return torch.stack(seen[int(COUNTS_FROM * len(seen)) :]).mean(dim=0).cpu()


def _as_large(attention: Tensor, pictures: int, size: Sequence[int]) -> Tensor:
    """Attention (pictures, words, …, height, width) for so many pictures of this height and width: (pictures, words,
    height, width). Of a video, the first of its latent's frames is one picture, each other several."""
    if attention.ndim == 5:
        frames = pictures // len(attention)
        share = (attention.shape[2] - 1) / max(1, frames - 1)
        attention = attention[:, :, [ceil(share * number) for number in range(frames)]]
        attention = attention.transpose(1, 2).flatten(0, 1)
    return interpolate(attention, list(size), mode="bilinear", align_corners=False)
