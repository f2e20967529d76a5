"""Small models of the host's own classes with random weights, loaded by the host's own loader."""

from functools import cache

import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.model_patcher import ModelPatcher
from comfy.sd import load_diffusion_model_state_dict

CONTEXT = 48
MASSIVE = (17, 130)  # planted: two channels far above the others on every image token
VARIANTS = {
    "SD3": {},
    "SD3.5-L-like": {"qk_norm": "rms"},
    "SD3.5-M-like": {"qk_norm": "rms", "x_block_self_attn_layers": [0, 1]},
}


def state_dict(depth: int, seed: int = 0, **variant) -> dict[str, torch.Tensor]:
    """Weights of an SD3-format model: hidden width 64 × depth, pictures of up to 16 × 16 tokens."""
    model = OpenAISignatureMMDITWrapper(
        input_size=None,
        in_channels=16,
        depth=depth,
        adm_in_channels=CONTEXT,
        context_embedder_config={
            "target": "torch.nn.Linear",
            "params": {"in_features": CONTEXT, "out_features": 64 * depth},
        },
        num_patches=256,
        pos_embed_max_size=16,
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
        **variant,
    )
    weights = random_weights(model, seed)
    weights["x_embedder.proj.bias"][list(MASSIVE)] = torch.tensor([60.0, -40.0])
    return weights


def random_weights(model: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(value.shape, generator=generator) * (value.shape[-1] ** -0.5 if value.ndim > 1 else 0.02)
        for name, value in model.state_dict().items()
    }
    for name in weights:
        if name.endswith((".ln_q.weight", ".ln_k.weight")):
            weights[name] = weights[name] + 1
    return weights


@cache
def model(variant: str = "SD3", depth: int = 4) -> ModelPatcher:
    return load_diffusion_model_state_dict(state_dict(depth, **VARIANTS[variant]))


@cache
def model_without_massive_channels() -> ModelPatcher:
    """Its largest channel is another one for another prompt."""
    weights = state_dict(4)
    weights["x_embedder.proj.bias"].zero_()
    return load_diffusion_model_state_dict(weights)


def conditioning(seed: int, tokens: int = 7, **extra) -> list:
    """A CONDITIONING of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, tokens, CONTEXT, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, CONTEXT, generator=generator), **extra}]]


def latent(batch: int = 1, size: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(batch, 16, size, size, generator=generator)}
