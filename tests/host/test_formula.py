"""Done when 2: against the plain implementation in float32, and bit-identity where nothing is guided."""

import comfy.samplers
import pytest
import torch
from models import VARIANTS, conditioning, latent, model
from plain import PlainDetailGuider, relative_error

STEPS = 3
DEPTH = 4


def sample(guider, batch=1, sampler="euler", seed=5, **arguments):
    """Latents after STEPS steps of the host's own sampler."""
    start = latent(batch)["samples"] * 0
    noise = latent(batch, seed=seed)["samples"]
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "simple", STEPS)
    return guider.sample(noise, start, comfy.samplers.sampler_object(sampler), sigmas, seed=seed, **arguments)


def detail_guider(pack, patcher, options=None, **inputs):
    """A DetailGuider with w = 1.5 and cfg = 4 at the middle layer unless `inputs` says otherwise."""
    if options is not None:
        inputs["options"] = pack.run("DetailGuidanceOptions", **options)
    defaults = {"positive": conditioning(1), "negative": conditioning(2), "cfg": 4.0, "dg_scale": 1.5}
    return pack.run("DetailGuider", model=patcher, **{**defaults, "layer_start": 0.5, "layer_end": 0.5, **inputs})


@pytest.mark.parametrize("keep", [0.0, 0.5])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("batching", ["together", "in turn"])
@pytest.mark.parametrize("layers", [(2,), (1, 2, 3), (0,)])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_plain_implementation(pack, variant, cfg, layers, batching, batch, keep):
    patcher = model(variant, DEPTH)
    options = {"batching": batching, "keep_start": keep, "keep_end": keep}
    start, end = layers[0] / DEPTH, layers[-1] / DEPTH
    guider = detail_guider(pack, patcher, options, cfg=cfg, layer_start=start, layer_end=end)
    plain = PlainDetailGuider(patcher, conditioning(1), conditioning(2), cfg, w=1.5, layers=layers, keep=keep)
    expected = sample(plain, batch)
    assert relative_error(sample(guider, batch), expected) <= 1e-5
    stock = PlainDetailGuider(patcher, conditioning(1), conditioning(2), cfg, w=0.0, layers=layers)
    assert relative_error(sample(stock, batch), expected) > 1e-3, "the detail term must matter for this test to mean anything"
