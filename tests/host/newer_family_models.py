"""Cases of models, and of uses of models, that hosts after 0.3.75 know; see family_models.py."""

from functools import partial
from typing import Any
from unittest import mock

import comfy.supported_models as supported
import torch
from family_case import Case, Flat, Method, Part, blocks, double_and_single, normal, reference, text_first
from family_sizes import (
    ANIMA,
    BOOGU,
    COGVIDEOX,
    CONTEXT,
    ERNIE,
    FLUX2,
    HIDREAM_O1,
    IDEOGRAM4,
    JOY_IMAGE,
    KANDINSKY,
    KREA2,
    LENS,
    LTX2,
    MAGE_FLOW,
    MINIMAX_H3,
    PID,
    PIXELDIT,
    QWEN,
    QWEN21,
    TEXT,
    WAN,
    Z_IMAGE,
    Z_IMAGE_PIXEL,
)
from plain import Stream


def transformer_blocks(model):
    return [*model.transformer_blocks]


def vision(seed: int) -> Any:
    """What the host's CLIP vision returns."""
    return type("Vision", (), {"penultimate_hidden_states": normal(seed, 1, 4, 1280)})()


def token_ids(seed: int, text: int = TEXT) -> torch.Tensor:
    """<|im_start|> user, line feed, words, <|tms|>."""
    words = torch.randint(1000, (text - 4,), generator=torch.Generator().manual_seed(seed))
    return torch.tensor([[151644, 872, 198, *words.tolist(), 151673]])


def refiner_and_layers(model):
    return [*model.noise_refiner, *model.layers]


def layers(model):
    return [*model.layers]


def boogu_blocks(model):
    return [*model.noise_refiner, *model.double_stream_layers, *model.single_stream_layers]


def boogu_streams(references: int = 0) -> list[Stream]:
    img, both = slice(references, None), slice(TEXT + references, None)
    return [Stream("hidden_states")] + [Stream("img_hidden_states", img)] * 2 + [Stream("hidden_states", both)] * 2


def at_time_zero(seed: int, *shape: int) -> dict[str, Any]:
    return {**reference(seed, *shape), "reference_latents_method": "index_timestep_zero"}


def seen_by_siglip(seed: int) -> Any:
    """A picture of 2 × 2 tokens, as a CLIP vision node gives it."""
    fields = {"image_sizes": [(3, 32, 32)], "last_hidden_state": normal(seed, 1, 4, CONTEXT)}
    return type("Vision", (), fields)()


def low_quality(seed: int) -> dict[str, Any]:
    return {"lq_latent": normal(9, 1, 16, 2, 2), "degrade_sigma": torch.tensor([0.2])}


def with_small_adapter(self, state_dict, prefix="", device=None):
    """The host's has fixed sizes, and 134 million weights."""
    from comfy.ldm.anima import model

    sizes = {"source_dim": CONTEXT, "target_dim": CONTEXT, "model_dim": CONTEXT, "num_layers": 1, "num_heads": 2}
    with mock.patch.object(model, "LLMAdapter", partial(model.LLMAdapter, **sizes)):
        return supported.Anima.get_model(self, state_dict, prefix, device)


def with_cached_references(patcher):
    from comfy_extras.nodes_flux import FluxKVCache

    return FluxKVCache.execute(patcher).args[0]


SMALL_ADAPTER = {"get_model": with_small_adapter}
OUR_SIZES = {"unet_extra_config": {}}  # the host's own sets them whatever it is given
# The host hands this model its latent as it is, at first 4,500 times as large as the noise.
LITTLE_NOISE = {"sampling_settings": {"linear_start": 0.00085, "linear_end": 0.002, "beta_schedule": "linear"}}

NEWER = {
    "Kandinsky 5": Case(
        "Kandinsky5Image",
        KANDINSKY,
        (16, 8, 8),
        lambda model: [*model.visual_transformer_blocks],
        [Stream("visual_embed")] * 4,
    ),
    "Kandinsky 5 video": Case(
        "Kandinsky5",
        {**KANDINSKY, "visual_embed_dim": 132},
        (16, 3, 8, 8),
        lambda model: [*model.visual_transformer_blocks],
        [Stream("visual_embed", slice(0, 48))] * 4,
    ),
    "Kandinsky 5 image to video": Case(
        "Kandinsky5",
        {**KANDINSKY, "visual_embed_dim": 132},
        (16, 3, 8, 8),
        lambda model: [*model.visual_transformer_blocks],
        [Stream("visual_embed", slice(0, 48))] * 4,  # the first frame's 16 tokens are the given picture's
        lambda seed: {"time_dim_replace": normal(9, 1, 16, 1, 8, 8), "concat_mask": torch.ones(1, 1, 3, 8, 8)},
    ),
    # Read in 0.38's code, not run yet: no host here has it.
    "Qwen-Image 2.1": Case(
        "QwenImage21",
        QWEN21,
        (64, 4, 4),
        transformer_blocks,
        [Stream("x", slice(-16, None))] * 4,
    ),
    "Mage-Flow": Case(
        "MageFlow", MAGE_FLOW, (128, 4, 4), transformer_blocks, [Stream("hidden_states", slice(0, 16))] * 4
    ),
    "Mage-Flow with a reference": Case(
        "MageFlow",
        MAGE_FLOW,
        (128, 4, 4),
        transformer_blocks,
        [Stream("hidden_states", slice(0, 16))] * 4,
        lambda seed: reference(9, 128, 2, 4),
    ),
    "Lens": Case(
        "Lens",
        LENS,
        (128, 4, 4),
        transformer_blocks,
        [Stream("hidden_states")] * 4,
        lambda seed: {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])},
    ),
    "JoyImage": Case(
        "JoyImage",
        JOY_IMAGE,
        (16, 1, 8, 8),
        lambda model: [*model.double_blocks],
        [Stream("hidden_states", slice(0, 16))] * 4,
    ),
    "JoyImage with a reference": Case(
        "JoyImage",
        JOY_IMAGE,
        (16, 1, 8, 8),
        lambda model: [*model.double_blocks],
        [Stream("hidden_states", slice(0, 16))] * 4,
        lambda seed: reference(9, 16, 1, 4, 8),
    ),
    "LTX-2": Case(
        "LTXAV",
        LTX2,
        ((128, 2, 4, 4), (8, 6, 16)),  # video and sound
        transformer_blocks,
        [Part("x")] * 4,
        lambda seed: {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])},
    ),
    "LTX-2.3": Case(
        "LTXAV",
        {
            **LTX2,
            "apply_gated_attention": True,
            "cross_attention_adaln": True,
            "caption_proj_before_connector": True,
            "caption_projection_first_linear": False,
            "connector_attention_head_dim": 64,
            "audio_connector_attention_head_dim": 32,
            "context width": 64 + 32,
        },
        ((128, 2, 4, 4), (8, 6, 16)),
        transformer_blocks,
        [Part("x")] * 4,
    ),
    "LTX-2 without sound": Case("LTXAV", LTX2, (128, 2, 4, 4), transformer_blocks, [Part("x")] * 4),
    "HiDream-O1": Case(
        "HiDreamO1",
        HIDREAM_O1,
        (3, 128, 128),
        lambda model: [*model.language_model.layers],
        # With its cache the host leaves out the text: the picture is only known from the end.
        [Stream("x", slice(-16, None))] * 4,
        lambda seed: {"text_input_ids": token_ids(seed)},
    ),
    "HiDream-O1 with a reference": Case(
        "HiDreamO1",
        HIDREAM_O1,
        (3, 128, 128),
        lambda model: [*model.language_model.layers],
        [Stream("x", slice(-32, -16))] * 4,
        lambda seed: {"text_input_ids": token_ids(seed), "reference_latents": [normal(9, 1, 128, 128, 3).sigmoid()]},
    ),
    "MiniMax H3": Case(
        "MiniMaxH3",
        MINIMAX_H3,
        ((24, 2, 8, 8), (32, 2, 3)),
        blocks,
        [Flat("x", slice(TEXT + 6, TEXT + 6 + 32))] * 4,  # text, sound, picture
        one_row=True,
    ),
    "MiniMax H3 with a reference": Case(
        "MiniMaxH3",
        MINIMAX_H3,
        ((24, 2, 8, 8), (32, 2, 3)),
        blocks,
        [Flat("x", slice(TEXT + 8 + 6, TEXT + 8 + 6 + 32))] * 4,  # text, reference, sound, picture
        lambda seed: {
            "minimax_refs": [{"kind": "image", "latent_h": 4, "latent_w": 8, "latent": normal(9, 1, 24, 1, 4, 8)}]
        },
        one_row=True,
    ),
    "Wan with references in context": Case(
        "WAN21_T2V",
        WAN,
        (16, 2, 8, 8),
        blocks,
        [Stream("x", slice(0, 32))] * 4,
        lambda seed: {"context_latents": [normal(9, 1, 16, 1, 8, 8), normal(10, 1, 16, 1, 4, 8)]},
        needs=("ldm/wan/model.py", "context_latents"),
    ),
    "Wan SCAIL": Case(
        "WAN21_SCAIL",
        {**WAN, "model_type": "scail", "in_dim": 20},
        (16, 2, 8, 8),
        blocks,
        # 16 tokens of a reference before the picture, 8 of the poses after it.
        [Stream("x", slice(16, 48))] * 4,
        lambda seed: {
            "pose_video_latent": normal(8, 1, 16, 2, 4, 4),
            "clip_vision_output": vision(7),
            **reference(9, 16, 1, 8, 8),
        },
    ),
    "Wan SCAIL-2": Case(
        "WAN21_SCAIL2",
        {**WAN, "model_type": "scail2", "in_dim": 20},
        (16, 2, 8, 8),
        blocks,
        [Stream("x", slice(32, 64))] * 4,
        lambda seed: {
            "pose_video_latent": normal(8, 1, 16, 2, 4, 4),
            "driving_mask_28ch": normal(6, 1, 2, 28, 4, 4).sign(),
            "ref_mask_28ch": normal(5, 1, 4, 28, 8, 8).sign(),
            "ref_mask_flag": False,
            "reference_latents": [normal(9, 1, 16, 1, 8, 8), normal(10, 1, 16, 1, 8, 8)],
        },
    ),
    "Wan Animate 2": Case(
        "WAN_Animate2",
        {**WAN, "model_type": "animate2", "in_dim": 36},
        (16, 3, 8, 8),  # one frame for the reference, two of the video
        lambda model: [Method(block, "forward_gen") for block in model.blocks],
        [Stream("x")] * 4,
        lambda seed: {
            "concat_latent_image": normal(9, 1, 16, 3, 8, 8),
            "concat_mask": torch.ones(1, 1, 3, 8, 8),
            "clip_vision_output": vision(8),
            "pose_video_latent": normal(7, 1, 16, 2, 8, 8),
            "cross_attn_pose": normal(6, 1, TEXT, CONTEXT),
        },
    ),
    "WanDancer": Case(
        "WAN22_WanDancer",
        {
            **WAN,
            "model_type": "wandancer",
            "in_dim": 36,
            "audio_inject_layers": [0, 2],
            "music_dim": 64,
            "music_latent_dim": 64,
            "music_heads": 2,
        },
        (16, 2, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {
            "concat_latent_image": normal(9, 1, 16, 2, 8, 8),
            "concat_mask": torch.ones(1, 1, 2, 8, 8),
            "clip_vision_output": vision(8),
            "clip_vision_output_ref": vision(7),
            "audio_embed": normal(seed + 9, 1, 10, 35),
            "fps": 30.0,
        },
    ),
    "Anima": Case("Anima", ANIMA, (16, 1, 8, 8), blocks, [Stream("x_B_T_H_W_D")] * 4, changed=SMALL_ADAPTER),
    "Anima with T5 tokens": Case(  # the adapter pads the prompt to 512 tokens; the blocks do not update them
        "Anima",
        ANIMA,
        (16, 1, 8, 8),
        blocks,
        [Stream("x_B_T_H_W_D")] * 4,
        lambda seed: {"t5xxl_ids": torch.arange(seed, seed + 7), "t5xxl_weights": torch.ones(7)},
        changed=SMALL_ADAPTER,
    ),
    "Krea 2": Case("Krea2", KREA2, (16, 1, 8, 8), blocks, [Stream("x", slice(TEXT, None))] * 4),
    "Krea 2 with a reference": Case(
        "Krea2",
        {**KREA2, "default_ref_method": "index"},
        (16, 1, 8, 8),
        blocks,
        [Stream("x", slice(TEXT, TEXT + 16))] * 4,
        lambda seed: reference(9, 16, 1, 4, 8),
    ),
    "Krea 2 with a reference at time zero": Case(
        "Krea2",
        KREA2,
        (16, 1, 8, 8),
        blocks,
        [Stream("x", slice(TEXT, TEXT + 16))] * 4,
        lambda seed: at_time_zero(9, 16, 1, 4, 8),
    ),
    "Ernie-Image": Case("ErnieImage", ERNIE, (128, 4, 4), layers, [Stream("x", slice(0, 16))] * 4),
    "Ideogram 4": Case(
        "Ideogram4", IDEOGRAM4, (128, 4, 4), layers, [Stream("x", slice(TEXT, None))] * 4, changed=OUR_SIZES
    ),
    "Ideogram 4 with a masked prompt": Case(
        "Ideogram4",
        IDEOGRAM4,
        (128, 4, 4),
        layers,
        [Stream("x", slice(TEXT, None))] * 4,
        lambda seed: {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])},
        changed=OUR_SIZES,
    ),
    "CogVideoX": Case(
        "CogVideoX_T2V", COGVIDEOX, (16, 3, 8, 8), blocks, [Stream("hidden_states")] * 4, changed=LITTLE_NOISE
    ),
    "CogVideoX image to video": Case(
        "CogVideoX_I2V",
        {**COGVIDEOX, "in_channels": 32},
        (16, 3, 8, 8),
        blocks,
        [Stream("hidden_states")] * 4,
        lambda seed: {"concat_latent_image": normal(9, 1, 16, 1, 8, 8)},
        changed=LITTLE_NOISE,
    ),
    "CogVideoX 1.5": Case(  # two frames to a token; the third frame is padded to a fourth
        "CogVideoX_I2V",
        {**COGVIDEOX, "in_channels": 32, "patch_size_t": 2, "ofs_embed_dim": 64},
        (16, 3, 8, 8),
        blocks,
        [Stream("hidden_states")] * 4,
        lambda seed: {"concat_latent_image": normal(9, 1, 16, 1, 8, 8)},
        changed=LITTLE_NOISE,
    ),
    "Boogu": Case(
        "Boogu",
        BOOGU,
        (16, 8, 8),
        boogu_blocks,
        boogu_streams(),
        lambda seed: {"attention_mask": torch.ones(1, TEXT, dtype=torch.long)},
    ),
    "Boogu with a reference": Case(
        "Boogu",
        BOOGU,
        (16, 8, 8),
        boogu_blocks,
        boogu_streams(8),  # a reference of 8 tokens stands between text and picture
        lambda seed: {"attention_mask": torch.ones(1, TEXT, dtype=torch.long), **reference(9, 16, 4, 8)},
    ),
    "PixelDiT": Case("PixelDiTT2I", PIXELDIT, (3, 64, 64), lambda model: [*model.patch_blocks], [Stream("x")] * 4),
    "PiD": Case("PiD", PID, (3, 64, 64), lambda model: [*model.patch_blocks], [Stream("x")] * 4, low_quality),
    "PiD 1.5": Case(
        "PiD",
        {**PID, "lq_conv_padding_mode": "replicate", "lq_gate_per_token": True, "pit_lq_inject": True},
        (3, 64, 64),
        lambda model: [*model.patch_blocks],
        [Stream("x")] * 4,
        low_quality,
    ),
    "Z-Image with a reference": Case(  # padded text of 8 + 8 tokens, a reference of 4 tokens padded to 8, the picture
        "ZImage",
        Z_IMAGE,
        (16, 6, 6),
        refiner_and_layers,
        [Stream("x", slice(8, 17))] + [Stream("x", slice(24, 33))] * 3,
        lambda seed: reference(9, 16, 4, 4),
        needs=("ldm/lumina/model.py", "ref_contexts"),
    ),
    "Z-Image Omni": Case(  # text of 8 + 8 + 8, SigLIP of 8 + 8, the reference's 8, the picture
        "ZImage",
        {**Z_IMAGE, "siglip_feat_dim": CONTEXT},
        (16, 6, 6),
        refiner_and_layers,
        [Stream("x", slice(8, 17))] + [Stream("x", slice(48, 57))] * 3,
        lambda seed: {
            **reference(9, 16, 4, 4),
            "reference_latents_text_embeds": [normal(7, 1, 3, CONTEXT), normal(8, 1, 2, CONTEXT)],
            "clip_vision_outputs": [seen_by_siglip(6)],
        },
        one_row=True,
        needs=("ldm/lumina/model.py", "ref_contexts"),
    ),
    "Z-Image Omni, texts of the pictures only": Case(  # the last text, which no picture follows, is what wants one row
        "ZImage",
        {**Z_IMAGE, "siglip_feat_dim": CONTEXT},
        (16, 6, 6),
        refiner_and_layers,
        [Stream("x", slice(8, 17))] + [Stream("x", slice(40, 49))] * 3,
        lambda seed: {
            **reference(9, 16, 4, 4),
            "reference_latents_text_embeds": [normal(7, 1, 3, CONTEXT)],
            "clip_vision_outputs": [seen_by_siglip(6)],
        },
        needs=("ldm/lumina/model.py", "ref_contexts"),
    ),
    "Z-Image in pixel space": Case(
        "ZImagePixelSpace",
        Z_IMAGE_PIXEL,
        (3, 48, 48),
        refiner_and_layers,
        [Stream("x", slice(0, 9))] + [Stream("x", slice(8, 17))] * 3,
    ),
    "Qwen-Image Edit at time zero": Case(
        "QwenImage",
        {**QWEN, "default_ref_method": "index_timestep_zero"},
        (16, 1, 8, 8),
        lambda model: [*model.transformer_blocks],
        [Stream("hidden_states", slice(0, 16))] * 4,
        lambda seed: reference(9, 16, 1, 4, 8),
        needs=("ldm/qwen_image/model.py", "index_timestep_zero"),
    ),
    "Flux.2 with a reference at time zero": Case(
        "Flux2",
        {**FLUX2, "guidance_embed": False},
        (128, 4, 4),
        double_and_single,
        text_first(16, text=512),
        lambda seed: at_time_zero(9, 128, 2, 4),
        needs=("ldm/flux/model.py", "index_timestep_zero"),
    ),
    "Flux.2 with guidance and a reference at time zero": Case(
        "Flux2",
        FLUX2,
        (128, 4, 4),
        double_and_single,
        text_first(16, text=512),
        lambda seed: at_time_zero(9, 128, 2, 4),
        one_row=True,
        needs=("ldm/flux/model.py", "index_timestep_zero"),
    ),
    "Flux.2 with a cached reference": Case(
        "Flux2",
        {**FLUX2, "guidance_embed": False},
        (128, 4, 4),
        double_and_single,
        text_first(16, text=512),
        lambda seed: reference(9, 128, 2, 4),
        needs=("../comfy_extras/nodes_flux.py", "FluxKVCache"),
        prepared=with_cached_references,
    ),
}
