"""The free path: D̂ = D + λ(D − D_∅,m), the negative's own prediction disrupted, against a plain implementation."""

import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_perpneg import Guider_PerpNeg
from comparison import with_context_windows
from family_models import CASES
from models import conditioning, model, subject
from peak import peak
from plain import PlainDetailGuider, above_median, counting_tokens, hooked, relative_error
from plain import Seen as Tokens
from sampling import STEPS, counted, detail_guider, reported, sample, stock_guider
from test_families import CACHED, TOP, of_cases, setting, work

CFG, SCALE = 4.0, 1.5
KEEP = 1 - SCALE / (CFG - 1)


class PlainNegativeGuider(PlainDetailGuider):
    """c + (cfg − 1)(c − u_m), a full forward for each; channels are found and multiplied in one hook at each layer."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        network, rows = self.inner_model.diffusion_model, self.rows or len(x)
        c = self.predict(self.conds["positive"], x, timestep, model_options)
        seen = Tokens({})
        hooks = {layer: self.disrupt_own(self.streams[layer], seen, rows) for layer in self.layers}
        with counting_tokens(self.embedder and self.embedder(network), seen), hooked(self.blocks(network), hooks):
            u = self.predict(self.conds["negative"], x, timestep, model_options)
        return c + (self.cfg - 1) * (c - u)

    def disrupt_own(self, stream, seen, rows):
        def hook(block, args, kwargs):
            args, kwargs = list(args), dict(kwargs)
            arguments, key = stream.find(block, args, kwargs)
            arguments[key] = arguments[key].clone()
            z = stream.picture(arguments[key], seen.tokens)
            for start in range(0, len(z), rows):
                z[start : start + rows, ..., self.find(z[start : start + rows].numpy())] *= self.keep
            return tuple(args), kwargs

        return hook


def free(pack, patcher, options=(), **inputs):
    """A DetailGuider on the negative's path."""
    return detail_guider(pack, patcher, {"path": "negative", **dict(options)}, dg_scale=SCALE, **inputs)


WITH_NEGATIVE = of_cases(*(name for name, case in CASES.items() if name != CACHED and not case.one_row))


@WITH_NEGATIVE
@pytest.mark.parametrize("across", [False, True])
def test_equals_plain_implementation_on_every_family(pack, name, across):
    case, patcher, batch, inputs = setting(name)
    middle = case.depth // 2
    layers = (middle - 1, middle) if across else (middle,)
    bounds = {"layer_start": (layers[0] + 0.5) / case.depth, "layer_end": (layers[-1] + 0.5) / case.depth}
    noise = case.noise(batch)
    plain = PlainNegativeGuider(
        patcher,
        **inputs,
        layers=layers,
        keep=KEEP,
        find=lambda z: above_median(z, ratio=1.0),
        blocks=case.blocks,
        streams=case.streams,
    )
    expected = sample(plain, noise=noise)
    actual, report = reported(pack, free(pack, patcher, TOP, **bounds, **inputs), noise=noise)
    actual, expected = actual[..., : case.numbers], expected[..., : case.numbers]
    assert relative_error(actual, expected) <= 1e-5
    unguided = sample(stock_guider(patcher, **inputs), noise=noise)[..., : case.numbers]
    assert relative_error(unguided, expected) > 1e-4, "the detail must be large enough to compare"
    assert (report.steps_guided, report.steps_fired, report.plan) == (STEPS, STEPS, "in place")
    assert report.kept_of_negative == KEEP and report.warnings == []


@WITH_NEGATIVE
def test_no_work_more_than_cfg_on_every_family(pack, name):
    case, patcher, batch, inputs = setting(name)
    noise, blocks = case.noise(batch), case.blocks(patcher.model.diffusion_model)
    with work(blocks) as stock:
        sample(stock_guider(patcher, **inputs), noise=noise)
    with work(blocks) as numbers:
        sample(free(pack, patcher, TOP, **inputs), noise=noise)
    assert numbers == stock


@pytest.mark.parametrize("batch", [1, 3])
def test_no_row_no_forward_and_no_memory_more_than_cfg(pack, batch):
    patcher = model(depth=4)
    forwards = []
    handle = patcher.model.diffusion_model.register_forward_pre_hook(lambda *_: forwards.append(1))
    with counted(patcher) as stock:
        sample(stock_guider(patcher), batch)
    count = len(forwards)
    with counted(patcher) as rows:
        sample(free(pack, patcher), batch)
    handle.remove()
    assert rows == stock and len(forwards) == 2 * count == 2 * STEPS
    noise = torch.randn(batch, 16, 32, 32)
    tokens, width = batch * 16 * 16, patcher.model.diffusion_model.hidden_size
    state = 2 * tokens * width * 4  # both predictions' image tokens at one block, which are copied once
    assert peak(free(pack, patcher), noise) <= peak(stock_guider(patcher), noise) + 1.05 * state


# Beside other nodes


def plain_of(subject, positive=None, negative=None, layers=(2,), cfg=CFG):
    view = {"blocks": subject.blocks, "streams": subject.streams, "embedder": subject.embedder}
    keep = 1 - SCALE / (cfg - 1)
    inputs = (positive or conditioning(1), negative or conditioning(2), cfg)
    return PlainNegativeGuider(subject.model, *inputs, layers=layers, keep=keep, **view)


LEFT = conditioning(3, area=(16, 8, 0, 0), strength=0.7)


@pytest.mark.parametrize(
    "positive, negative",
    [
        (None, conditioning(2, tokens=5)),
        (None, conditioning(2) + conditioning(4)),
        (None, conditioning(2) + LEFT),
        (conditioning(1) + LEFT, None),
        (conditioning(1) + conditioning(4, start_percent=0.4), conditioning(2, end_percent=0.6)),
    ],
    ids=["another length", "two negatives", "an area of the negative", "an area of the positive", "timestep ranges"],
)
def test_conditions(pack, subject, positive, negative):
    inputs = {"positive": positive or conditioning(1), "negative": negative or conditioning(2)}
    bounds = {"layer_start": 0.25, "layer_end": 0.5}
    actual, report = reported(pack, free(pack, subject.model, **inputs, **bounds), batch=2, steps=4)
    expected = sample(plain_of(subject, positive, negative, layers=(1, 2)), batch=2, steps=4)
    assert relative_error(actual, expected) <= 1e-5
    assert relative_error(sample(stock_guider(subject.model, **inputs), batch=2, steps=4), expected) > 1e-3
    assert report.steps_guided == 4


def test_a_step_in_which_no_negative_is_active_is_told(pack, subject):
    negative = conditioning(2, start_percent=0.6)
    _, report = reported(pack, free(pack, subject.model, negative=negative), steps=4)
    assert report.steps_fired < report.steps_guided == 4
    assert any("no negative condition was active" in warning for warning in report.warnings)


def with_guidance(pack, subject, **options):
    """The model with Detail Guidance on the negative's path, for other guiders."""
    options = pack.run("DetailGuidanceOptions", path="negative", **options)
    return pack.run(
        "DetailGuidance", model=subject.model, dg_scale=SCALE, layer_start=0.5, layer_end=0.5, options=options
    )


def predictions(subject, keep, *seeds):
    """Plain predictions of prompts in the first step, one of them with its massive channels disrupted: the last."""

    class Guider(PlainNegativeGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):
            return self.formula(x, *(self.one(group, x, timestep, model_options) for group in seeds))

        def one(self, seed, x, timestep, model_options):
            group = self.conds[f"prompt {abs(seed)}"]
            if seed > 0:
                return self.predict(group, x, timestep, model_options)
            seen, network = Tokens({}), self.inner_model.diffusion_model
            hooks = {2: self.disrupt_own(self.streams[2], seen, len(x))}
            with counting_tokens(self.embedder and self.embedder(network), seen), hooked(self.blocks(network), hooks):
                return self.predict(group, x, timestep, model_options)

    guider = plain_of(subject)
    guider.__class__ = Guider
    guider.keep = keep
    guider.inner_set_conds(
        {f"prompt {abs(seed)}": conditioning(abs(seed)) for seed in seeds} | {"positive": conditioning(1)}
    )
    return guider


@pytest.mark.parametrize("nested", [False, True])
def test_two_positives(pack, subject, nested):
    """The negative is behind the second: its own factor is cfg2 − 1."""
    guider = Guider_DualCFG(with_guidance(pack, subject))
    guider.set_cfg(3.0, CFG, nested=nested)
    guider.set_conds(conditioning(1), conditioning(3), conditioning(2))
    plain = predictions(subject, KEEP, 1, 3, -2)
    if nested:
        plain.formula = lambda x, c, middle, u: u + CFG * ((middle + 3.0 * (c - middle)) - u)
    else:
        plain.formula = lambda x, c, middle, u: u + CFG * (middle - u) + 3.0 * (c - middle)
    assert relative_error(sample(guider), sample(plain)) <= 1e-5


def test_perp_neg(pack, subject):
    """The negative's part across the positive's has the factor cfg · neg_scale."""
    guider = Guider_PerpNeg(with_guidance(pack, subject))
    guider.set_conds(conditioning(1), conditioning(2), conditioning(3))
    guider.set_cfg(CFG, 0.75)
    plain = predictions(subject, 1 - SCALE / (CFG * 0.75), 1, -2, 3)

    def formula(x, c, negative, empty):
        pos, neg = c - empty, negative - empty
        along = (neg * pos).sum() / pos.square().sum() * pos
        return empty + CFG * (pos - 0.75 * (neg - along))

    plain.formula = formula
    assert relative_error(sample(guider), sample(plain)) <= 1e-5


def test_context_windows(pack):
    name = "Wan text to video"
    case, patcher, _, inputs = setting(name)
    noise = case.noise(1)
    windowed = with_context_windows(patcher, frames=3)
    plain = PlainNegativeGuider(
        windowed,
        **inputs,
        layers=(2,),
        keep=KEEP,
        find=lambda z: above_median(z, ratio=1.0),
        blocks=case.blocks,
        streams=case.streams,
    )
    bounds = dict.fromkeys(("layer_start", "layer_end"), 2.5 / case.depth)
    actual, report = reported(pack, free(pack, windowed, TOP, **bounds, **inputs), noise=noise)
    assert relative_error(actual, sample(plain, noise=noise)) <= 1e-5
    assert report.steps_guided == report.steps_fired == STEPS


def test_a_cache_that_answers_in_the_models_place(pack):
    """EasyCache keeps what the disrupted negative answered, as it keeps anybody's."""
    flux = subject("Flux").model  # on SD3 the host's cache does nothing
    cached = EasyCacheNode.execute(flux, 1e6, 0.15, 0.95, False)[0]
    samples, report = reported(pack, free(pack, cached), steps=8)
    assert 0 < report.steps_fired < report.steps_guided == 8
    assert torch.isfinite(samples).all() and relative_error(samples, sample(stock_guider(cached), steps=8)) > 1e-3
    assert any("another node's cache answered" in warning for warning in report.warnings)


def test_a_cache_that_keeps_a_state_for_each_of_two_conditions(pack, subject):
    """As TeaCache does: nothing is called more often than without, so it counts right."""
    calls = {0: 0, 1: 0}

    class TeaCache:
        def __call__(self, apply_model, args):
            for condition in args["cond_or_uncond"]:
                calls[condition] += 1
            return apply_model(args["input"], args["timestep"], **args["c"])

    patched = subject.model.clone()
    patched.set_model_unet_function_wrapper(TeaCache())
    alone = sample(free(pack, subject.model))
    assert torch.equal(sample(free(pack, patched)), alone) and calls == {0: STEPS, 1: STEPS}


# What has no meaning on this path, and what it needs


@pytest.mark.parametrize(
    "option",
    [
        {"keep_start": 0.5},
        {"keep_end": 0.5},
        {"rescale": 0.5},
        {"limit": 0.5},
        {"every": 2},
        {"scale_is": "strength"},
        {"direction": "across CFG"},
        {"mask": torch.ones(1, 16, 16)},
    ],
    ids=lambda option: next(iter(option)),
)
def test_what_works_on_a_second_prediction_is_refused_by_name(pack, option):
    (name,) = option
    with pytest.raises(ValueError, match=f"^{name}: .* path negative"):
        pack.run("DetailGuidanceOptions", path="negative", **option)


def test_cfg_1_is_refused_before_anything_is_sampled(pack):
    with pytest.raises(ValueError, match="cfg: 1 is not above 1"):
        free(pack, model(), cfg=1.0)
    guider = stock_guider(free(pack, model()).model_patcher, cfg=1.0)
    with (
        counted(model()) as rows,
        pytest.raises(ValueError, match=r"path: negative .* gives it no weight\. Set cfg above 1"),
    ):
        sample(guider)
    assert rows == [0] * 4
    assert torch.equal(sample(stock_guider(model())), sample(stock_guider(model()))), "the next run works"


def test_more_than_everything_is_told(pack):
    samples, report = reported(pack, detail_guider(pack, model(), {"path": "negative"}, dg_scale=9.0))
    most = sample(detail_guider(pack, model(), {"path": "negative"}, dg_scale=3.0))
    assert report.kept_of_negative == 0 and torch.equal(samples, most)
    assert report.warnings == [
        "dg_scale 9 is more than the negative's path can take at this cfg, 3: raising it further changes nothing. "
        "Lower it, raise cfg, or set path to positive."
    ]
    _, report = reported(pack, detail_guider(pack, model(), {"path": "negative"}, dg_scale=3.0))
    assert report.kept_of_negative == 0 and report.warnings == []


@pytest.mark.parametrize("off", [{"enabled": False}, {"dg_scale": 0.0}])
def test_off_is_off_without_cfg_too(pack, off):
    guider = detail_guider(pack, model(), {"path": "negative"}, cfg=1.0, **off)
    assert torch.equal(sample(guider), sample(stock_guider(model(), cfg=1.0)))


def test_steps_outside_the_window_are_the_hosts_own(pack):
    guider = free(pack, model(), start_percent=0.9999, end_percent=1.0)
    assert torch.equal(sample(guider), sample(stock_guider(model())))
