"""Whatever else is on the model or in the conditioning: against the plain implementation with the same neighbours."""

from inspect import signature

import comfy.cldm.mmdit
import comfy.controlnet
import comfy.latent_formats
import comfy.model_management
import comfy.ops
import pytest
import torch
from comfy_extras.nodes_apg import APG
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from comfy_extras.nodes_mahiro import Mahiro
from comfy_extras.nodes_perpneg import PerpNegGuider
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple
from comparison import PLANS, assert_equal, assert_term_is_added
from models import CONTEXT, conditioning, latent, model_without_massive_channels, random_weights
from plain import PlainDetailGuider, above_median, relative_error
from sampling import counted, detail_guider, sample, stock_guider

import nodes as comfy_nodes

# Conditioning


@PLANS
def test_prompts_of_different_length_run_in_forwards_of_their_own(pack, subject, batching):
    assert_equal(pack, subject, subject.model, batching, negative=conditioning(2, tokens=5), layers=(1, 2))


@PLANS
def test_areas_of_the_same_size(pack, subject, batching):
    areas = [conditioning(3, area=(16, 8, 0, x), strength=s) for x, s in ((0, 1.0), (8, 0.7))]
    assert_equal(pack, subject, subject.model, batching, conditioning(1) + areas[0] + areas[1], layers=(1, 2), batch=2)


@PLANS
def test_areas_of_different_sizes_and_prompts(pack, subject, batching):
    positive = conditioning(1) + conditioning(3, area=(8, 16, 8, 0)) + conditioning(4, tokens=3)
    assert_equal(pack, subject, subject.model, batching, positive, layers=(1, 2))


@PLANS
def test_masks(pack, subject, batching):
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    positive = conditioning(1, mask=left, mask_strength=1.0) + conditioning(3, mask=1 - left, mask_strength=0.5)
    assert_equal(pack, subject, subject.model, batching, positive)


@PLANS
def test_timestep_ranges(pack, subject, batching):
    positive = conditioning(1, start_percent=0.0, end_percent=0.4) + conditioning(3, start_percent=0.4, end_percent=1.0)
    assert_equal(pack, subject, subject.model, batching, positive, steps=4)


@PLANS
def test_a_step_without_any_active_positive_is_not_an_error(pack, subject, batching):
    positive = conditioning(1, start_percent=0.6, end_percent=1.0)
    assert_equal(pack, subject, subject.model, batching, positive, steps=3)


@PLANS
def test_each_condition_has_channels_of_its_own(pack, batching):
    """Channels are those of a detail row's own conditional rows: not the negative's, not another condition's."""
    patcher = model_without_massive_channels()
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    positive = conditioning(1, mask=left, mask_strength=1.0) + conditioning(3, mask=1 - left, mask_strength=1.0)
    found = []

    def largest(z):
        found.append(above_median(z, ratio=1.0, at_most=1))
        return found[-1]

    plain = PlainDetailGuider(patcher, positive, conditioning(2), 4.0, w=9.0, find=largest, host_cfg=True)
    expected = sample(plain, 2)
    assert found[0] != found[1], "the test must tell the conditions apart"
    options = {"batching": batching, "massive_ratio": 1.0, "max_channels": 1}
    guider = detail_guider(pack, patcher, options, positive=positive, dg_scale=9.0)
    assert relative_error(sample(guider, 2), expected) <= 1e-5


# Others on the same model


@PLANS
def test_a_pre_cfg_function_that_writes_into_the_predictions(pack, subject, batching):
    patched = subject.model.clone()

    def halve_in_place(args):
        for prediction in args["conds_out"]:
            prediction.mul_(0.5)
        return args["conds_out"]

    patched.set_model_sampler_pre_cfg_function(halve_in_place)
    assert_equal(pack, subject, patched, batching)


@PLANS
def test_a_block_patch_that_writes_into_its_input(pack, subject, batching):
    patched = subject.model.clone()

    def double_in_place(args, extra):
        before = args["img"].clone()
        out = extra["original_block"](args)
        img = out["img"] + 2 * before
        args["img"].mul_(2.0)
        return {**out, "img": img}

    patched.set_model_patch_replace(double_in_place, "dit", *subject.block(2))
    assert_equal(pack, subject, patched, batching, layers=(2, 3))


@PLANS
def test_skip_layer_guidance(pack, subject, batching):
    patched = SkipLayerGuidanceDiT.execute(subject.model, 2.0, 0.0, 1.0, **subject.layers(1, 2))[0]
    assert_equal(pack, subject, patched, batching)


def test_detail_guidance_runs_once_beside_skip_layer_guidance(pack, subject):
    patched = SkipLayerGuidanceDiT.execute(subject.model, 2.0, 0.0, 1.0, **subject.layers(1))[0]
    with counted(patched, subject.blocks, subject.streams) as alone:
        sample(stock_guider(patched))
    with counted(patched, subject.blocks, subject.streams) as both:
        sample(detail_guider(pack, patched))
    assert [b - a for a, b in zip(alone, both, strict=True)] == [0, 0, 2, 2]


@PLANS
def test_simple_skip_layer_guidance_in_its_single_slot(pack, subject, batching):
    patched = SkipLayerGuidanceDiTSimple.execute(subject.model, 0.0, 1.0, **subject.layers(1, 2))[0]
    assert_equal(pack, subject, patched, batching)


@PLANS
@pytest.mark.parametrize("block", [0, 2, 3])
def test_another_patch_on_the_same_block_is_chained(pack, subject, batching, block):
    """A patch that, like regional and adapter packs', changes conditional rows only, going by cond_or_uncond."""

    def shift_conditional_rows(args, extra):
        out = extra["original_block"](args)
        chunks = out["img"].chunk(len(args["transformer_options"]["cond_or_uncond"]))
        kinds = args["transformer_options"]["cond_or_uncond"]
        img = torch.cat([rows.roll(1, 1) if kind == 0 else rows for rows, kind in zip(chunks, kinds, strict=True)])
        return {**out, "img": img}

    patched = subject.model.clone()
    patched.set_model_patch_replace(shift_conditional_rows, "dit", *subject.block(block))
    assert relative_error(sample(stock_guider(patched)), sample(stock_guider(subject.model))) > 1e-2
    assert_equal(pack, subject, patched, batching, layers=(1, 2))


@PLANS
@pytest.mark.parametrize("node", [APG, Mahiro])
def test_pre_and_post_cfg_functions(pack, subject, batching, node):
    arguments = {"eta": 0.5, "norm_threshold": 3.0, "momentum": 0.0} if node is APG else {}
    patched = node.execute(subject.model, **arguments)[0]
    assert_equal(pack, subject, patched, batching)


@PLANS
def test_cfg_function_in_its_single_slot(pack, subject, batching):
    patched = subject.model.clone()
    patched.set_model_sampler_cfg_function(lambda args: args["uncond"] + 2.5 * (args["cond"] - args["uncond"]))
    assert_equal(pack, subject, patched, batching)


@PLANS
def test_other_sampling_shift(pack, subject, batching):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    (patched,) = ModelSamplingSD3().patch(subject.model, shift=1.0)
    assert_equal(pack, subject, patched, batching)


@PLANS
def test_controlnet(pack, subject, batching):
    network = comfy.cldm.mmdit.ControlNet(
        num_blocks=2,
        input_size=None,
        in_channels=16,
        depth=4,
        adm_in_channels=CONTEXT,
        context_embedder_config={"target": "torch.nn.Linear", "params": {"in_features": CONTEXT, "out_features": 256}},
        num_patches=256,
        pos_embed_max_size=16,
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
    )
    network.load_state_dict(random_weights(network, seed=3))
    control = comfy.controlnet.ControlNet(
        network, compression_ratio=1, load_device=comfy.model_management.get_torch_device()
    )
    positive, negative = comfy_nodes.ControlNetApplyAdvanced().apply_controlnet(
        conditioning(1), conditioning(2), control, latent(seed=8)["samples"].movedim(1, -1), 0.5, 0.0, 1.0
    )
    without = sample(detail_guider(pack, subject.model))
    assert (
        relative_error(sample(detail_guider(pack, subject.model, positive=positive, negative=negative)), without) > 1e-2
    )
    assert_equal(pack, subject, subject.model, batching, positive, negative, layers=(1, 2), batch=2)


@PLANS
def test_inpainting_mask(pack, subject, batching):
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    picture = latent(seed=9)["samples"]
    assert_equal(pack, subject, subject.model, batching, latent_image=picture, denoise_mask=mask)
    result = sample(detail_guider(pack, subject.model), latent_image=picture, denoise_mask=mask)
    assert relative_error(result[..., :4], picture[..., :4]) < 1e-5


@PLANS
@pytest.mark.parametrize("nested", [False, True])
def test_a_guider_whose_positive_is_not_the_first(pack, subject, batching, nested):
    """DualCFGGuider asks for [negative, middle, positive], or nested, and mixes them itself."""

    def dual_cfg(patcher):
        guider = Guider_DualCFG(patcher)
        arguments = {"nested": nested} if "nested" in signature(guider.set_cfg).parameters else {}
        guider.set_conds(conditioning(1), conditioning(3), conditioning(2))
        guider.set_cfg(4.0, 2.0, **arguments)
        return guider

    assert_term_is_added(pack, subject, batching, dual_cfg)


@PLANS
def test_another_guider_of_the_host(pack, subject, batching):
    """PerpNegGuider asks for three predictions in one call and does its own mixing."""

    def perp_neg(patcher):
        return PerpNegGuider.execute(patcher, conditioning(1), conditioning(2), conditioning(3), 4.0, 1.0)[0]

    assert_term_is_added(pack, subject, batching, perp_neg)


# Trouble in the middle


@PLANS
def test_interruption_leaves_nothing_behind(pack, subject, batching):
    patcher = subject.model
    guider = detail_guider(pack, patcher, {"batching": batching})
    expected, stock = sample(guider), sample(stock_guider(patcher))

    def interrupt(step, *_):
        raise comfy.model_management.InterruptProcessingException()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample(guider, callback=interrupt)
    assert torch.equal(sample(guider), expected)
    assert torch.equal(sample(stock_guider(patcher)), stock)


def test_an_exception_inside_a_guided_forward_leaves_nothing_behind(pack, subject):
    patcher = subject.model
    stock = sample(stock_guider(patcher))
    calls = []

    def fail_at_third(_, inputs):
        calls.append(len(inputs))
        if len(calls) == 3:
            raise RuntimeError("out of memory, say")

    handle = subject.blocks(patcher.model.diffusion_model)[3].register_forward_pre_hook(fail_at_third)
    with pytest.raises(RuntimeError, match="out of memory"):
        sample(detail_guider(pack, patcher), steps=4)
    handle.remove()
    assert torch.equal(sample(stock_guider(patcher)), stock)
