"""Against the plain implementation in float32; bit-identity wherever nothing is to be added."""

import comfy.sample
import pytest
import torch
from models import VARIANTS, conditioning, latent, model
from plain import PlainDetailGuider, relative_error
from sampling import counted, detail_guider, sample, stock_guider

DEPTH = 4


@pytest.mark.parametrize("keep", [0.0, 0.5])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("batching", ["together", "in turn"])
@pytest.mark.parametrize("layers", [(2,), (1, 2, 3)])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_plain_implementation(pack, variant, cfg, layers, batching, batch, keep):
    patcher = model(variant, DEPTH)
    guider = detail_guider(
        pack,
        patcher,
        options={"batching": batching, "keep_start": keep, "keep_end": keep},
        cfg=cfg,
        layer_start=layers[0] / DEPTH,
        layer_end=layers[-1] / DEPTH,
    )
    plain = PlainDetailGuider(patcher, conditioning(1), conditioning(2), cfg, w=1.5, layers=layers, keep=keep)
    assert relative_error(sample(guider, batch), sample(plain, batch)) <= 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_detail_term_is_large_enough_for_these_comparisons_to_mean_something(variant):
    patcher = model(variant, DEPTH)
    guided = PlainDetailGuider(patcher, conditioning(1), conditioning(2), 4.0, w=1.5, keep=0.5)
    assert relative_error(sample(stock_guider(patcher)), sample(guided)) > 1e-2


@pytest.mark.parametrize("batching", ["together", "in turn"])
@pytest.mark.parametrize("layers", [(0,), (3,), (0, 1, 2, 3)])
def test_first_and_last_layer(pack, layers, batching):
    patcher = model(depth=DEPTH)
    inputs = {"layer_start": layers[0] / DEPTH, "layer_end": layers[-1] / DEPTH}
    plain = PlainDetailGuider(patcher, conditioning(1), conditioning(2), 4.0, w=1.5, layers=layers)
    actual = sample(detail_guider(pack, patcher, {"batching": batching}, **inputs))
    assert relative_error(actual, sample(plain)) <= 1e-5


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral"])
def test_other_samplers(pack, sampler):
    patcher = model(depth=DEPTH)
    plain = PlainDetailGuider(patcher, conditioning(1), conditioning(2), 4.0, w=1.5)
    actual = sample(detail_guider(pack, patcher), sampler=sampler, steps=3)
    assert relative_error(actual, sample(plain, sampler=sampler, steps=3)) <= 1e-5


@pytest.mark.parametrize("off", [{"dg_scale": 0.0}, {"enabled": False}], ids=str)
def test_off_is_the_stock_guider(pack, off):
    patcher = model(depth=DEPTH)
    guider = detail_guider(pack, patcher, **off)
    assert guider.model_patcher.wrappers == {} and guider.model_patcher.model_options == patcher.model_options
    with counted(patcher) as stock_rows:
        expected = sample(stock_guider(patcher))
    with counted(patcher) as rows:
        assert torch.equal(sample(guider), expected)
    assert rows == stock_rows


def test_steps_outside_the_window_are_the_stock_guiders(pack):
    patcher = model(depth=DEPTH)
    with counted(patcher) as stock_rows:
        expected = sample(stock_guider(patcher))
    # Two steps of the simple schedule: percents 0 and 0.5; neither lies from 0.6 to 0.7.
    with counted(patcher) as rows:
        actual = sample(detail_guider(pack, patcher, start_percent=0.6, end_percent=0.7))
    assert torch.equal(actual, expected)
    assert rows == stock_rows


def test_only_the_steps_inside_the_window_are_guided(pack):
    patcher = model(depth=DEPTH)
    with counted(patcher) as rows:
        sample(detail_guider(pack, patcher, layer_start=0.75, layer_end=0.75, end_percent=0.3), steps=4)
    assert rows == [8, 8, 8, 8 + 2]  # percents 0 and 0.25 of 0, 0.25, 0.5, 0.75


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_ksampler_with_detail_guidance_is_detail_guider(pack, cfg):
    patcher = model(depth=DEPTH)
    patched = pack.run("DetailGuidance", model=patcher, dg_scale=1.5, layer_start=0.5, layer_end=0.5)
    start = latent()["samples"] * 0
    arguments = {"steps": 2, "cfg": cfg, "sampler_name": "euler", "scheduler": "simple", "seed": 5}
    noise = latent(seed=5)["samples"]
    positive, negative = conditioning(1), conditioning(2)
    actual = comfy.sample.sample(patched, noise, positive=positive, negative=negative, latent_image=start, **arguments)
    assert torch.equal(actual, sample(detail_guider(pack, patcher, cfg=cfg)))


def test_the_patched_model_leaves_the_original_alone(pack):
    patcher = model(depth=DEPTH)
    before = sample(stock_guider(patcher))
    sample(detail_guider(pack, patcher))
    assert patcher.wrappers == {}
    assert torch.equal(sample(stock_guider(patcher)), before)


def test_a_guider_can_be_sampled_again(pack):
    guider = detail_guider(pack, model(depth=DEPTH))
    assert torch.equal(sample(guider), sample(guider))
