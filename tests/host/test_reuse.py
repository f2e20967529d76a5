"""`every`: D_m at some guided steps, and its last difference in between, against the plain implementation."""

import itertools
from contextlib import contextmanager

import comfy.samplers
import pytest
import torch
from comfy.samplers import CFGGuider
from comfy_extras.nodes_easycache import EasyCacheNode
from comparison import PLANS, with_context_windows
from family_models import CASES, load, normal
from models import conditioning, latent, model
from plain import PlainDetailGuider, Stream, above_median, relative_error
from sampling import counted, detail_guider, reported, sample, stock_guider
from test_neighbours_of_the_model import PlainBesideCache

DEPTH = 4
STEPS = 5


class Reusing(PlainDetailGuider):
    """Computes D_m in the calls that `due` numbers; between them the model's velocity is off by what it was then."""

    def both(self, x, timestep, model_options):
        sigma, number = timestep[0], self.calls
        self.calls += 1
        if number in self.due:
            c, d = super().both(x, timestep, model_options)
            self.off = (x - d) / sigma - (x - c) / sigma
            return c, d
        c = self.predict(self.conds["positive"], x, timestep, model_options)
        return c, x - sigma * ((x - c) / sigma + self.off)


def reusing(plain, due):
    plain.__class__ = Reusing
    plain.due, plain.calls = set(due), 0
    return plain


def at(every, calls):
    """The first two calls, and every so many after them."""
    return [0, *range(1, calls, every)]


@PLANS
@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("sampler, calls", [("euler", 5), ("heun", 9), ("dpmpp_2m", 5), ("euler_ancestral", 5)])
@pytest.mark.parametrize("every", [2, 3, 8])
def test_equals_plain_implementation(pack, subject, every, sampler, calls, cfg, batching):
    guider = detail_guider(pack, subject.model, {"batching": batching, "every": every}, cfg=cfg)
    plain = subject.plain(subject.model, conditioning(1), conditioning(2), cfg, w=1.5)
    guided, report = reported(pack, guider, batch=2, sampler=sampler, steps=STEPS)
    expected = sample(reusing(plain, at(every, calls)), batch=2, sampler=sampler, steps=STEPS)
    assert relative_error(guided, expected) <= 1e-5
    computed = len(at(every, calls))
    assert (report.steps, report.steps_fired, report.steps_reused) == (calls, computed, calls - computed)
    assert report.warnings == []


def test_the_difference_is_large_enough_for_these_comparisons_to_mean_something(pack):
    full = sample(detail_guider(pack, model()), steps=STEPS)
    without = sample(stock_guider(model()), steps=STEPS)
    reused = sample(detail_guider(pack, model(), {"every": 3}), steps=STEPS)
    assert relative_error(reused, full) > 1e-3 and relative_error(reused, without) > 1e-3


@contextmanager
def forwards(patcher):
    """While it lasts, notes of each forward of the network whether a patch is on any of its blocks."""
    patched = []

    def note(_, args, kwargs):
        options = next(each for each in (*args, kwargs.get("transformer_options")) if isinstance(each, dict))
        patched.append(bool(options.get("patches_replace", {}).get("dit")))

    handle = patcher.model.diffusion_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield patched
    finally:
        handle.remove()


@PLANS
@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("m", range(DEPTH))
@pytest.mark.parametrize("every", [2, 3])
def test_a_step_that_reuses_costs_nothing(pack, every, m, cfg, batching):
    """Not one row of a block, and no patch on any."""
    patcher = model()
    with counted(patcher) as stock:
        sample(stock_guider(patcher, cfg=cfg), batch=2, steps=STEPS)
    inputs = {"cfg": cfg, "layer_start": m / DEPTH, "layer_end": 1.0}
    guider = detail_guider(pack, patcher, {"every": every, "batching": batching}, **inputs)
    with counted(patcher) as rows, forwards(patcher) as patched:
        sample(guider, batch=2, steps=STEPS)
    computed = at(every, STEPS)
    extra = [guided - plain for guided, plain in zip(rows, stock, strict=True)]
    assert extra == [0] * m + [len(computed) * 2] * (DEPTH - m)
    of_computed = [True] if batching == "together" else [True, True]
    assert patched == [each for step in range(STEPS) for each in (of_computed if step in computed else [False])]


@PLANS
def test_a_family_with_a_hook_of_this_pack(pack, batching):
    case, patcher = CASES["Lumina 2"], load("Lumina 2")
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    noise = case.noise(1)
    with counted(patcher, case.blocks, case.streams) as stock:
        sample(stock_guider(patcher, **inputs), noise=noise, steps=6)
    guider = detail_guider(pack, patcher, {"every": 4, "massive_ratio": 1.0, "batching": batching}, **inputs)
    with counted(patcher, case.blocks, case.streams) as rows, forwards(patcher) as patched:
        sample(guider, noise=noise, steps=6)
    assert [guided - plain for guided, plain in zip(rows, stock, strict=True)] == [0, 0, 3, 3]
    assert sum(patched) == (3 if batching == "together" else 6) and len(patched) == sum(patched) + 3


@PLANS
@pytest.mark.parametrize("name", ["Cosmos", "Cosmos Predict2"])
def test_what_the_network_answers_is_kept(pack, name, batching):
    """Of models that predict otherwise than a velocity of rectified flow: D = a x + b F, by the published b."""
    case, patcher = CASES[name], load(name)
    data = 1.0 if name == "Cosmos Predict2" else patcher.get_model_object("model_sampling").sigma_data

    class Answering(Reusing):
        def both(self, x, timestep, model_options):
            sigma, number = float(timestep[0]), self.calls
            b = sigma / (sigma + 1) if name == "Cosmos Predict2" else sigma * data / (sigma**2 + data**2) ** 0.5
            self.calls += 1
            if number in self.due:
                c, d = PlainDetailGuider.both(self, x, timestep, model_options)
                self.off = (c - d) / b
                return c, d
            c = self.predict(self.conds["positive"], x, timestep, model_options)
            return c, c - b * self.off

    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    view = {"blocks": case.blocks, "streams": case.streams, "find": lambda z: above_median(z, ratio=1.0)}
    plain = PlainDetailGuider(patcher, *inputs.values(), 4.0, w=1.5, **view)
    plain.__class__, plain.due, plain.calls = Answering, {0, 1, 4}, 0
    options = {"every": 3, "massive_ratio": 1.0, "batching": batching}
    guided, report = reported(pack, detail_guider(pack, patcher, options, **inputs), noise=case.noise(1), steps=5)
    assert (report.steps_fired, report.steps_reused) == (3, 2)
    assert relative_error(guided, sample(plain, noise=case.noise(1), steps=5)) <= 1e-5


def test_steps_outside_the_window_do_not_count(pack):
    guider = detail_guider(pack, model(), {"every": 2}, start_percent=0.3, end_percent=0.9)
    _, report = reported(pack, guider, steps=8)  # percents 0, 0.125 …; inside are 0.375 to 0.875
    assert (report.steps_guided, report.steps_fired, report.steps_reused) == (5, 3, 2)


@PLANS
def test_runs_share_nothing(pack, subject, batching):
    """A second stage, as any other run, begins with a step of its own."""

    def stages(guider):
        sigmas = comfy.samplers.calculate_sigmas(subject.model.get_model_object("model_sampling"), "simple", 6)
        euler = comfy.samplers.sampler_object("euler")
        noise = latent(seed=5)["samples"]
        half = guider.sample(noise, noise * 0, euler, sigmas[:4], seed=5)
        return guider.sample(noise * 0, half, euler, sigmas[3:], seed=5)

    plain = reusing(subject.plain(subject.model, conditioning(1), conditioning(2), 4.0, w=1.5), {0, 1, 3, 4})
    assert (
        relative_error(stages(detail_guider(pack, subject.model, {"every": 2, "batching": batching})), stages(plain))
        <= 1e-5
    )


@PLANS
@pytest.mark.parametrize("steps", [6, 10])
def test_another_prompt_is_computed_anew(pack, subject, batching, steps):
    """Parts of the schedule, which may meet in a step: the difference of one prompt is not another's."""
    positive = conditioning(1, start_percent=0.0, end_percent=0.4) + conditioning(3, start_percent=0.4, end_percent=1.0)
    active = []

    def noting(apply_model, args):
        active.append(frozenset(args["c"]["transformer_options"]["uuids"]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    watched = subject.model.clone()
    watched.set_model_unet_function_wrapper(noting)
    sample(stock_guider(watched, positive), steps=steps)
    due = {0, 1} | {step for step in range(1, steps) if active[step] != active[step - 1]}
    assert 3 <= len(due) <= 4
    guider = detail_guider(pack, subject.model, {"every": 8, "batching": batching}, positive=positive)
    guided, report = reported(pack, guider, steps=steps)
    assert report.steps_fired == len(due)
    plain = subject.plain(subject.model, positive, conditioning(2), 4.0, w=1.5)
    assert relative_error(guided, sample(reusing(plain, due), steps=steps)) <= 1e-5


@PLANS
def test_context_windows(pack, batching):
    """The difference is of the whole video."""
    case = CASES["Wan text to video"]
    patched = with_context_windows(load("Wan text to video"), frames=3)
    noise = normal(5, 1, 16, 7, 8, 8)
    positive, negative = case.conditioning(1), case.conditioning(2)
    options = {"batching": batching, "massive_ratio": 1.0, "every": 2}
    guided, report = reported(
        pack, detail_guider(pack, patched, options, positive=positive, negative=negative), noise=noise, steps=3
    )
    assert (report.steps_fired, report.steps_reused, report.warnings) == (2, 1, [])
    find, view = lambda z: above_median(z, ratio=1.0), {"blocks": case.blocks, "streams": [Stream("x")] * 4}
    plain = PlainDetailGuider(patched, positive, negative, 4.0, w=1.5, find=find, **view)
    assert relative_error(guided, sample(reusing(plain, {0, 1}), noise=noise, steps=3)) <= 1e-5


class ReusingBesideCache(PlainBesideCache):
    """Computes only where at least `every` steps have passed, and twice at first; the cache may answer then too."""

    age = computed = 0

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        self.age += 1
        if self.computed >= 2 and self.age < self.every:
            return (
                CFGGuider.predict_noise(self, x, timestep, model_options, seed) + self.w * self.velocity * timestep[0]
            )
        before = self.__dict__.get("velocity")
        result = super().predict_noise(x, timestep, model_options, seed)
        if self.velocity is not before:
            self.age = 0
            self.computed += 1
        return result


@PLANS
def test_beside_easycache(pack, subject, batching):
    """A step that reuses refreshes no cache; one that the cache answers does not count as computed."""
    patched = EasyCacheNode.execute(subject.model, 1e6, 0.15, 0.95, False)[0]
    view = {"blocks": subject.blocks, "streams": subject.streams, "embedder": subject.embedder}
    plain = ReusingBesideCache(patched, conditioning(1), conditioning(2), 4.0, w=1.5, **view)
    plain.every = 2
    guided, report = reported(pack, detail_guider(pack, patched, {"batching": batching, "every": 2}), steps=9)
    assert relative_error(guided, sample(plain, steps=9)) <= 1e-5
    assert report.steps_fired + report.steps_reused <= report.steps_guided == 9 and report.steps_reused > 0


def test_limit_holds_in_between(pack):
    options = {"every": 3, "massive_ratio": 2.0}
    _, free = reported(pack, detail_guider(pack, model(), options), steps=STEPS)
    _, held = reported(pack, detail_guider(pack, model(), {**options, "limit": 0.05}), steps=STEPS)
    assert free.relative_strength > 0.1 and held.relative_strength == pytest.approx(0.05, rel=1e-3)


def test_nothing_changes_where_the_mask_is_black(pack):
    black = torch.zeros(1, 16, 16)

    def denoised_of(guider):
        seen = []
        sample(guider, steps=3, callback=lambda step, denoised, x, total: seen.append(denoised))
        return seen

    masked = denoised_of(detail_guider(pack, model(), {"every": 8, "mask": black}))
    for ours, stock in zip(masked, denoised_of(stock_guider(model())), strict=True):
        torch.testing.assert_close(ours, stock)


@PLANS
def test_a_sampler_that_changes_the_size(pack, batching):
    """A difference of another size is of no use."""

    @torch.no_grad()
    def growing(model, x, sigmas, extra_args, callback, disable):
        for number, (sigma, following) in enumerate(itertools.pairwise(sigmas)):
            if number == 3:
                x = torch.nn.functional.interpolate(x, scale_factor=1.5)
            denoised = model(x, sigma.expand(len(x)), **extra_args)
            x = denoised + (x - denoised) * (following / sigma)
        return x

    def run(guider):
        noise = latent(seed=5)["samples"]
        sigmas = comfy.samplers.calculate_sigmas(model().get_model_object("model_sampling"), "simple", 6)
        return guider.sample(noise, noise * 0, comfy.samplers.KSAMPLER(growing), sigmas, seed=5, disable_pbar=True)

    plain = reusing(PlainDetailGuider(model(), conditioning(1), conditioning(2), 4.0, w=1.5), {0, 1, 3})
    guided = run(detail_guider(pack, model(), {"every": 8, "batching": batching}))
    assert guided.shape[-1] == 24 and relative_error(guided, run(plain)) <= 1e-5


@pytest.mark.parametrize("given, plan", [({}, "together"), ({"every": 2}, "in turn"), ({"end": 0.5}, "in turn")])
def test_patches_of_attentions_input_see_batches_of_one_kind(pack, given, plan):
    """They may keep what a batch's rows were given for the batches after it."""
    patched = model().clone()
    patched.set_model_attn1_patch(lambda q, k, v, extra: (q, k, v))
    options = {"every": given["every"]} if "every" in given else {}
    _, report = reported(pack, detail_guider(pack, patched, options, end_percent=given.get("end", 1.0)), steps=4)
    assert report.plan == plan


@pytest.mark.parametrize("every", [0, 9, -1])
def test_what_every_may_be(pack, every):
    with pytest.raises(ValueError, match=rf"every: {every} is outside 1 to 8"):
        pack.run("DetailGuidanceOptions", every=every)
