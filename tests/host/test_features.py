"""Features of every family against ordinary hooks; counted, saved, loaded; what is wrong with an input is said."""

import json
from functools import partial

import comfy.sample
import numpy as np
import pytest
import torch
from comfy.samplers import CFGGuider
from family_models import CASES, load
from models import MASSIVE, conditioning, latent, model
from plain import Stream, above_median, relative_error
from safetensors.torch import save_file
from sampling import counted
from test_families import of_cases

LEVEL, DRAWS, SEED = 0.3, 2, 11
SOUND = "LTX-2"  # its latents are pictures and sound, which no VAE makes of an image
STREAM = Stream(1)  # SD3's
FAMILIES = of_cases(*(name for name in CASES if not name.startswith(SOUND) and "cached" not in name))


def features(pack, patcher, samples, positive=None, **inputs):
    given = {"positive": positive or conditioning(1), "latent": {"samples": samples}, "massive_ratio": 5.0}
    given |= {"noise_level": LEVEL, "draws": DRAWS, "seed": SEED}
    return pack.outputs("DiTFeatures", model=patcher, **{**given, **inputs})


class Stop(Exception):
    """Raised where nothing more is wanted of a forward."""


def plain_states(patcher, positive, samples, level, draws, block, stream, module=None):
    """What a block is given for each draw, by an ordinary hook: (draws, pictures, tokens, channels); then the same of a
    module in it.

    The noisy latent is made here: (1 − t)·x + t·ε where the model scales the picture down, else x + t/(1 − t)·ε.
    """
    seen, inside = [], []

    def hook(block, args, kwargs):
        arguments, key = stream.find(block, args, kwargs)
        seen.append(stream.picture(arguments[key], None).flatten(1, -2).clone())
        if module is None:
            raise Stop

    def inner(_, args):
        inside.append(stream.picture(args[0], None).flatten(1, -2).clone())
        raise Stop

    class Once(CFGGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):
            sampling = self.inner_model.model_sampling
            clean, noise = self.inner_model.process_latent_in(samples), self.noise
            flow = "CONST" in [base.__name__ for base in type(sampling).__mro__]
            sigma = level if flow else level / (1 - level)
            noisy = (1 - level) * clean + level * noise if flow else clean + sigma * noise
            return super().predict_noise(noisy, torch.full_like(timestep, sigma), model_options, seed)

    handles = [block.register_forward_pre_hook(hook, with_kwargs=True)]
    if module is not None:
        handles.append(module.register_forward_pre_hook(inner))
    try:
        for draw in range(draws):
            guider = Once(patcher)
            guider.inner_set_conds({"positive": positive})
            guider.set_cfg(1.0)
            guider.noise = comfy.sample.prepare_noise(samples, SEED + draw)
            sampler = comfy.samplers.sampler_object("euler")
            with pytest.raises(Stop):
                guider.sample(guider.noise, samples, sampler, torch.tensor([0.5, 0.0]), seed=SEED)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(seen) if module is None else (torch.stack(seen), torch.stack(inside))


@FAMILIES
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_equal_to_ordinary_hooks(pack, name, share):
    """The hidden state with its channels zeroed, averaged over the draws; blocks from there on are not computed."""
    case, patcher = CASES[name], load(name)
    number = int(share * case.depth)
    batch = 1 if case.one_row else 2
    samples = case.noise(batch, seed=3)
    blocks = case.blocks(patcher.model.diffusion_model)
    inputs = {"layer": (number + 0.5) / case.depth, "normalise": "raw", "massive_ratio": 1.0}
    with counted(patcher, case.blocks, case.streams) as rows:
        found, report = features(pack, patcher, samples, case.conditioning(1), **inputs)
    assert rows[number:] == [0] * (case.depth - number) and all(rows[:number])
    states = plain_states(patcher, case.conditioning(1), samples, LEVEL, DRAWS, blocks[number], case.streams[number])
    dropped = above_median(states[0, :1].numpy(), ratio=1.0)
    assert found.dropped == tuple(sorted(dropped)) and f"block {number} of {case.depth}" in report
    states[..., dropped] = 0
    expected = states.mean(dim=0)
    actual = found.values.movedim(1, -1).reshape(expected.shape)
    assert relative_error(actual, expected) <= 1e-5


def of_flux(block):
    return block.img_attn.qkv if hasattr(block, "img_attn") else block.linear1


def of_aura(block):
    return block.attn.w2q if hasattr(block, "modX") else block.attn.w1q


def layer_norm(z, eps=1e-6):
    return (z - z.mean(dim=-1, keepdim=True)) / (z.var(dim=-1, unbiased=False, keepdim=True) + eps).sqrt()


def rms_norm(z, eps=1e-6):
    return z / (z.square().mean(dim=-1, keepdim=True) + eps).sqrt()


# Where a block's attention takes its modulated input, and the norm before it.
MODULATED = {
    "Flux": (of_flux, layer_norm),
    "Flux Kontext": (of_flux, layer_norm),
    "Flux.2": (of_flux, layer_norm),
    "Chroma": (of_flux, layer_norm),
    "Chroma Radiance": (of_flux, layer_norm),
    "HunyuanVideo": (of_flux, layer_norm),
    "Qwen-Image": (lambda block: block.attn.to_q, layer_norm),
    "Qwen-Image Edit": (lambda block: block.attn.to_q, layer_norm),
    "Wan text to video": (lambda block: block.self_attn.q, layer_norm),
    "AuraFlow": (of_aura, partial(layer_norm, eps=1e-5)),
    "PixArt": (lambda block: block.attn.qkv, layer_norm),
    "LTX-Video": (lambda block: block.attn1.to_q, rms_norm),
    "Lumina 2": (lambda block: block.attention.qkv, partial(rms_norm, eps=1e-5)),
    "Z-Image": (lambda block: block.attention.qkv, partial(rms_norm, eps=1e-5)),
}


@of_cases(*MODULATED)
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_modulated_as_in_front_of_the_attention(pack, name, share):
    """Shift and scale are read off what the attention is given, channel by channel, and not from AdaLN's weights."""
    case, patcher = CASES[name], load(name)
    number, (module_of, norm) = int(share * case.depth), MODULATED[name]
    samples = case.noise(1 if case.one_row else 2, seed=3)
    block = case.blocks(patcher.model.diffusion_model)[number]
    found, report = features(
        pack, patcher, samples, case.conditioning(1), layer=(number + 0.5) / case.depth, massive_ratio=1.0, maps=True
    )
    states, given = plain_states(
        patcher, case.conditioning(1), samples, LEVEL, DRAWS, block, case.streams[number], module_of(block)
    )
    own_weight = block.attention_norm1.weight.detach() if hasattr(block, "attention_norm1") else 1.0
    shift, scale = line_through(norm(states), given / own_weight)
    dropped = above_median(states[0, :1].numpy(), ratio=1.0)
    massive = states[..., sorted(dropped)]
    maps = (massive - massive.mean(dim=2, keepdim=True)) / (massive.var(dim=2, unbiased=False, keepdim=True) + 1e-6).sqrt()
    states[..., dropped] = 0
    expected = torch.cat([scale * layer_norm(states) + shift, maps], dim=-1).mean(dim=0)
    assert found.modulated and found.maps == len(dropped) and "modulated" in report
    actual = found.values.movedim(1, -1).reshape(expected.shape)
    assert relative_error(actual, expected) <= 1e-5


def line_through(x, y):
    """Of each channel over the tokens, in doubles: (shift, scale)."""
    x, y = x.double(), y.double()
    x0, y0 = x - x.mean(dim=2, keepdim=True), y - y.mean(dim=2, keepdim=True)
    scale = (x0 * y0).sum(dim=2, keepdim=True) / x0.square().sum(dim=2, keepdim=True)
    return (y.mean(dim=2, keepdim=True) - scale * x.mean(dim=2, keepdim=True)).float(), scale.float()


def test_sd3_is_modulated_and_where_there_is_no_adaln_it_is_said(pack):
    patcher, samples = model(), latent(1, 16, seed=4)["samples"]
    block = patcher.model.diffusion_model.joint_blocks[2]
    found, _ = features(pack, patcher, samples)
    states, given = plain_states(
        patcher, conditioning(1), samples, LEVEL, DRAWS, block, STREAM, block.x_block.attn.qkv
    )
    shift, scale = line_through(layer_norm(states), given)
    states[..., list(MASSIVE)] = 0
    expected = (scale * layer_norm(states) + shift).mean(dim=0)
    assert found.dropped == MASSIVE
    assert relative_error(found.values.movedim(1, -1).reshape(expected.shape), expected) <= 1e-5
    case = CASES["HunyuanDiT"]
    found, report = features(pack, load("HunyuanDiT"), case.noise(1), case.conditioning(1))
    assert not found.modulated and "does not give its AdaLN's values" in report
