"""Every family of the table, one tiny real model of the host's class each, against the plain implementation."""

from contextlib import contextmanager

import pytest
import torch
from comfy import supported_models
from comparison import PLANS
from family_models import CASES, load, normal
from models import built
from plain import PlainDetailGuider, above_median, relative_error
from sampling import counting_backend, detail_guider, reported, sample, stock_guider


def skipped_without(case):
    return pytest.mark.skipif(case.lacking is not None, reason=str(case.lacking))


def of_cases(*names):
    return pytest.mark.parametrize("name", [pytest.param(name, marks=skipped_without(CASES[name])) for name in names])


CACHED = "Flux.2 with a cached reference"  # what its forwards do depends on those before: tried on its own
FAMILIES = of_cases(*(name for name in CASES if name != CACHED))
TOP = {"massive_ratio": 1.0, "max_channels": 4}  # random weights have no massive channels: take the four largest


def setting(name):
    """Case, model, and what both guiders are asked for; some conditions the host takes alone only."""
    case, patcher = CASES[name], load(name)
    if hasattr(patcher.model.diffusion_model, "clear_kv_cache"):
        patcher.model.diffusion_model.clear_kv_cache()
    batch = 1 if case.one_row else 2
    inputs = {
        "positive": case.conditioning(1),
        "negative": case.conditioning(2),
        "cfg": 1.0 if case.one_row else 4.0,
    }
    return case, patcher, batch, inputs


def plain(case, patcher, positive, negative, cfg, layers):
    return PlainDetailGuider(
        patcher,
        positive,
        negative,
        cfg,
        w=1.5,
        layers=layers,
        keep=0.25,
        find=lambda z: above_median(z, ratio=1.0),
        blocks=case.blocks,
        streams=case.streams,
        picture=slice(case.numbers),
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
    case, patcher, batch, inputs = setting(name)
    layers = layers_of(kind, case.depth)
    noise = case.noise(batch)
    expected = sample(plain(case, patcher, **inputs, layers=layers), noise=noise)
    actual = sample(guided(pack, patcher, case.depth, layers, batching, **inputs), noise=noise)
    assert relative_error(actual, expected) <= 1e-5
    unguided = sample(stock_guider(patcher, **inputs), noise=noise)
    assert relative_error(unguided, expected) > 1e-4, "the detail term must be large enough to compare"


@contextmanager
def work(blocks):
    """Counts, while it lasts, the numbers that go into the linear layers of each block: in proportion to its rows."""
    numbers = [0] * len(blocks)

    def count(block):
        def hook(_, inputs):
            numbers[block] += inputs[0].numel()

        return hook

    handles = [
        module.register_forward_pre_hook(count(number))
        for number, block in enumerate(blocks)
        for module in block.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    try:
        yield numbers
    finally:
        for handle in handles:
            handle.remove()


# Wan Animate 2 computes its poses beside the blocks, in every forward.
@of_cases(*(name for name in CASES if name not in (CACHED, "Wan Animate 2")))
@PLANS
def test_blocks_before_the_layers_are_shared(pack, name, batching):
    """Nothing more than CFG in blocks before m, one conditional's work more from there on."""
    case, patcher, batch, inputs = setting(name)
    noise, m = case.noise(batch), case.depth - 2
    blocks = case.blocks(patcher.model.diffusion_model)
    with work(blocks) as stock:
        sample(stock_guider(patcher, **inputs), noise=noise, steps=1)
    with work(blocks) as numbers:
        sample(guided(pack, patcher, case.depth, (m,), batching, **inputs), noise=noise, steps=1)
    conditions = 1 if inputs["cfg"] == 1.0 else 2
    extra = [with_detail - without for with_detail, without in zip(numbers, stock, strict=True)]
    assert extra == [0] * m + [of_block // conditions for of_block in stock[m:]]


HOOKED = ["Lumina 2", "HiDream", "OmniGen2", "PixArt", "Cosmos", "Cosmos Predict2"]


@pytest.mark.parametrize("name", HOOKED)
def test_a_hook_of_this_pack_leaves_with_its_model(pack, name):
    """The host takes the hooks off when it loads another model; the weights' names never change."""
    case, patcher, batch, inputs = setting(name)
    noise, model = case.noise(batch), patcher.model
    before = sample(stock_guider(patcher, **inputs), noise=noise)
    classes, names = [type(module) for module in model.modules()], list(model.state_dict())
    guider = guided(pack, patcher, case.depth, (2,), **inputs)
    sample(guider, noise=noise)
    assert [type(module) for module in model.modules()] != classes and list(model.state_dict()) == names
    assert torch.equal(sample(stock_guider(patcher, **inputs), noise=noise), before)
    assert [type(module) for module in model.modules()] == classes
    off = pack.run("DetailGuidance", model=guider.model_patcher, dg_scale=0.0)
    assert off.object_patches == patcher.object_patches


@pytest.mark.parametrize("name, blocks", [("Lumina 2", "layers"), ("HiDream", "single_stream_blocks")])
@pytest.mark.parametrize("first", ["compiled", "detail guidance"])
@pytest.mark.parametrize("kind", ["middle", "across"])
def test_compiled_blocks_under_a_hook_of_this_pack(pack, name, blocks, first, kind):
    """As other packs compile blocks, one by one, as object patches."""
    case, patcher, batch, inputs = setting(name)
    noise, layers = case.noise(batch), layers_of(kind, case.depth)
    expected = sample(guided(pack, patcher, case.depth, layers, **inputs), noise=noise)
    stock = sample(stock_guider(patcher, **inputs), noise=noise)
    runs = []

    def with_compiled_blocks(model):
        model = model.clone()
        for number in range(2):
            block = f"diffusion_model.{blocks}.{number}"
            model.add_object_patch(block, torch.compile(model.get_model_object(block), backend=counting_backend(runs)))
        return model

    if first == "compiled":
        guider = guided(pack, with_compiled_blocks(patcher), case.depth, layers, **inputs)
    else:
        guider = guided(pack, patcher, case.depth, layers, **inputs)
        guider.model_patcher = with_compiled_blocks(guider.model_patcher)
    try:
        actual, report = reported(pack, guider, noise=noise)
    finally:
        torch.compiler.reset()
    assert relative_error(actual, expected) <= 1e-5 and runs
    assert report.steps_fired == report.steps_guided and report.warnings == []
    assert torch.equal(sample(stock_guider(patcher, **inputs), noise=noise), stock)


def test_a_subclass_of_a_family_is_refused(pack):
    """Where it has its picture is not known."""
    patcher = load("LTX-Video").clone()
    network = patcher.model.diffusion_model
    other = type("LTXAVModel", (type(network),), {}).__new__(type("LTXAVModel", (type(network),), {}))
    other.__dict__ = network.__dict__
    patcher.add_object_patch("diffusion_model", other)
    with pytest.raises(ValueError, match="its network is LTXAVModel"):
        pack.run("DetailGuidance", model=patcher)


def test_hidream_with_a_reference_beside_the_picture_is_refused(pack):
    case, patcher, batch, inputs = setting("HiDream")
    for conditions in (inputs["positive"], inputs["negative"]):
        conditions[0][1]["concat_latent_image"] = normal(9, 1, *case.latent)
    with pytest.raises(ValueError, match=r"reference image \(image_cond\) on HiDream"):
        sample(guided(pack, patcher, case.depth, (2,), **inputs), noise=case.noise(batch))


@pytest.mark.parametrize("name", ["Wan HuMo", "HunyuanVideo with a masked prompt"])
def test_where_rows_cannot_be_shared_the_plan_is_in_turn(pack, name):
    case, patcher, batch, inputs = setting(name)
    guider = guided(pack, patcher, case.depth, (2,), "together", **inputs)
    _, report = reported(pack, guider, noise=case.noise(batch))
    assert report.plan == "in turn" and report.warnings == [
        "batching: together was not possible here; the detail rows ran in a forward of their own (in turn)."
    ]


def test_a_transformer_that_is_not_in_the_table_is_refused(pack):
    """It has the double and single blocks of Flux, and makes no pictures."""
    patcher = built(
        supported_models.Hunyuan3Dv2,
        {
            "image_model": "hunyuan3d2",
            "in_channels": 16,
            "context_in_dim": 32,
            "hidden_size": 64,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 1,
            "depth_single_blocks": 1,
            "qkv_bias": True,
            "guidance_embed": False,
        },
    )
    with pytest.raises(ValueError, match=r"its network is Hunyuan3Dv2. Supported: AuraFlow, "):
        pack.run("DetailGuidance", model=patcher)


def test_every_family_of_the_table_is_tried(pack):
    """Those that a host lacks are listed, so that a family cannot go missing unseen."""
    families = pack.module("dit.families")
    here = [name for name, case in CASES.items() if case.lacking is None]
    tried = {"SD3 / SD3.5"} | {
        pack.module("dit.anatomy").family_of(load(name).model.diffusion_model).name for name in here
    }
    lacking = {family.name for family in families.FAMILIES} - tried
    later = {name for name in ("Qwen-Image 2.1",) if CASES[name].lacking}  # 0.37
    assert lacking == later | (LACKING_IN_2025 if families_of_2025() else set())
    if not families_of_2025():
        assert {name for name, case in CASES.items() if case.lacking} == later


LACKING_IN_2025 = {
    *("Boogu", "CogVideoX", "Ernie-Image", "HiDream-O1", "Ideogram 4", "JoyImage", "Kandinsky 5", "Krea 2", "LTX-2"),
    *("Lens", "Mage-Flow", "MiniMax H3", "PixelDiT / PiD", "Wan Animate 2", "Wan SCAIL"),
}


def families_of_2025():
    """Whether the host is from before all of those (0.3.75)."""
    return all(CASES[name].lacking for name in CASES if name.startswith(("LTX-2", "Kandinsky")))
