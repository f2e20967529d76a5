"""Every family of the table, one tiny real model of the host's class each, against the plain implementation."""

import pytest
from family_models import CASES, load, normal
from plain import PlainDetailGuider, above_median, relative_error
from sampling import detail_guider, sample, stock_guider

FAMILIES = pytest.mark.parametrize("name", CASES)
PLANS = pytest.mark.parametrize("batching", ["together", "in turn"])
TOP = {"massive_ratio": 1.0, "max_channels": 4}  # random weights have no massive channels: take the four largest


def setting(name, cfg):
    """Case, model, and what both guiders are asked for; some conditions the host takes alone only."""
    case = CASES[name]
    batch = 1 if case.one_row else 2
    inputs = {
        "positive": case.conditioning(1),
        "negative": case.conditioning(2),
        "cfg": 1.0 if case.one_row else cfg,
    }
    return case, load(name), batch, inputs


def plain(case, patcher, positive, negative, cfg, layers, w=1.5):
    return PlainDetailGuider(
        patcher,
        positive,
        negative,
        cfg,
        w=w,
        layers=layers,
        keep=0.25,
        find=lambda z: above_median(z, ratio=1.0),
        blocks=case.blocks,
        streams=case.streams,
    )


def layers_of(kind, depth):
    return {"middle": (depth // 2,), "last": (depth - 1,), "across": tuple(range(depth // 2 - 1, depth // 2 + 1))}[kind]


def guided(pack, patcher, depth, layers, batching="auto", **inputs):
    options = {**TOP, "batching": batching, "keep_start": 0.25, "keep_end": 0.25}
    bounds = {"layer_start": (layers[0] + 0.5) / depth, "layer_end": (layers[-1] + 0.5) / depth}
    return detail_guider(pack, patcher, options, **bounds, **inputs)


@FAMILIES
@PLANS
@pytest.mark.parametrize("kind", ["middle", "across", "last"])
def test_equals_plain_implementation(pack, name, batching, kind):
    case, patcher, batch, inputs = setting(name, cfg=4.0)
    layers = layers_of(kind, case.depth)
    noise = normal(5, batch, *case.latent)
    expected = sample(plain(case, patcher, **inputs, layers=layers), noise=noise)
    actual = sample(guided(pack, patcher, case.depth, layers, batching, **inputs), noise=noise)
    assert relative_error(actual, expected) <= 1e-5
    unguided = sample(stock_guider(patcher, **inputs), noise=noise)
    assert relative_error(unguided, expected) > 1e-4, "the detail term must be large enough to compare"
