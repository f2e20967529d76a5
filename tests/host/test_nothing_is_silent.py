"""Every bad input gives an error or a warning that says what to do, and the host's next run works."""

import json
import logging
from dataclasses import asdict

import comfy.model_base
import comfy.ops
import comfy.samplers
import comfy.supported_models
import numpy as np
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from models import conditioning, latent, model
from plain import PlainDetailGuider
from sampling import detail_guider, reported, reports, sample, stock_guider

NAN = float("nan")


def refused(pack, message, **inputs):
    with pytest.raises(ValueError, match=message):
        detail_guider(pack, model(), **inputs)


@pytest.mark.parametrize("value", [-0.1, 20.5, NAN])
def test_dg_scale_out_of_range(pack, value):
    refused(pack, f"dg_scale: {value} is outside 0 to 20", dg_scale=value)


@pytest.mark.parametrize("name", ["layer_start", "layer_end", "start_percent", "end_percent"])
@pytest.mark.parametrize("value", [-0.01, 1.01, NAN])
def test_fractions_out_of_range(pack, name, value):
    refused(pack, f"{name}: {value} is outside 0 to 1", **{name: value})


def test_ends_before_starts(pack):
    refused(pack, "start_percent: 0.8 is above end_percent, 0.2", start_percent=0.8, end_percent=0.2)


@pytest.mark.parametrize("value", [-1.0, 101.0, NAN])
def test_cfg_out_of_range(pack, value):
    refused(pack, f"cfg: {value} is outside 0 to 100", cfg=value)


def test_cfg_without_negative(pack):
    refused(pack, "negative: not connected, but cfg = 4 needs it. Connect it, or set cfg to 1", negative=None)
    sample(detail_guider(pack, model(), negative=None, cfg=1.0))


@pytest.mark.parametrize("text", ["", "all", "1, two", "-3", "1;2", "1.5"])
def test_channels_that_are_no_list(pack, text):
    refused(pack, 'channels: .* is neither "auto" nor a list', options={"channels": text})


@pytest.mark.parametrize(
    "name, value, allowed",
    [
        ("massive_ratio", 0.5, "1 to 1000"),
        ("max_channels", 0, "1 to 64"),
        ("keep_start", 1.5, "0 to 1"),
        ("keep_end", NAN, "0 to 1"),
        ("rescale", -0.5, "0 to 1"),
        ("limit", -1.0, "0 to 10"),
    ],
)
def test_options_out_of_range(pack, name, value, allowed):
    refused(pack, f"{name}: {value} is outside {allowed}", options={name: value})


def test_unknown_batching(pack):
    refused(pack, "batching: 'both' is not one of auto, together, in turn", options={"batching": "both"})


def test_a_mask_of_another_shape(pack):
    refused(pack, r"mask: its shape is \(1, 1, 8, 8\), it must be", options={"mask": torch.ones(1, 1, 8, 8)})


@pytest.mark.parametrize("low, high, told", [(-0.5, 1, "-0.5 to 1"), (0, 5, "0 to 5"), (0, NAN, "nan to nan")])
def test_a_mask_out_of_range(pack, low, high, told):
    message = rf"mask: its values go from {told}, 0 to 1 is allowed\."
    refused(pack, message, options={"mask": torch.tensor([[[low, high]]])})


def test_an_empty_mask(pack):
    refused(pack, r"mask: its shape is \(0, 8, 8\)", options={"mask": torch.ones(0, 8, 8)})


@pytest.mark.parametrize(
    "masks, batch, told",
    [
        ([0.0], 1, ["mask: it is black everywhere"]),
        ([0.0, 1.0], 1, ["mask: there are 2, for a batch of 1:", "mask: it is black everywhere"]),
        ([1.0, 0.0], 3, ["mask: there are 2, for a batch of 3:"]),
        ([1.0, 0.0], 2, []),
        ([1.0], 2, []),
    ],
)
def test_masks_that_do_nothing_or_are_left_out(pack, masks, batch, told):
    mask = torch.tensor(masks).view(-1, 1, 1).expand(-1, 8, 8)
    _, report = reported(pack, detail_guider(pack, model(), {"mask": mask}), batch=batch)
    assert len(report.warnings) == len(told)
    assert all(warning.startswith(begin) for warning, begin in zip(report.warnings, told, strict=True))


@pytest.mark.parametrize("batching", ["together", "in turn"])
def test_a_channel_the_model_does_not_have(pack, batching):
    patcher = model()
    expected = sample(stock_guider(patcher))
    with pytest.raises(ValueError, match="channels: 1446 cannot be disrupted, this model's channels are 0 to 255"):
        sample(detail_guider(pack, patcher, {"channels": "154, 1446", "batching": batching}))
    assert torch.equal(sample(stock_guider(patcher)), expected)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_model_without_hookable_blocks(pack, scale):
    config = comfy.supported_models.SD15(
        {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
         "channel_mult": [1, 2], "num_heads": 2, "use_spatial_transformer": True, "transformer_depth": [1, 1],
         "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1, "context_dim": 32,
         "use_linear_in_transformer": False, "adm_in_channels": None, "use_temporal_attention": False}
    )  # fmt: skip
    unet = comfy.model_base.BaseModel(config, device="cpu")
    patcher = ModelPatcher(unet, torch.device("cpu"), torch.device("cpu"))
    message = r"cannot patch this model: its network is UNetModel. Supported: AuraFlow, .*SD3 / SD3.5, Wan"
    for node in ("DetailGuidance", "DetailGuider"):
        extra = {} if node == "DetailGuidance" else {"positive": conditioning(1), "negative": conditioning(2)}
        with pytest.raises(ValueError, match=message):
            pack.run(node, model=patcher, dg_scale=scale, **extra)
    sampling = {"positive": conditioning(1), "negative": conditioning(2), "latent_image": latent(1, 16)}
    for node in ("MassiveActivationProbe", "MassiveActivationMap"):
        with pytest.raises(ValueError, match=message):
            pack.run(node, model=patcher, **sampling, sampler_name="euler", scheduler="simple")


@pytest.mark.parametrize("batching", ["together", "in turn"])
def test_an_engine_that_ignores_block_patches(pack, batching):
    """Like packs that bring a forward of their own: transformer_options do not reach the blocks."""
    patcher = model().clone()
    forward = patcher.get_model_object("diffusion_model.forward")

    def of_its_own(*args, transformer_options={}, **kwargs):
        return forward(*args, transformer_options={}, **kwargs)

    patcher.add_object_patch("diffusion_model.forward", of_its_own)
    expected = sample(stock_guider(model()))
    with pytest.raises(RuntimeError, match="OpenAISignatureMMDITWrapper ran without calling its block patches"):
        sample(detail_guider(pack, patcher, {"batching": batching}))
    assert torch.equal(sample(stock_guider(model())), expected)


def warnings_of(caplog, guider):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        result = sample(guider)
    # The host has warnings of its own, of models that tests before this one have left.
    ours = [record.getMessage() for record in caplog.records if record.name == "detail_guidance"]
    return result, "\n".join(ours)


def test_no_massive_channel(pack, caplog):
    patcher = model()
    guider = detail_guider(pack, patcher, {"massive_ratio": 900.0}, layer_start=0.25, layer_end=0.5)
    result, text = warnings_of(caplog, guider)
    assert "no massive channel at block 1, 2: no channel exceeds 900 times the median" in text
    torch.testing.assert_close(result, sample(stock_guider(patcher)), rtol=1e-4, atol=1e-4)


def test_no_step_inside_the_window(pack):
    _, report = reported(pack, detail_guider(pack, model(), start_percent=0.6, end_percent=0.7))
    assert (report.steps, report.steps_guided) == (2, 0)
    (warning,) = report.warnings
    assert warning.startswith("no step lies between start_percent 0.6 and end_percent 0.7: nothing was guided.")


def test_a_picture_that_comes_apart(pack):
    """Where the added detail is larger than the model's own step."""
    for scale, told in ((20.0, True), (0.01, False)):
        with reports(pack) as published:
            sample(detail_guider(pack, model(), dg_scale=scale))
        (report,) = published
        assert (report.relative_strength > 0.6) is told
        assert any("pictures come apart at such strengths. Lower dg_scale" in each for each in report.warnings) is told


def test_a_stage_outside_the_window_is_told_but_is_no_warning(pack):
    """The second of two sampling stages lies outside the window of the first: that is as it should be."""
    guider = detail_guider(pack, model(), end_percent=0.4, dg_scale=0.01)
    noise = latent(1, 16, seed=5)["samples"]
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "simple", 4)
    with reports(pack) as published:
        for part in (sigmas[:3], sigmas[2:]):
            noise = guider.sample(noise * 0, noise, comfy.samplers.sampler_object("euler"), part, seed=5)
    assert [(report.steps_guided, report.warnings) for report in published] == [(2, []), (0, [])]


def test_a_guider_without_a_positive(pack, caplog):
    guider = comfy.samplers.CFGGuider(pack.run("DetailGuidance", model=model()))
    guider.inner_set_conds({"negative": conditioning(2)})
    guider.set_cfg(0.0)
    _, text = warnings_of(caplog, guider)
    assert "2 steps were not guided: CFGGuider did not ask for a prediction of its positive" in text


def test_a_profile_without_channels_for_the_layer(pack, caplog):
    profile = pack.module("methods.detail_guidance.settings").Profile(
        "SD3 / SD3.5", 4, 256, {0: (1,)}, torch.zeros(4, 256)
    )
    _, text = warnings_of(caplog, detail_guider(pack, model(), {"profile": profile}))
    assert "the profile has no channel for block 2" in text


class GuiderOfItsOwn(comfy.samplers.CFGGuider):
    def outer_predict_noise(self, x, timestep, model_options={}, seed=None):
        return self.predict_noise(x, timestep, model_options, seed)


def test_a_guider_that_goes_past_the_patch(pack, caplog):
    guider = GuiderOfItsOwn(pack.run("DetailGuidance", model=model()))
    guider.set_conds(conditioning(1), conditioning(2))
    result, text = warnings_of(caplog, guider)
    assert "nothing was guided: GuiderOfItsOwn does not predict through the host's guider" in text
    assert torch.equal(result, sample(stock_guider(model(), cfg=1.0)))


PARTS = "cannot work in parts of the latent or of the batch"


def test_a_latent_sampled_in_parts(pack):
    """A tiling pack: predictions of parts of the latent."""
    patcher = model().clone()

    def halves(args):
        import comfy.samplers as s

        x, call = (
            args["input"],
            lambda part: s.calc_cond_batch(args["model"], args["conds"], part, args["sigma"], args["model_options"]),
        )
        left, right = call(x[..., :8]), call(x[..., 8:])
        return [torch.cat(parts, dim=-1) for parts in zip(left, right, strict=True)]

    patcher.set_model_sampler_calc_cond_batch_function(halves)
    with pytest.raises(ValueError, match=PARTS):
        sample(detail_guider(pack, patcher))


def tiles_as_rows(apply_model, args):
    x, c = args["input"], args["c"]
    twice = {name: torch.cat([value, value]) if torch.is_tensor(value) else value for name, value in c.items()}
    out = apply_model(torch.cat([x[..., :8], x[..., 8:]]), args["timestep"].repeat(2), **twice)
    return torch.cat(out.chunk(2), dim=-1)


def tiles_in_turn(apply_model, args):
    x, t, c = args["input"], args["timestep"], args["c"]
    return torch.cat([apply_model(x[..., :8], t, **c), apply_model(x[..., 8:], t, **c)], dim=-1)


def rows_in_turn(apply_model, args):
    x, t, c = args["input"], args["timestep"], args["c"]
    rows = [{name: value[[i]] if torch.is_tensor(value) else value for name, value in c.items()} for i in range(len(x))]
    return torch.cat([apply_model(x[[i]], t[[i]], **row) for i, row in enumerate(rows)])


@pytest.mark.parametrize(
    "batching, wrapper",
    [
        ("together", tiles_as_rows),
        ("together", rows_in_turn),
        ("in turn", tiles_as_rows),
        ("in turn", tiles_in_turn),
        ("in turn", rows_in_turn),
    ],
)
def test_forwards_of_parts(pack, batching, wrapper):
    """Tiled diffusion and other function wrappers that cut the host's batch: refused, never silently wrong."""
    patcher = model().clone()
    patcher.set_model_unet_function_wrapper(wrapper)
    sample(stock_guider(patcher))
    with pytest.raises(ValueError, match=PARTS):
        sample(detail_guider(pack, patcher, {"batching": batching}))


def test_where_a_cache_answers_in_the_models_place_the_last_detail_is_used_again(pack, caplog):
    patcher = model().clone()
    cached = {}

    calls = []

    def cache_odd_calls(apply_model, args):
        calls.append(args)
        if len(calls) == 3:  # the conditional call of the second step
            return cached["first"]
        out = apply_model(args["input"], args["timestep"], **args["c"])
        cached.setdefault("first", out)
        return out

    patcher.set_model_unet_function_wrapper(cache_odd_calls)
    strengths = []
    run = pack.module("methods.detail_guidance.run").Run
    report, run.report = run.report, lambda self, node: (strengths.append(self.strengths), report(self, node))[1]
    try:
        _, text = warnings_of(caplog, detail_guider(pack, patcher, {"batching": "in turn"}))
    finally:
        run.report = report
    assert "1 of 2 guided steps took the detail of an earlier step" in text
    first, second = torch.cat(strengths[0])
    assert first > 0 and second > 0


def test_the_report_says_what_happened(pack):
    guider = detail_guider(pack, model(), layer_start=0.25, layer_end=0.5, end_percent=0.3)
    _, report = reported(pack, guider, steps=4)
    assert (report.node, report.family, report.block_count) == ("7", "SD3 / SD3.5", 4)
    assert (report.first_block, report.last_block) == (1, 2)
    assert report.block_names[2] == "double 2"
    assert report.channels == {1: [17, 130], 2: [17, 130]}
    assert (report.steps, report.steps_guided, report.steps_fired) == (4, 2, 2)
    assert report.plan == "together" and report.warnings == []
    assert report.relative_strength > 0
    assert "blocks 1 to 2 of 4, massive channels 17, 130, 2 of 4 steps, together" in report.line()


class Shares(PlainDetailGuider):
    """Notes, of each step and picture, w‖c − d‖ / ‖x − c‖ in plain loops over pictures."""

    def both(self, x, timestep, model_options):
        c, d = super().both(x, timestep, model_options)
        for picture in range(len(x)):
            self.shares.append(self.w * float((c - d)[picture].norm() / (x - c)[picture].norm()))
        return c, d


@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("batching", ["together", "in turn"])
def test_the_reports_strength_is_the_detail_terms_share(pack, batching, cfg):
    """With w in it, and of the conditional prediction's update, not of what CFG makes of it."""
    plain = Shares(model(), conditioning(1), conditioning(2), cfg, w=1.5)
    plain.shares = []
    sample(plain, batch=2, steps=3)
    _, report = reported(pack, detail_guider(pack, model(), {"batching": batching}, cfg=cfg), batch=2, steps=3)
    assert report.relative_strength == pytest.approx(np.mean(plain.shares), rel=1e-4)


@pytest.mark.parametrize("batching", ["together", "in turn"])
def test_the_report_says_where_massive_activations_are(pack, batching):
    patcher, seen = model(), {}

    def note(number):
        def hook(block, args, kwargs):
            (stream,) = {**dict(enumerate(args)), **kwargs}[1]
            magnitude = np.abs(stream.numpy()).mean(axis=0)
            seen.setdefault(number, magnitude.max() / np.median(magnitude))

        return hook

    blocks = patcher.model.diffusion_model.joint_blocks
    handles = [block.register_forward_pre_hook(note(number), with_kwargs=True) for number, block in enumerate(blocks)]
    try:
        sample(stock_guider(patcher, cfg=1.0))
    finally:
        for handle in handles:
            handle.remove()
    _, report = reported(pack, detail_guider(pack, patcher, {"batching": batching}, cfg=1.0, layer_start=0.5))
    assert report.peak_ratios == pytest.approx(seen, rel=1e-5) and len(seen) == 4
    assert min(seen.values()) > 8, "channels are planted at every block"


def test_the_report_is_json_that_a_page_can_read(pack, monkeypatch):
    # The median channel may be 0: JSON has no word for what comes of it.
    monkeypatch.setattr(pack.module("methods.detail_guidance.run"), "peak_ratio", lambda z: z.new_tensor(float("inf")))
    _, report = reported(pack, detail_guider(pack, model()))
    assert report.peak_ratios == {} and report.steps_fired == 2
    json.dumps(asdict(report), allow_nan=False)


def test_predictions_that_are_no_numbers(pack):
    broken = model().clone()
    broken.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(args["input"], args["timestep"], **args["c"]) * NAN
    )
    _, report = reported(pack, detail_guider(pack, broken))
    assert any("not finite numbers" in warning for warning in report.warnings)
    json.dumps(asdict(report), allow_nan=False)
