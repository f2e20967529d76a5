"""Peak memory, counted: bytes of all tensors alive after each operation of a step, the weights left out."""

import pytest
from comparison import PLANS
from family_models import CASES, load, normal
from peak import peak, peak_of
from sampling import detail_guider, stock_guider
from test_words import words_of

# Larger pictures than elsewhere: beside a few tokens, everything is large.
LATENTS = {"Flux": (16, 32, 32), "Lumina 2": (16, 32, 32), "Wan text to video": (16, 5, 16, 16)}


@PLANS
@pytest.mark.parametrize("layer", [0.25, 0.5])
@pytest.mark.parametrize("name", LATENTS)
def test_peak_memory(pack, name, layer, batching):
    """In turn: one hidden state of the conditional rows above CFG's. Together: half of CFG's activations."""
    case, patcher, batch = CASES[name], load(name), 2
    noise = normal(5, batch, *LATENTS[name])
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    of_cfg = peak(stock_guider(patcher, **inputs), noise)
    options = {"massive_ratio": 1.0, "batching": batching}
    of_detail = peak(detail_guider(pack, patcher, options, layer_start=layer, layer_end=layer, **inputs), noise)
    tokens = noise[0, 0].numel() // 4 + case.text
    hidden_state = batch * tokens * 64 * 4  # width 64, float32
    if batching == "in turn":
        assert of_detail - of_cfg <= 1.01 * hidden_state  # and the channels found
    else:
        assert of_detail <= 1.5 * of_cfg


@pytest.mark.parametrize("name", LATENTS)
@pytest.mark.parametrize("layer", [0.25, 0.9])
def test_peak_memory_of_features(pack, name, layer):
    """One hidden state above sampling without CFG, at most: what is kept of the pictures; and the noise of all draws,
    which on these tiny models is as large."""
    case, patcher, batch = CASES[name], load(name), 2
    noise = normal(5, batch, *LATENTS[name])
    plain = stock_guider(patcher, positive=case.conditioning(1), cfg=1.0)
    pixels = {"downscale_ratio_spacial": 8}
    given = {"model": patcher, "positive": case.conditioning(1), "latent": {"samples": noise, **pixels}}
    of_features = peak_of(lambda: pack.outputs("DiTFeatures", **given, layer=layer, draws=1, massive_ratio=1.0))
    tokens = noise[0, 0].numel() // 4 + case.text
    hidden_state = batch * tokens * 64 * 4
    assert of_features <= peak(plain, noise) + hidden_state + 2 * noise.nbytes


@pytest.mark.parametrize("name", LATENTS)
@pytest.mark.parametrize("block", [0, 1, 3])
def test_peak_memory_of_reading_where_something_is(pack, name, block):
    """Less than one hidden state above plain sampling: for words, of their attention, and for the foreground."""
    case, patcher, batch = CASES[name], load(name), 2
    noise = normal(5, batch, *LATENTS[name])
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    plain = peak(stock_guider(patcher, **inputs), noise)
    layer = (block + 0.5) / case.depth
    regions = [pack.run("DetailForeground", layer=layer), words_of(pack, case.text, layer)]
    for region in regions[: 1 if name == "Lumina 2" else 2]:  # which does not tell its attention
        guider = stock_guider(patcher, **inputs)
        guider.model_patcher = pack.module("methods.regions.reader").read_each_step(patcher, region, lambda maps: None)
        tokens = noise[0, 0].numel() // 4 + case.text
        assert peak(guider, noise) <= plain + batch * tokens * 64 * 4
