"""Every option against the plain implementation or a direct statement of what it does."""

import logging

import comfy.samplers
import pytest
import torch
from models import MASSIVE, conditioning, latent, model
from plain import PlainDetailGuider, above_median, relative_error
from sampling import counted, detail_guider, reported, sample, stock_guider


def plain(patcher, **arguments):
    return PlainDetailGuider(patcher, conditioning(1), conditioning(2), **{"cfg": 4.0, "w": 1.5, **arguments})


def one_step(guider):
    """The denoised prediction of the first step, in the model's own latent space."""
    return guider.model_patcher.model.process_latent_in(sample(guider, steps=1))


@pytest.mark.parametrize("batching", ["together", "in turn"])
def test_listed_channels(pack, batching):
    patcher = model()
    actual = sample(detail_guider(pack, patcher, {"channels": "3, 17,200", "batching": batching}))
    expected = sample(plain(patcher, find=lambda z: [3, 17, 200]))
    assert relative_error(actual, expected) <= 1e-5


CHANGED = {"scale_is": "strength", "every": 2, "path": "negative", "perturbation": "skipped block"}


@pytest.mark.parametrize("name", CHANGED)
def test_what_is_often_changed_is_on_the_node_too(pack, name):
    """With the same result as in the options, and beside others there; it may be said twice."""
    patcher, value = model(), {name: CHANGED[name]}
    expected = sample(detail_guider(pack, patcher, value))
    for options in (None, {"max_channels": 4}, value):
        assert torch.equal(sample(detail_guider(pack, patcher, options, **value)), expected)


def test_the_node_and_its_options_change_different_things(pack):
    patcher = model()
    both = sample(detail_guider(pack, patcher, {"perturbation": "skipped block"}, every=2))
    expected = sample(detail_guider(pack, patcher, {"perturbation": "skipped block", "every": 2}))
    assert torch.equal(both, expected)


@pytest.mark.parametrize("name, one, other", [("every", 2, 3), ("perturbation", "skipped block", "random blocks")])
def test_the_node_and_its_options_say_different_things(pack, name, one, other):
    with pytest.raises(ValueError, match=rf"{name}: {one} on the node, {other} in its options\. Set it in one of"):
        detail_guider(pack, model(), {name: other}, **{name: one})


def test_what_options_refuse_is_refused_on_the_node(pack):
    with pytest.raises(ValueError, match=r"every: 2 has no meaning with path negative"):
        detail_guider(pack, model(), path="negative", every=2)


def test_max_channels_takes_the_largest(pack):
    patcher = model()
    actual = sample(detail_guider(pack, patcher, {"max_channels": 1}))
    assert relative_error(actual, sample(plain(patcher, find=lambda z: above_median(z, at_most=1)))) <= 1e-5
    assert relative_error(actual, sample(plain(patcher, find=lambda z: [MASSIVE[0]]))) <= 1e-5


def test_profile_gives_the_channels_of_each_block(pack):
    patcher = model()
    settings = pack.module("methods.detail_guidance.settings")
    profile = settings.Profile("SD3 / SD3.5", 4, 256, {2: (5, 9), 3: (17,)}, torch.zeros(4, 256))
    actual = sample(detail_guider(pack, patcher, {"profile": profile}, layer_start=0.5, layer_end=0.75))
    channels = iter([[5, 9], [17]] * 2)
    expected = sample(plain(patcher, layers=(2, 3), find=lambda z: next(channels)))
    assert relative_error(actual, expected) <= 1e-5
    with pytest.raises(ValueError, match=r"profile: it was measured on SD3 / SD3\.5 with 24 blocks, this model"):
        detail_guider(pack, patcher, {"profile": settings.Profile("SD3 / SD3.5", 24, 256, {}, torch.zeros(24, 256))})


def test_keep_factor_goes_from_start_to_end(pack):
    patcher = model()
    actual = sample(detail_guider(pack, patcher, {"keep_start": 0.2, "keep_end": 1.0}), steps=2)
    sigmas = comfy.samplers.calculate_sigmas(patcher.get_model_object("model_sampling"), "simple", 2)
    guider = plain(patcher)

    class Scheduled(type(guider)):
        def predict_noise(self, x, timestep, model_options={}, seed=None):
            self.keep = 0.2 + 0.8 * (1 - float(timestep[0]))  # σ runs from 1 to 0
            return super().predict_noise(x, timestep, model_options, seed)

    guider.__class__ = Scheduled
    assert 0 < sigmas[1] < 1
    assert relative_error(actual, sample(guider, steps=2)) <= 1e-5


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_limit_caps_the_share_in_the_models_own_update(pack, cfg):
    """Which is x − c; the first step's x is the noise."""
    patcher = model()
    base = one_step(stock_guider(patcher, cfg=cfg))
    update = latent(seed=5)["samples"] - one_step(stock_guider(patcher, cfg=1.0))
    free = one_step(detail_guider(pack, patcher, cfg=cfg)) - base
    assert free.norm() / update.norm() > 0.1
    held = one_step(detail_guider(pack, patcher, {"limit": 0.1}, cfg=cfg)) - base
    torch.testing.assert_close(held, free * (0.1 * update.norm() / free.norm()), rtol=1e-4, atol=1e-5)
    loose = one_step(detail_guider(pack, patcher, {"limit": 10.0}, cfg=cfg)) - base
    assert relative_error(loose, free) <= 1e-5


@pytest.mark.parametrize("batching", ["together", "in turn"])
def test_scale_is_the_strength_of_each_picture_and_step(pack, batching):
    class Solving(PlainDetailGuider):
        def both(self, x, timestep, model_options):
            c, d = super().both(x, timestep, model_options)
            assert len(x) == 1
            self.w = 0.3 * ((x - c).norm() / (c - d).norm()).item()
            return c, d

    patcher = model()
    options = {"scale_is": "strength", "batching": batching, "massive_ratio": 2.0}  # at every step there is one
    guider = detail_guider(pack, patcher, options, dg_scale=0.3)
    guided, report = reported(pack, guider, steps=4)
    plain = Solving(patcher, conditioning(1), conditioning(2), 4.0, find=lambda z: above_median(z, ratio=2.0))
    expected = sample(plain, steps=4)
    assert relative_error(guided, expected) <= 1e-5
    assert report.relative_strength == pytest.approx(0.3, rel=1e-4)
    with pytest.raises(ValueError, match="scale_is: 'v' is not one of w, strength"):
        pack.run("DetailGuidanceOptions", scale_is="v")


@pytest.mark.parametrize("options", [{}, {"scale_is": "strength"}])
def test_direction_across_cfg(pack, options):
    """Each picture's term without its projection on c − u."""
    patcher = model()
    c = one_step(stock_guider(patcher, cfg=1.0))
    base = one_step(stock_guider(patcher))
    whole = one_step(detail_guider(pack, patcher, options)) - base
    actual = one_step(detail_guider(pack, patcher, {"direction": "across CFG", **options})) - base
    way = (base - c) / (base - c).norm()
    expected = whole - (whole * way).sum() * way
    if options:  # and of the strength that the whole would have
        expected *= whole.norm() / expected.norm()
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    assert (whole * way).sum().abs() > 0.01 * whole.norm(), "there must be something to leave out"


def test_rescale_takes_back_the_contrast(pack):
    patcher = model()
    c = one_step(stock_guider(patcher, cfg=1.0))
    free = one_step(detail_guider(pack, patcher, cfg=1.0))
    full = one_step(detail_guider(pack, patcher, {"rescale": 1.0}, cfg=1.0))
    torch.testing.assert_close(full, free * c.std() / free.std(), rtol=1e-4, atol=1e-5)
    half = one_step(detail_guider(pack, patcher, {"rescale": 0.5}, cfg=1.0))
    torch.testing.assert_close(half, (full + free) / 2, rtol=1e-4, atol=1e-5)


def test_mask_says_where(pack):
    patcher = model()
    mask = torch.zeros(1, 64, 64)
    mask[..., 32:] = 1  # the right half, at another resolution than the latent's
    c = one_step(stock_guider(patcher))
    free = one_step(detail_guider(pack, patcher)) - c
    masked = one_step(detail_guider(pack, patcher, {"mask": mask})) - c
    # Forwards of two rows and of three are equal to rounding, not to the bit.
    assert masked[..., :7].norm() <= 1e-5 * c.norm() and free[..., :7].norm() > 1e-2 * c.norm()
    torch.testing.assert_close(masked[..., 9:], free[..., 9:])


@pytest.mark.parametrize("options", [{}, {"rescale": 1.0}, {"limit": 0.05, "rescale": 0.5}])
def test_nothing_changes_where_the_mask_is_black(pack, options):
    patcher = model()
    mask = torch.zeros(16, 16)  # a single mask without a batch, as some packs make them
    mask[:, 8:] = 1
    c = one_step(stock_guider(patcher))
    masked = one_step(detail_guider(pack, patcher, {"mask": mask, **options}))
    free = one_step(detail_guider(pack, patcher, options))
    torch.testing.assert_close(masked[..., :8], c[..., :8])
    torch.testing.assert_close(masked[..., 8:], free[..., 8:])


def test_each_picture_of_a_batch_has_its_mask(pack):
    patcher = model()
    masks = torch.stack([torch.zeros(16, 16, dtype=torch.bool), torch.ones(16, 16, dtype=torch.bool)])
    steps = {"batch": 2, "steps": 1}
    masked = sample(detail_guider(pack, patcher, {"mask": masks}), **steps)
    # Forwards of other batch sizes: equal to rounding, not to the bit.
    assert relative_error(masked[0], sample(stock_guider(patcher), **steps)[0]) <= 1e-5
    assert relative_error(masked[1], sample(detail_guider(pack, patcher), **steps)[1]) <= 1e-5


def test_auto_batching_goes_by_memory(pack, caplog, monkeypatch):
    patcher = model()
    expected = sample(plain(patcher))
    with caplog.at_level(logging.INFO):
        sample(detail_guider(pack, patcher))
    assert ", together, " in caplog.text
    caplog.clear()
    monkeypatch.setattr(patcher.model, "memory_usage_factor", 1e9)  # the host believes each row needs all memory
    with caplog.at_level(logging.INFO):
        assert relative_error(sample(detail_guider(pack, patcher)), expected) <= 1e-5
    assert ", in turn, " in caplog.text


@pytest.mark.parametrize("free, plan", [(0, "in turn"), (2**60, "together")])
def test_auto_batching_asks_for_memory_as_newer_hosts_do(pack, caplog, monkeypatch, free, plan):
    """Their patcher answers, which counts what it can free, and not the device."""
    patcher = model()
    monkeypatch.setattr(type(patcher), "get_free_memory", lambda self, device: free, raising=False)
    monkeypatch.setattr(pack.module("dit.branch.plans"), "get_free_memory", lambda device: 2**60 - free)
    with caplog.at_level(logging.INFO):
        sample(detail_guider(pack, patcher))
    assert f", {plan}, " in caplog.text


def test_together_where_the_host_splits_the_batch_goes_on_in_turn(pack, caplog, monkeypatch):
    patcher = model()
    expected = sample(plain(patcher, layers=(1, 2)))
    monkeypatch.setattr(patcher.model, "memory_usage_factor", 1e9)
    with caplog.at_level(logging.INFO):
        guider = detail_guider(pack, patcher, {"batching": "together"}, layer_start=0.25, layer_end=0.5)
        assert relative_error(sample(guider), expected) <= 1e-5
    assert ", in turn, " in caplog.text


def test_a_later_node_replaces_an_earlier_one(pack):
    patcher = model()
    first = pack.run("DetailGuidance", model=patcher, dg_scale=9.0)
    samples, report = reported(pack, detail_guider(pack, first))
    assert report.warnings[0].startswith("this model already carries one")
    assert torch.equal(samples, sample(detail_guider(pack, patcher)))
    with counted(patcher) as rows:
        sample(detail_guider(pack, first, dg_scale=0.0))
    assert rows == [4, 4, 4, 4]
