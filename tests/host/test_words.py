"""Where attention puts words: every family against attention computed in full, by an ordinary wrapper around it."""

import importlib
from contextlib import contextmanager

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from family_models import CASES, load
from plain import relative_error
from sampling import sample, stock_guider
from test_families import of_cases

# Where each family's attention is called, and where the prompt's tokens and the picture's stand in it.
MODULES = {
    "flux": "comfy.ldm.flux.math",
    "qwen": "comfy.ldm.qwen_image.model",
    "wan": "comfy.ldm.wan.model",
    "aura": "comfy.ldm.aura.mmdit",
    "cosmos": "comfy.ldm.cosmos.blocks",
    "predict2": "comfy.ldm.cosmos.predict2",
    "ltx": "comfy.ldm.modules.attention",
    "sd3": "comfy.ldm.modules.diffusionmodules.mmdit",
}
READ = {  # case → module, first query of the picture, its tokens, first key of the prompt
    "Flux": ("flux", 5, 16, 0),
    "Flux, odd size": ("flux", 5, 20, 0),
    "Flux Kontext": ("flux", 5, 16, 0),
    "Flux.2": ("flux", 512, 16, 507),
    "Chroma": ("flux", 5, 16, 0),
    "Chroma Radiance": ("flux", 5, 16, 0),
    "Qwen-Image": ("qwen", 5, 16, 0),
    "Qwen-Image Edit": ("qwen", 5, 16, 0),
    "HunyuanVideo": ("flux", 0, 48, 48),
    "AuraFlow": ("aura", 13, 16, 8),
    "Wan text to video": ("wan", 0, 48, 0),
    "Wan image to video": ("wan", 0, 48, 0),
    "LTX-Video": ("ltx", 0, None, 0),
    "Cosmos": ("cosmos", 0, None, 0),
    "Cosmos Predict2": ("predict2", 0, None, 0),
}
PLACES = ((1,), (2, 4), (0, 3))


def words_of(pack, length, layer):
    return pack.module("detail_guidance.words").Words(("one", "two"), PLACES, length, layer)


def read(pack, patcher, words, guider, noise):
    """What the pack reads of every forward: [(id, index, attention)], and what was sampled."""
    module, forwards = pack.module("host.words"), pack.module("host.forward")
    of_model, shown = pack.module("host.families").anatomy(patcher), []

    def patches_for(batch):
        reading = of_model.family.reading(of_model.network, batch.latent, batch.conditions, {})
        wanted = {cond["uuid"] for cond in guider.conds["positive"]}
        return module.reading_words(words, of_model, batch, reading, wanted, lambda *seen: shown.append(seen))

    clone = patcher.clone()
    pack.module("host.block_hooks").install(clone, of_model.family)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "words", forwards.patched(patches_for))
    guider.model_patcher = clone
    return shown, sample(guider, noise=noise, steps=1)


@contextmanager
def attention_of(module, block, calls):
    """Notes queries, keys and mask of every attention in a block, by a wrapper around the host's function."""
    module, inside = importlib.import_module(MODULES[module]), []
    names = [name for name in ("optimized_attention", "optimized_attention_masked") if hasattr(module, name)]
    before = {name: vars(module)[name] for name in names}

    def noting(attention):
        def run(q, k, v, heads, *rest, **more):
            if inside:
                each = [q, k]
                if not more.get("skip_reshape"):
                    each = [x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in each]
                mask = rest[0] if rest else more.get("mask")
                calls.append((*(x.detach().clone() for x in each), mask))
            return attention(q, k, v, heads, *rest, **more)

        return run

    handles = [
        block.register_forward_pre_hook(lambda *_: inside.append(1)),
        block.register_forward_hook(lambda *_: inside.clear()),
    ]
    for name, attention in before.items():
        setattr(module, name, noting(attention))
    try:
        yield
    finally:
        for name, attention in before.items():
            setattr(module, name, attention)
        for handle in handles:
            handle.remove()


def in_full(q, k, mask, first, tokens, first_key):
    """Mean over heads and over a word's tokens of the softmax over all keys, (rows, words, tokens)."""
    scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
    if mask is not None:
        scores = scores + (mask if mask.ndim == 4 else mask[:, None])
    attention = (scores - scores.logsumexp(dim=-1, keepdim=True)).exp().mean(dim=1)
    picture = attention[:, first : first + (tokens or q.shape[2])]
    return torch.stack([picture[:, :, [first_key + t for t in word]].mean(dim=-1) for word in PLACES], dim=1)


@of_cases(*READ)
@pytest.mark.parametrize("share", [0.0, 0.75])
def test_equals_attention_in_full(pack, name, share):
    case, patcher = CASES[name], load(name)
    number = int(share * case.depth)
    module, first, tokens, first_key = READ[name]
    if name == "HunyuanVideo" and share:
        pytest.skip("its single blocks do not tell where the prompt is")
    noise = case.noise(1 if case.one_row else 2)
    block = case.blocks(patcher.model.diffusion_model)[number]
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    words = words_of(pack, case.text, (number + 0.5) / case.depth)
    shown, sampled = read(pack, patcher, words, stock_guider(patcher, **inputs), noise)
    plain, calls = stock_guider(patcher, **inputs), []
    with attention_of(module, block, calls):
        expected_sample = sample(plain, noise=noise, steps=1)
    assert torch.equal(sampled, expected_sample), "watching changes nothing"
    across = [call for call in calls if call[1].shape[2] == case.text != call[0].shape[2]]
    ((_, _, found),) = shown
    expected = in_full(*(across or calls)[0], first, tokens, first_key)
    # The host puts the negative's rows before the positive's.
    assert relative_error(found, expected[-len(noise) :]) <= 1e-5
