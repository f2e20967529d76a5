"""Small models of the host's own classes with random weights, loaded by the host's own loader."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import comfy.ops
import torch
from comfy import supported_models
from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
from comfy.model_patcher import ModelPatcher
from comfy.sd import load_diffusion_model_state_dict
from plain import PlainDetailGuider, Stream

CONTEXT = 48
CPU = torch.device("cpu")
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


@dataclass(frozen=True)
class Subject:
    """A model of four blocks that the neighbours' tests run on, and how the plain implementation sees it."""

    name: str
    model: ModelPatcher
    blocks: Callable[[Any], list]
    streams: tuple[Stream, ...]
    embedder: Callable[[Any], torch.nn.Module] | None = None

    def plain(self, patcher: ModelPatcher, *args: Any, **kwargs: Any) -> PlainDetailGuider:
        view = {"blocks": self.blocks, "streams": self.streams, "embedder": self.embedder}
        return PlainDetailGuider(patcher, *args, **kwargs, **view)

    def block(self, number: int) -> tuple[str, int]:
        """Kind and index in the host's block-replace key."""
        if self.name == "SD3":
            return "double_block", number
        return ("double_block", number) if number < 2 else ("single_block", number - 2)

    def layers(self, *numbers: int) -> dict[str, str]:
        """Blocks as the host's skip-layer nodes want them."""
        keys = [self.block(number) for number in numbers]
        kinds = {"double_layers": "double_block", "single_layers": "single_block"}
        return {name: ", ".join(str(index) for kind, index in keys if kind == wanted) for name, wanted in kinds.items()}


@cache
def subject(name: str) -> Subject:
    if name == "SD3":
        return Subject(name, model(), lambda model: [*model.joint_blocks], (Stream(1),) * 4)
    streams = (Stream("img"), Stream("img"), Stream("x", None), Stream("x", None))
    return Subject(
        name, flux(), lambda model: [*model.double_blocks, *model.single_blocks], streams, lambda m: m.img_in
    )


# Of newer hosts' constructors, which want them; older ones refuse them.
NEWER_SIZES = ("txt_ids_dims", "vec_in_dim", "use_x0", "use_sequential_txt_ids", "meanflow_sum")


def built(
    config: type,
    sizes: dict[str, Any],
    dtype: torch.dtype = torch.float32,
    computing: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> ModelPatcher:
    """A model of the host's configuration class; its weights, of `dtype`, are not set."""
    configured = config(dict(sizes))
    configured.set_inference_dtype(dtype, None if dtype is computing else computing)
    try:
        return ModelPatcher(configured.get_model({}, "", device), device, CPU)
    except TypeError as refused:
        for name in NEWER_SIZES:
            if f"unexpected keyword argument '{name}'" in str(refused):
                accepted = {key: value for key, value in sizes.items() if key != name}
                return built(config, accepted, dtype, computing, device)
        raise


@cache
def flux() -> ModelPatcher:
    """Two double blocks and two single ones, as wide as the SD3 model's."""
    patcher = built(
        supported_models.Flux,
        {
            "image_model": "flux",
            "txt_ids_dims": [],
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": CONTEXT,
            "context_in_dim": CONTEXT,
            "hidden_size": 256,
            "mlp_ratio": 2.0,
            "num_heads": 4,
            "depth": 2,
            "depth_single_blocks": 2,
            "axes_dim": [16, 24, 24],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            "guidance_embed": True,
        },
    )
    weights = random_weights(patcher.model.diffusion_model, seed=0)
    for name in weights:
        if name.endswith("_norm.scale"):
            weights[name] = weights[name] + 1
    weights["img_in.bias"][list(MASSIVE)] = torch.tensor([60.0, -40.0])
    patcher.model.diffusion_model.load_state_dict(weights)
    return patcher


def conditioning(seed: int, tokens: int = 7, **extra) -> list:
    """A CONDITIONING of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, tokens, CONTEXT, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, CONTEXT, generator=generator), **extra}]]


def latent(batch: int = 1, size: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"samples": torch.randn(batch, 16, size, size, generator=generator)}
