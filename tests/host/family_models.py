"""One tiny model of the host's own class for every family, with random weights, and what is known of it beforehand.

Where the picture's tokens lie is written down here as plain numbers, from the sizes chosen here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import comfy.supported_models as supported
import torch
from comfy.model_patcher import ModelPatcher
from models import built, random_weights
from plain import Stream

TEXT = 5  # tokens of a prompt
CONTEXT = 32  # their width


@dataclass(frozen=True)
class Case:
    """
    Attributes:
        config: the host's model configuration class.
        sizes: what the host would read from the weights.
        latent: shape of one picture's latent, (channels, …, height, width).
        blocks: diffusion model → its blocks in execution order.
        streams: of each of them.
        conditions: seed → what stands beside the prompt in a condition.
        text: tokens of a prompt.
        one_row: the host itself takes these conditions for one picture and one condition at a time.
    """

    config: type
    sizes: dict[str, Any]
    latent: tuple[int, ...]
    blocks: Callable[[Any], list]
    streams: list[Stream]
    conditions: Callable[[int], dict[str, Any]] = field(default=lambda seed: {})
    text: int = TEXT
    one_row: bool = False

    @property
    def depth(self) -> int:
        return len(self.streams)

    def conditioning(self, seed: int) -> list:
        width = self.sizes.get("context width", CONTEXT)
        entry = {"pooled_output": normal(seed, 1, CONTEXT), **self.conditions(seed)}
        return [[normal(seed + 100, 1, self.text, width), entry]]


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def load(name: str) -> ModelPatcher:
    case = CASES[name]
    patcher = built(case.config, {key: value for key, value in case.sizes.items() if " " not in key})
    network = patcher.model.diffusion_model
    weights = random_weights(network, seed=0)
    for key, value in network.state_dict().items():
        if value.ndim == 1 and "norm" in key and key.endswith(("weight", "scale")):
            weights[key] = weights[key] + 1
        if not value.is_floating_point():
            weights[key] = value
    network.load_state_dict(weights)
    return patcher


HEAD = {"num_heads": 2, "hidden_size": 64, "mlp_ratio": 4.0, "theta": 10000, "axes_dim": [8, 12, 12], "qkv_bias": True}
FLUX = {
    **HEAD,
    "image_model": "flux",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": CONTEXT,
    "context_in_dim": CONTEXT,
    "depth": 2,
    "depth_single_blocks": 2,
    "patch_size": 2,
    "guidance_embed": True,
}
FLUX2 = {
    **FLUX,
    "image_model": "flux2",
    "in_channels": 128,
    "out_channels": 128,
    "vec_in_dim": None,
    "axes_dim": [8, 8, 8, 8],
    "patch_size": 1,
    "global_modulation": True,
    "mlp_silu_act": True,
    "qkv_bias": False,
    "ops_bias": False,
    "default_ref_method": "index",
    "ref_index_scale": 10.0,
}
CHROMA = {
    **HEAD,
    "image_model": "chroma",
    "in_channels": 64,
    "out_channels": 64,
    "context_in_dim": CONTEXT,
    "depth": 2,
    "depth_single_blocks": 2,
    "patch_size": 2,
    "in_dim": 64,
    "out_dim": 64,
    "hidden_dim": 32,
    "n_layers": 2,
}
RADIANCE = {
    **CHROMA,
    "image_model": "chroma_radiance",
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": 16,
    "nerf_hidden_size": 8,
    "nerf_mlp_ratio": 2,
    "nerf_depth": 1,
    "nerf_max_freqs": 4,
    "nerf_tile_size": 0,
    "nerf_final_head_type": "conv",
    "nerf_embedder_dtype": torch.float32,
}
HUNYUAN_VIDEO = {
    **HEAD,
    "image_model": "hunyuan_video",
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": CONTEXT,
    "context_in_dim": CONTEXT,
    "depth": 2,
    "depth_single_blocks": 2,
    "theta": 256,
    "patch_size": [1, 2, 2],
    "guidance_embed": True,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
}
QWEN = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "num_layers": 4,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": CONTEXT,
    "axes_dims_rope": (8, 12, 12),
}
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 64,
    "out_dim": 16,
    "in_dim": 16,
    "num_heads": 2,
    "ffn_dim": 128,
    "num_layers": 4,
    "patch_size": (1, 2, 2),
    "freq_dim": 32,
    "text_dim": CONTEXT,
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
}
LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 64,
    "cap_feat_dim": CONTEXT,
    "n_layers": 3,
    "n_refiner_layers": 1,
    "qk_norm": True,
    "n_heads": 2,
    "n_kv_heads": 1,
    "axes_dims": [8, 12, 12],
    "axes_lens": [64, 64, 64],
    "rope_theta": 10000.0,
    "ffn_dim_multiplier": 2.0,
}
COSMOS = {
    "image_model": "cosmos",
    "max_img_h": 32,
    "max_img_w": 32,
    "max_frames": 16,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 64,
    "concat_padding_mask": True,
    "pos_emb_cls": "rope3d",
    "pos_emb_learnable": False,
    "pos_emb_interpolation": "crop",
    "use_adaln_lora": True,
    "adaln_lora_dim": 16,
    "num_blocks": 4,
    "num_heads": 2,
    "crossattn_emb_channels": CONTEXT,
    "rope_h_extrapolation_ratio": 1.0,
    "rope_w_extrapolation_ratio": 1.0,
    "rope_t_extrapolation_ratio": 1.0,
}


def double_and_single(model):
    return [*model.double_blocks, *model.single_blocks]


def blocks(model):
    return [*model.blocks]


def text_first(picture: int, text: int = TEXT) -> list[Stream]:
    return [Stream("img", slice(0, picture))] * 2 + [Stream("x", slice(text, text + picture))] * 2


def reference(seed: int, *shape: int) -> dict[str, Any]:
    return {"reference_latents": [normal(seed, 1, *shape)]}


CASES = {
    "Flux": Case(supported.Flux, FLUX, (16, 8, 8), double_and_single, text_first(16)),
    "Flux, odd size": Case(supported.Flux, FLUX, (16, 7, 9), double_and_single, text_first(20)),
    "Flux without guidance": Case(
        supported.FluxSchnell, {**FLUX, "guidance_embed": False}, (16, 8, 8), double_and_single, text_first(16)
    ),
    "Flux Kontext": Case(
        supported.Flux, FLUX, (16, 8, 8), double_and_single, text_first(16), lambda seed: reference(9, 16, 4, 8)
    ),
    "Flux.2": Case(supported.Flux2, FLUX2, (128, 4, 4), double_and_single, text_first(16, text=512)),
    "Flux.2 with a reference": Case(
        supported.Flux2,
        FLUX2,
        (128, 4, 4),
        double_and_single,
        text_first(16, text=512),
        lambda seed: reference(9, 128, 2, 4),
    ),
    "Chroma": Case(supported.Chroma, CHROMA, (16, 8, 8), double_and_single, text_first(16)),
    "Chroma Radiance": Case(supported.ChromaRadiance, RADIANCE, (3, 64, 64), double_and_single, text_first(16)),
    "Qwen-Image": Case(
        supported.QwenImage,
        QWEN,
        (16, 1, 8, 8),
        lambda model: [*model.transformer_blocks],
        [Stream("hidden_states", slice(0, 16))] * 4,
    ),
    "Qwen-Image Edit": Case(
        supported.QwenImage,
        QWEN,
        (16, 1, 8, 8),
        lambda model: [*model.transformer_blocks],
        [Stream("hidden_states", slice(0, 16))] * 4,
        lambda seed: reference(9, 16, 1, 4, 8),
    ),
    "HunyuanVideo": Case(
        supported.HunyuanVideo,
        HUNYUAN_VIDEO,
        (16, 3, 8, 8),
        double_and_single,
        [Stream("img", slice(0, 48))] * 2 + [Stream("x", slice(0, 48))] * 2,
    ),
    "HunyuanVideo with a reference": Case(
        supported.HunyuanVideo,
        HUNYUAN_VIDEO,
        (16, 3, 8, 8),
        double_and_single,
        [Stream("img", slice(16, 64))] * 2 + [Stream("x", slice(16, 64))] * 2,
        lambda seed: {"ref_latent": normal(9, 1, 16, 1, 8, 8)},
        one_row=True,
    ),
    "HunyuanVideo image to video": Case(
        supported.HunyuanVideoI2V,
        {**HUNYUAN_VIDEO, "in_channels": 33},
        (16, 3, 8, 8),
        double_and_single,
        [Stream("img", slice(0, 48))] * 2 + [Stream("x", slice(0, 48))] * 2,
        lambda seed: {
            "guiding_frame_index": 0,
            "concat_latent_image": normal(9, 1, 16, 3, 8, 8),
            "concat_mask": torch.ones(1, 1, 3, 8, 8),
        },
        one_row=True,
    ),
    "HunyuanVideo with a masked prompt": Case(
        supported.HunyuanVideo,
        HUNYUAN_VIDEO,
        (16, 3, 8, 8),
        double_and_single,
        [Stream("img", slice(0, 48))] * 2 + [Stream("x", slice(0, 48))] * 2,
        lambda seed: {"attention_mask": torch.tensor([[1, 1, 1, 1, 0]])},
        one_row=True,
    ),
    "Wan text to video, one frame": Case(supported.WAN21_T2V, WAN, (16, 1, 8, 8), blocks, [Stream("x")] * 4),
    "Wan text to video": Case(supported.WAN21_T2V, WAN, (16, 3, 8, 8), blocks, [Stream("x", slice(0, 48))] * 4),
    "Wan image to video": Case(
        supported.WAN21_I2V,
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
        supported.WAN21_T2V,
        WAN,
        (16, 3, 8, 8),
        blocks,
        [Stream("x", slice(0, 48))] * 4,
        lambda seed: {"time_dim_concat": normal(9, 1, 16, 1, 8, 8)},
    ),
    "Wan with a reference frame": Case(
        supported.WAN21_T2V,
        {**WAN, "in_dim_ref_conv": 16},
        (16, 3, 8, 8),
        blocks,
        [Stream("x", slice(16, 64))] * 4,
        lambda seed: reference(9, 16, 1, 8, 8),
    ),
    "Wan Vace": Case(
        supported.WAN21_Vace,
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
        supported.WAN21_Vace,
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
        supported.WAN21_Camera,
        {**WAN, "model_type": "camera"},
        (16, 2, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {"camera_conditions": normal(9, 1, 24, 2, 64, 64)},
    ),
    "Wan Animate": Case(
        supported.WAN22_Animate,
        {**WAN, "model_type": "animate"},
        (16, 3, 8, 8),
        blocks,
        [Stream("x")] * 4,
        lambda seed: {"pose_video_latent": normal(9, 1, 16, 2, 8, 8)},
    ),
    "Wan HuMo": Case(
        supported.WAN21_HuMo,
        {**WAN, "model_type": "humo"},
        (16, 2, 8, 8),
        blocks,
        [Stream("x", slice(0, 32))] * 4,
        lambda seed: {"audio_embed": normal(seed + 9, 1, 2, 8, 5, 1280), **reference(9, 16, 1, 8, 8)},
    ),
    "Wan speech to video": Case(
        supported.WAN22_S2V,
        {**WAN, "model_type": "s2v", "audio_dim": 16, "audio_inject_layers": [0, 2]},
        (16, 2, 8, 8),
        blocks,
        [Stream("x", slice(0, 32))] * 4,
        lambda seed: {"audio_embed": normal(seed + 9, 1, 25, 16, 8), **reference(9, 16, 1, 8, 8)},
    ),
    "HunyuanImage": Case(
        supported.HunyuanImage21,
        {**HUNYUAN_VIDEO, "patch_size": [1, 1], "axes_dim": [16, 16], "vec_in_dim": None, "in_channels": 64}
        | {"out_channels": 64},
        (64, 4, 4),
        double_and_single,
        [Stream("img")] * 2 + [Stream("x", slice(0, 16))] * 2,
    ),
    "AuraFlow": Case(
        supported.AuraFlow,
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
        supported.LTXV,
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
        supported.GenmoMochi,
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
        supported.HunyuanDiT1,
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
        supported.Lumina2,
        LUMINA,
        (16, 8, 8),
        lambda model: [*model.noise_refiner, *model.layers],
        [Stream("x", slice(0, 16))] + [Stream("x", slice(TEXT, TEXT + 16))] * 3,
    ),
    "Z-Image": Case(  # text and picture are padded to multiples of 8 tokens
        supported.ZImage,
        {
            **LUMINA,
            "dim": 256,
            "n_heads": 8,
            "n_kv_heads": 8,
            "z_image_modulation": True,
            "pad_tokens_multiple": 8,
            "time_scale": 1000.0,
        },
        (16, 6, 6),
        lambda model: [*model.noise_refiner, *model.layers],
        [Stream("x", slice(0, 9))] + [Stream("x", slice(8, 17))] * 3,
    ),
    "HiDream": Case(
        supported.HiDream,
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
        supported.Omnigen2,
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
        supported.PixArtSigma,
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
        supported.CosmosT2V,
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
        supported.CosmosT2IPredict2,
        {
            **COSMOS,
            "image_model": "cosmos_predict2",
            "pos_emb_learnable": True,
            "min_fps": 1,
            "max_fps": 30,
            "extra_per_block_abs_pos_emb": False,
            "extra_h_extrapolation_ratio": 1.0,
            "extra_w_extrapolation_ratio": 1.0,
            "extra_t_extrapolation_ratio": 1.0,
            "rope_enable_fps_modulation": False,
        },
        (16, 1, 8, 8),
        blocks,
        [Stream("x_B_T_H_W_D")] * 4,
    ),
}
