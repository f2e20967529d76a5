"""One tiny model of the host's own class for every family, with random weights, and what is known of it beforehand.

Where the picture's tokens lie is written down here as plain numbers, from the sizes chosen here.
"""

import re
from functools import cache

import torch
from comfy.model_patcher import ModelPatcher
from family_case import Case, blocks, double_and_single, host_source, normal, reference, text_first
from family_sizes import (
    CHROMA,
    CONTEXT,
    COSMOS,
    FLUX,
    FLUX2,
    HUNYUAN_VIDEO,
    LUMINA,
    PREDICT2,
    QWEN,
    RADIANCE,
    TEXT,
    WAN,
    Z_IMAGE,
)
from models import built, random_weights
from newer_family_models import NEWER
from plain import Stream

# From 0.13 on, HunyuanVideo's single blocks have the text first.
BEFORE = TEXT if "img_slice" in host_source("ldm/hunyuan_video/model.py") else 0


CASES = {
    "Flux": Case("Flux", FLUX, (16, 8, 8), double_and_single, text_first(16)),
    "Flux, odd size": Case("Flux", FLUX, (16, 7, 9), double_and_single, text_first(20)),
    "Flux without guidance": Case(
        "FluxSchnell", {**FLUX, "guidance_embed": False}, (16, 8, 8), double_and_single, text_first(16)
    ),
    "Flux Kontext": Case(
        "Flux", FLUX, (16, 8, 8), double_and_single, text_first(16), lambda seed: reference(9, 16, 4, 8)
    ),
    "Flux.2": Case("Flux2", FLUX2, (128, 4, 4), double_and_single, text_first(16, text=512)),
    "Flux.2 with a reference": Case(
        "Flux2",
        FLUX2,
        (128, 4, 4),
        double_and_single,
        text_first(16, text=512),
        lambda seed: reference(9, 128, 2, 4),
    ),
    "Chroma": Case("Chroma", CHROMA, (16, 8, 8), double_and_single, text_first(16)),
    "Chroma Radiance": Case("ChromaRadiance", RADIANCE, (3, 64, 64), double_and_single, text_first(16)),
    "Qwen-Image": Case(
        "QwenImage",
        QWEN,
        (16, 1, 8, 8),
        lambda model: [*model.transformer_blocks],
        [Stream("hidden_states", slice(0, 16))] * 4,
    ),
    "Qwen-Image Edit": Case(
        "QwenImage",
        QWEN,
        (16, 1, 8, 8),
        lambda model: [*model.transformer_blocks],
        [Stream("hidden_states", slice(0, 16))] * 4,
        lambda seed: reference(9, 16, 1, 4, 8),
    ),
    "HunyuanVideo": Case(
        "HunyuanVideo",
        HUNYUAN_VIDEO,
        (16, 3, 8, 8),
        double_and_single,
        [Stream("img", slice(0, 48))] * 2 + [Stream("x", slice(BEFORE + 0, BEFORE + 48))] * 2,
    ),
    "HunyuanVideo with a reference": Case(
        "HunyuanVideo",
        HUNYUAN_VIDEO,
        (16, 3, 8, 8),
        double_and_single,
        [Stream("img", slice(16, 64))] * 2 + [Stream("x", slice(BEFORE + 16, BEFORE + 64))] * 2,
        lambda seed: {"ref_latent": normal(9, 1, 16, 1, 8, 8)},
        one_row=True,
    ),
    "HunyuanVideo image to video": Case(
        "HunyuanVideoI2V",
        {**HUNYUAN_VIDEO, "in_channels": 33},
        (16, 3, 8, 8),
        double_and_single,
        [Stream("img", slice(0, 48))] * 2 + [Stream("x", slice(BEFORE + 0, BEFORE + 48))] * 2,
        lambda seed: {
            "guiding_frame_index": 0,
            "concat_latent_image": normal(9, 1, 16, 3, 8, 8),
            "concat_mask": torch.ones(1, 1, 3, 8, 8),
        },
        one_row=True,
    ),
    "HunyuanVideo with a masked prompt": Case(
        "HunyuanVideo",
        HUNYUAN_VIDEO,
        (16, 3, 8, 8),
        double_and_single,
        [Stream("img", slice(0, 48))] * 2 + [Stream("x", slice(BEFORE + 0, BEFORE + 48))] * 2,
        lambda seed: {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])},
        one_row=True,
    ),
    "Wan text to video, one frame": Case("WAN21_T2V", WAN, (16, 1, 8, 8), blocks, [Stream("x")] * 4),
    "Wan text to video": Case("WAN21_T2V", WAN, (16, 3, 8, 8), blocks, [Stream("x", slice(0, 48))] * 4),
    "Wan image to video": Case(
        "WAN21_I2V",
        {**WAN, "model_type": "i2v", "in_dim": 36},
        (16, 3, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {
            "concat_latent_image": normal(9, 1, 16, 3, 8, 8),
            "concat_mask": torch.ones(1, 1, 3, 8, 8),
            "clip_vision_output": type("Vision", (), {"penultimate_hidden_states": normal(8, 1, 4, 1280)})(),
        },
    ),
    "Wan with frames appended": Case(
        "WAN21_T2V",
        WAN,
        (16, 3, 8, 8),
        blocks,
        [Stream("x", slice(0, 48))] * 4,
        lambda seed: {"time_dim_concat": normal(9, 1, 16, 1, 8, 8)},
    ),
    "Wan with a reference frame": Case(
        "WAN21_T2V",
        {**WAN, "in_dim_ref_conv": 16},
        (16, 3, 8, 8),
        blocks,
        [Stream("x", slice(16, 64))] * 4,
        lambda seed: reference(9, 16, 1, 8, 8),
    ),
    "Wan Vace": Case(
        "WAN21_Vace",
        {**WAN, "model_type": "vace", "vace_in_dim": 96, "vace_layers": 2},
        (16, 2, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {
            "vace_frames": [normal(9, 1, 32, 2, 8, 8)],
            "vace_mask": [torch.ones(1, 64, 2, 8, 8)],
            "vace_strength": [1.0],
        },
    ),
    "Wan Vace with two contexts": Case(
        "WAN21_Vace",
        {**WAN, "model_type": "vace", "vace_in_dim": 96, "vace_layers": 2},
        (16, 2, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {
            "vace_frames": [normal(8, 1, 32, 2, 8, 8), normal(9, 1, 32, 2, 8, 8)],
            "vace_mask": [torch.ones(1, 64, 2, 8, 8)] * 2,
            "vace_strength": [1.0, 0.5],
        },
    ),
    "Wan Camera": Case(
        "WAN21_Camera",
        {**WAN, "model_type": "camera"},
        (16, 2, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {"camera_conditions": normal(9, 1, 24, 2, 64, 64)},
    ),
    "Wan Animate": Case(
        "WAN22_Animate",
        {**WAN, "model_type": "animate"},
        (16, 3, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {"pose_video_latent": normal(9, 1, 16, 2, 8, 8)},
    ),
    "Wan HuMo": Case(
        "WAN21_HuMo",
        {**WAN, "model_type": "humo"},
        (16, 2, 8, 8),
        blocks,
        [Stream("x", slice(0, 32))] * 4,
        lambda seed: {"audio_embed": normal(seed + 9, 1, 2, 8, 5, 1280), **reference(9, 16, 1, 8, 8)},
    ),
    "Wan speech to video": Case(
        "WAN22_S2V",
        {**WAN, "model_type": "s2v", "audio_dim": 16, "audio_inject_layers": [0, 2]},
        (16, 2, 8, 8),
        blocks,
        [Stream("x", slice(0, 32))] * 4,
        lambda seed: {"audio_embed": normal(seed + 9, 1, 25, 16, 8), **reference(9, 16, 1, 8, 8)},
    ),
    "HunyuanImage": Case(
        "HunyuanImage21",
        {**HUNYUAN_VIDEO, "patch_size": [1, 1], "axes_dim": [16, 16], "vec_in_dim": None, "in_channels": 64}
        | {"out_channels": 64},
        (64, 4, 4),
        double_and_single,
        [Stream("img")] * 2 + [Stream("x", slice(BEFORE + 0, BEFORE + 16))] * 2,
    ),
    "AuraFlow": Case(
        "AuraFlow",
        {
            "max_seq": 64,
            "cond_seq_dim": CONTEXT,
            "n_double_layers": 2,
            "n_layers": 4,
            "dim": 64,
            "n_heads": 2,
            "global_conddim": 64,
        },
        (4, 8, 8),
        lambda model: [*model.double_layers, *model.single_layers],
        [Stream("x")] * 2 + [Stream("cx", slice(8 + TEXT, None))] * 2,  # 8 register tokens
    ),
    "LTX-Video": Case(
        "LTXV",
        {
            "image_model": "ltxv",
            "in_channels": 128,
            "num_layers": 4,
            "attention_head_dim": 32,
            "num_attention_heads": 2,
            "cross_attention_dim": 64,
            "caption_channels": CONTEXT,
        },
        (128, 2, 4, 4),
        lambda model: [*model.transformer_blocks],
        [Stream("x")] * 4,
        lambda seed: {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])},
    ),
    "Mochi": Case(
        "GenmoMochi",
        {
            "image_model": "mochi_preview",
            "depth": 4,
            "patch_size": 2,
            "num_heads": 2,
            "hidden_size_x": 64,
            "hidden_size_y": 32,
            "mlp_ratio_x": 192.0,  # the host insists on a hidden width of 12,288
            "mlp_ratio_y": 2.0,
            "learn_sigma": False,
            "in_channels": 12,
            "qk_norm": True,
            "qkv_bias": False,
            "out_bias": True,
            "attn_drop": 0.0,
            "patch_embed_bias": True,
            "posenc_preserve_area": True,
            "timestep_mlp_bias": True,
            "attend_to_padding": False,
            "timestep_scale": 1000.0,
            "use_t5": True,
            "t5_feat_dim": CONTEXT,
            "t5_token_length": TEXT,
            "rope_theta": 10000.0,
        },
        (12, 2, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {"attention_mask": torch.tensor([[True, True, True, True, False]])},
    ),
    "HunyuanDiT": Case(
        "HunyuanDiT1",
        {
            "image_model": "hydit1",
            "depth": 6,
            "hidden_size": 64,
            "num_heads": 2,
            "mlp_ratio": 2.0,
            "size_cond": True,
            "use_style_cond": True,
            "context width": 1024,
        },
        (4, 8, 8),
        blocks,
        [Stream("x")] * 6,
        lambda seed: {
            "attention_mask": torch.ones(1, 77),
            "conditioning_mt5xl": normal(seed + 50, 1, 256, 2048),
            "attention_mask_mt5xl": torch.ones(1, 256),
        },
        text=77,
    ),
    "Lumina 2": Case(
        "Lumina2",
        LUMINA,
        (16, 8, 8),
        lambda model: [*model.noise_refiner, *model.layers],
        [Stream("x", slice(0, 16))] + [Stream("x", slice(TEXT, TEXT + 16))] * 3,
    ),
    "Z-Image": Case(  # text and picture are padded to multiples of 8 tokens
        "ZImage",
        Z_IMAGE,
        (16, 6, 6),
        lambda model: [*model.noise_refiner, *model.layers],
        [Stream("x", slice(0, 9))] + [Stream("x", slice(8, 17))] * 3,
    ),
    "HiDream": Case(
        "HiDream",
        {
            "image_model": "hidream",
            "attention_head_dim": 32,
            "axes_dims_rope": [16, 8, 8],
            "caption_channels": [CONTEXT, CONTEXT],
            "max_resolution": [16, 16],
            "in_channels": 16,
            "llama_layers": [0, 1, 2, 3],
            "num_attention_heads": 2,
            "num_routed_experts": 2,
            "num_activated_experts": 1,
            "num_layers": 2,
            "num_single_layers": 2,
            "out_channels": 16,
            "patch_size": 2,
            "text_emb_dim": CONTEXT,
        },
        (16, 8, 8),
        lambda model: [*model.double_stream_blocks, *model.single_stream_blocks],
        [Stream("image_tokens", slice(0, 16))] * 4,
        lambda seed: {"conditioning_llama3": normal(seed + 50, 1, 4, TEXT, CONTEXT)},
    ),
    "OmniGen2": Case(
        "Omnigen2",
        {
            "image_model": "omnigen2",
            "axes_dim_rope": [8, 12, 12],
            "axes_lens": [64, 64, 64],
            "hidden_size": 64,
            "in_channels": 16,
            "multiple_of": 16,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "num_layers": 3,
            "num_refiner_layers": 1,
            "out_channels": None,
            "patch_size": 2,
            "text_feat_dim": CONTEXT,
            "timestep_scale": 1000.0,
        },
        (16, 8, 8),
        lambda model: [*model.noise_refiner, *model.layers],
        # A reference of 8 tokens stands between text and picture.
        [Stream("hidden_states")] + [Stream("hidden_states", slice(TEXT + 8, None))] * 3,
        lambda seed: {"attention_mask": torch.ones(1, TEXT, dtype=torch.long), **reference(9, 16, 4, 8)},
    ),
    "PixArt": Case(
        "PixArtSigma",
        {
            "image_model": "pixart_sigma",
            "num_heads": 2,
            "patch_size": 2,
            "hidden_size": 64,
            "in_channels": 4,
            "depth": 4,
            "caption_channels": CONTEXT,
            "model_max_length": TEXT,
            "input_size": 40,
            "pe_interpolation": 1,
            "micro_condition": False,
        },
        (4, 40, 40),
        blocks,
        [Stream("x")] * 4,
    ),
    "Cosmos": Case(
        "CosmosT2V",
        {
            **COSMOS,
            "block_config": "FA-CA-MLP",
            "block_x_format": "THWBD",
            "affline_emb_norm": True,
            "extra_per_block_abs_pos_emb": True,
            "extra_per_block_abs_pos_emb_type": "learnable",
        },
        (16, 2, 8, 8),
        lambda model: [*model.blocks.values()],
        [Stream("x", rows=3)] * 4,
    ),
    "Cosmos Predict2": Case(
        "CosmosT2IPredict2",
        PREDICT2,
        (16, 1, 8, 8),
        blocks,
        [Stream("x_B_T_H_W_D")] * 4,
    ),
    **NEWER,
}


@cache
def load(name: str) -> ModelPatcher:
    case = CASES[name]
    patcher = built(case.class_of_config, {key: value for key, value in case.sizes.items() if " " not in key})
    network = patcher.model.diffusion_model
    weights = random_weights(network, seed=0)
    for key, value in network.state_dict().items():
        if value.ndim == 1 and re.search(r"norm.*(weight|scale)$|_ln\.weight$", key):
            weights[key] = weights[key] + 1
        if not value.is_floating_point():
            weights[key] = value
    network.load_state_dict(weights)
    return case.prepared(patcher)
