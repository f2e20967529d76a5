"""The table against the streams: a wrong row is followed where they show what is right, and an error where not."""

from dataclasses import replace

import pytest
import torch
from comfy.controlnet import ControlBase
from comfy.nested_tensor import NestedTensor
from comfy.samplers import CFGGuider, calc_cond_batch
from comparison import PLANS, with_context_windows
from family_case import host_source, normal
from family_models import CASES
from plain import above_median, relative_error
from sampling import reported, sample, stock_guider
from test_families import CACHED, FAMILIES, guided, of_cases, plain, setting

OTHER = {"image text": "text image", "text image": "image text"}


def wrong_order(family):
    stages = tuple(replace(stage, order=OTHER.get(stage.order, stage.order)) for stage in family.stages)
    return replace(family, stages=stages)


def wrong_count(family):
    """Tokens of twice the sides."""
    if family.patch_size is None:
        return family
    sides = family.patch_size

    def doubled(model):
        patch = sides(model)
        return patch * 2 if isinstance(patch, int) else [side * 2 for side in patch]

    return replace(family, patch_size=doubled)


def wrong_offset(family):
    """What stands before the picture is taken to be behind it, and the other way round."""
    return replace(family, ahead=family.behind, behind=family.ahead)


def missing_neighbours(family):
    """Nothing is known of what stands beside the picture."""
    return replace(family, ahead=(), behind=())


def nothing_beside(family):
    """The picture is taken to be alone in its first stream."""
    first, *others = family.stages
    return replace(family, stages=(replace(first, order="image only"), *others))


# The sound's tokens stand before the picture's and change with them; how many there are before those, nothing tells.
UNSEEN = {("MiniMax H3", wrong_count), ("MiniMax H3 with a reference", wrong_count)}


@FAMILIES
@pytest.mark.parametrize("wrong", [wrong_order, wrong_count, wrong_offset, missing_neighbours, nothing_beside])
def test_a_wrong_row_is_never_wrong_in_silence(pack, monkeypatch, name, wrong):
    case, patcher, batch, inputs = setting(name)
    families = pack.module("dit.families")
    right = pack.module("dit.anatomy").family_of(patcher.model.diffusion_model)
    rows = [wrong(family) if family is right else family for family in families.FAMILIES]
    if rows == list(families.FAMILIES):
        pytest.skip("this row has nothing of the kind")
    if (name, wrong) in UNSEEN:
        pytest.skip("cannot be seen")
    monkeypatch.setattr(families, "FAMILIES", tuple(rows))
    noise, layers = case.noise(batch), (case.depth - 1,)
    expected = sample(plain(case, patcher, **inputs, layers=layers), noise=noise)
    try:
        actual = sample(guided(pack, patcher, case.depth, layers, **inputs), noise=noise)
    except pack.module("dit.token_layout").UnknownLayout as error:
        assert right.name in str(error) and "ComfyUI 0." in str(error) and "update Detail Guidance" in str(error)
    else:
        assert relative_error(actual, expected) <= 1e-5


@pytest.mark.parametrize("name", ["Flux Kontext", "HunyuanVideo", "Lumina 2", "AuraFlow", "OmniGen2"])
@PLANS
def test_another_order_is_followed(pack, monkeypatch, name, batching):
    """What stands in one kind of block is found again in the next."""
    case, patcher, batch, inputs = setting(name)
    families = pack.module("dit.families")
    right = pack.module("dit.anatomy").family_of(patcher.model.diffusion_model)
    monkeypatch.setattr(families, "FAMILIES", (wrong_order(right),))
    noise, layers = case.noise(batch), (case.depth - 1,)
    expected = sample(plain(case, patcher, **inputs, layers=layers), noise=noise)
    actual = sample(guided(pack, patcher, case.depth, layers, batching, **inputs), noise=noise)
    assert relative_error(actual, expected) <= 1e-5


@pytest.mark.parametrize("name", ["Flux Kontext", "Qwen-Image Edit", "Wan with a reference frame"])
def test_the_wrong_end_is_an_error(pack, monkeypatch, name):
    case, patcher, batch, inputs = setting(name)
    families = pack.module("dit.families")
    right = pack.module("dit.anatomy").family_of(patcher.model.diffusion_model)
    monkeypatch.setattr(families, "FAMILIES", (wrong_offset(right),))
    guider = guided(pack, patcher, case.depth, (1,), **inputs)
    with pytest.raises(ValueError, match="other tokens change from step to step than the picture's"):
        sample(guider, noise=case.noise(batch))
    monkeypatch.undo()
    unharmed = sample(guider, noise=case.noise(batch))
    assert (
        relative_error(unharmed, sample(plain(case, patcher, **inputs, layers=(1,)), noise=case.noise(batch))) <= 1e-5
    )


@PLANS
def test_the_wrong_end_in_context_windows_is_an_error(pack, monkeypatch, batching):
    """Of one window, from step to step."""
    case, patcher, _, inputs = setting("Wan with a reference frame")
    families = pack.module("dit.families")
    right = pack.module("dit.anatomy").family_of(patcher.model.diffusion_model)
    windowed = with_context_windows(patcher, frames=3)
    noise = normal(5, 1, 16, 7, 8, 8)
    sample(guided(pack, windowed, case.depth, (1,), batching, **inputs), noise=noise)
    monkeypatch.setattr(families, "FAMILIES", (wrong_offset(right),))
    with pytest.raises(ValueError, match="other tokens change from step to step"):
        sample(guided(pack, windowed, case.depth, (1,), batching, **inputs), noise=noise)


def test_the_wrong_end_of_a_reference_that_comes_later_is_an_error(pack, monkeypatch):
    case, patcher, batch, inputs = setting("Flux Kontext")
    families = pack.module("dit.families")
    right = pack.module("dit.anatomy").family_of(patcher.model.diffusion_model)
    early = [[inputs["positive"][0][0], {**inputs["positive"][0][1], "end_percent": 0.4}]]
    del early[0][1]["reference_latents"]
    late = [[inputs["positive"][0][0], {**inputs["positive"][0][1], "start_percent": 0.4}]]
    inputs["positive"] = early + late
    noise = case.noise(batch)
    sample(guided(pack, patcher, case.depth, (1,), **inputs), noise=noise, steps=6)
    monkeypatch.setattr(families, "FAMILIES", (wrong_offset(right),))
    with pytest.raises(ValueError, match="other tokens change from step to step"):
        sample(guided(pack, patcher, case.depth, (1,), **inputs), noise=noise, steps=6)


@of_cases("MiniMax H3")
def test_a_picture_that_a_mask_holds_is_not_a_wrong_row(pack, name):
    """Its tokens stay as they are, and the sound's change."""
    case, patcher, batch, inputs = setting(name)
    mask = NestedTensor([torch.ones(1, 1, *case.latent[0][1:]), torch.ones(1, *case.latent[1])])
    mask.tensors[0][:, :, :1] = 0
    guider = guided(pack, patcher, case.depth, (2,), **inputs)
    _, report = reported(pack, guider, noise=case.noise(batch), denoise_mask=mask)
    assert report.steps_fired == 2


@of_cases("Flux Kontext", "Wan with a reference frame", "Krea 2")
def test_nothing_needs_float64(pack, monkeypatch, name):
    """Some devices have none (Apple's)."""
    case, patcher, batch, inputs = setting(name)

    def refused(*args, **kwargs):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch.Tensor, "double", refused)
    sample(guided(pack, patcher, case.depth, (2,), **inputs), noise=case.noise(batch))


class Residual(ControlBase):
    """A ControlNet that adds to some tokens of the picture behind the last double block."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens = tokens

    def get_control(self, x, timestep, cond, batched_number, transformer_options):
        added = torch.zeros(len(x), 16, 64)
        added[:, self.tokens] = 0.1
        return {"input": [None, added], "output": []}

    def copy(self):
        return self


@pytest.mark.parametrize("tokens", [slice(None), slice(8, None), slice(8)])
@PLANS
def test_tokens_that_another_node_changes_on_their_way_are_not_a_wrong_row(pack, batching, tokens):
    """All of the picture's, or those under a mask."""
    case, patcher, batch, inputs = setting("Flux")
    for conditions in (inputs["positive"], inputs["negative"]):
        conditions[0][1]["control"] = Residual(tokens)
    noise = case.noise(batch)
    expected = sample(plain(case, patcher, **inputs, layers=(3,)), noise=noise)
    actual, report = reported(pack, guided(pack, patcher, case.depth, (3,), batching, **inputs), noise=noise)
    assert relative_error(actual, expected) <= 1e-5 and report.warnings == []


@of_cases("LTX-2", "LTX-2.3", "MiniMax H3")
def test_sound_is_left_as_it_is(pack, name):
    """The detail term is the picture's alone; the sound's own next steps hear the picture."""
    case, patcher, batch, inputs = setting(name)
    stock = sample(stock_guider(patcher, **inputs), noise=case.noise(batch), steps=1)
    actual = sample(guided(pack, patcher, case.depth, (2,), **inputs), noise=case.noise(batch), steps=1)
    assert torch.equal(actual[..., case.numbers :], stock[..., case.numbers :])
    assert relative_error(actual[..., : case.numbers], stock[..., : case.numbers]) > 1e-3


class PlainBesideTheNegative(CFGGuider):
    """Denoised = c + (cfg − 1)(c − u) + w(c − d), where forwards depend on those before.

    `FluxKVCache` keeps the references' keys and values of a run's first forward, row by row, and leaves their tokens
    out of every later one. So d comes beside u: in the forward of c (`together`), or in another one in c's place.
    """

    name, w, layer, keep = CACHED, 1.5, 2, 0.25

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        case = CASES[self.name]
        stream, block = case.streams[self.layer], case.blocks(self.inner_model.diffusion_model)[self.layer]
        channels, order, size = [], [], len(x)

        def noting(apply_model, args):
            order[:] = args["cond_or_uncond"]
            return apply_model(args["input"], args["timestep"], **args["c"])

        def weakening(detail):
            """Of the rows of one condition, by the channels of condition 0 where that is there."""

            def hook(block, args, kwargs):
                args, kwargs = list(args), dict(kwargs)
                arguments, key = stream.find(block, args, kwargs)
                arguments[key] = arguments[key].clone()
                z = stream.picture(arguments[key], 0)
                rows = {condition: z[row * size : (row + 1) * size] for row, condition in enumerate(order)}
                if not channels:
                    channels[:] = above_median(rows[0].numpy(), ratio=1.0)
                if detail is not None:
                    rows[detail][..., channels] *= self.keep
                return tuple(args), kwargs

            return hook

        def predict(conds, detail):
            handle = block.register_forward_pre_hook(weakening(detail), with_kwargs=True)
            try:
                return calc_cond_batch(self.inner_model, conds, x, timestep, options)
            finally:
                handle.remove()

        options = {**model_options, "model_function_wrapper": noting}
        conds = [self.conds["positive"], self.conds["negative"]]
        if self.together:
            c, u, d = predict([*conds, self.conds["positive"]], 2)
        else:
            c, u = predict(conds, None)
            d, _ = predict(conds, 0)
        return c + (self.cfg - 1) * (c - u) + self.w * (c - d)


@of_cases(CACHED)
@PLANS
def test_references_whose_keys_and_values_are_kept(pack, name, batching):
    case, patcher, batch, inputs = setting(name)
    expected = PlainBesideTheNegative(patcher)
    expected.set_conds(inputs["positive"], inputs["negative"])
    expected.set_cfg(inputs["cfg"])
    expected.together = batching == "together"
    noise = case.noise(batch)
    guider = guided(pack, patcher, case.depth, (2,), batching, **inputs)
    actual, report = reported(pack, guider, noise=noise, steps=3)
    assert relative_error(actual, sample(expected, noise=noise, steps=3)) <= 1e-5
    assert report.steps_fired == 3 and report.plan == batching and report.warnings == []


# Guidance within attention, as core's NAGuidance (0.13 and later) and others have it: it finds the positive's rows by
# their place among the conditions, and needs the negative's in the same forward.


def attention_guidance(out, extra_options):
    places = extra_options["cond_or_uncond"]
    if 0 not in places or 1 not in places:
        return out
    size = len(out) // len(places)
    positive, negative = (slice(places.index(which) * size, (places.index(which) + 1) * size) for which in (0, 1))
    out = out.clone()
    out[positive] = 1.5 * out[positive] - 0.5 * out[negative]
    return out


class OnWan(PlainBesideTheNegative):
    together = False
    name = "Wan text to video"


IN_WAN = "attn1_output_patch" in host_source("ldm/wan/model.py")


@pytest.mark.skipif(not IN_WAN, reason="this host's comfy/ldm/wan/model.py has no attn1_output_patch")
@pytest.mark.parametrize("name", ["Wan text to video"])
@PLANS
def test_guidance_within_attention(pack, name, batching):
    """D and D_m both get it."""
    case, patcher, batch, inputs = setting(name)
    patcher = patcher.clone()
    patcher.set_model_attn1_output_patch(attention_guidance)
    noise = case.noise(batch)
    expected = OnWan(patcher)
    expected.set_conds(inputs["positive"], inputs["negative"])
    expected.set_cfg(inputs["cfg"])
    actual, report = reported(pack, guided(pack, patcher, case.depth, (2,), batching, **inputs), noise=noise)
    assert report.plan == "in turn"
    assert relative_error(actual, sample(expected, noise=noise)) <= 1e-5


@pytest.mark.parametrize(
    "latent, tokens, grid",
    [
        ((1, 16, 16, 16), 64, (8, 8)),
        ((2, 16, 128, 96), 64 * 48, (64, 48)),
        ((1, 16, 17, 15), 9 * 8, (9, 8)),  # odd sides are padded
        ((1, 16, 5, 16, 24), 5 * 8 * 12, (5, 8, 12)),
        ((1, 4, 12, 12), 144, (12, 12)),
    ],
)
def test_where_tokens_lie_that_the_table_does_not_count(pack, latent, tokens, grid):
    families, anatomies = pack.module("dit.families"), pack.module("dit.anatomy")
    uncounted = next(family for family in families.FAMILIES if family.patch_size is None)
    anatomy = anatomies.Anatomy(None, uncounted, ())
    assert anatomy.token_grid(tokens, latent) == grid
    with pytest.raises(ValueError, match="Where 63 tokens lie"):
        anatomy.token_grid(63, (1, 16, 16, 16))
