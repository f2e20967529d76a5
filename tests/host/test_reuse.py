"""`every`: D_m at some guided steps, and its last difference in between, against the plain implementation."""

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
    return range(0, calls, every)


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


def test_every_step_is_what_it_was(pack):
    assert torch.equal(sample(detail_guider(pack, model(), {"every": 1})), sample(detail_guider(pack, model())))


@PLANS
@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("m", range(DEPTH))
@pytest.mark.parametrize("every", [2, 3])
def test_a_step_that_reuses_costs_nothing(pack, every, m, cfg, batching):
    """Not one row of a block, and no patch on any."""
    patched = model().clone()
    seen = []

    def noting(apply_model, args):
        seen.append(bool(args["c"]["transformer_options"].get("patches_replace", {}).get("dit")))
        return apply_model(args["input"], args["timestep"], **args["c"])

    patched.set_model_unet_function_wrapper(noting)
    with counted(patched) as stock:
        sample(stock_guider(patched, cfg=cfg), batch=2, steps=STEPS)
    seen.clear()
    inputs = {"cfg": cfg, "layer_start": m / DEPTH, "layer_end": 1.0}
    with counted(patched) as rows:
        sample(detail_guider(pack, patched, {"every": every, "batching": batching}, **inputs), batch=2, steps=STEPS)
    extra = [guided - plain for guided, plain in zip(rows, stock, strict=True)]
    computed = len(at(every, STEPS))
    assert extra == [0] * m + [computed * 2] * (DEPTH - m)
    # Wrappers see the call before its patches are in it; the second forward of in turn is one more call.
    assert len(seen) == STEPS + (computed if batching == "in turn" else 0)


def test_no_block_is_patched_in_between(pack):
    """In a family whose blocks the host gives no hook as well."""
    case = CASES["Lumina 2"]
    patched = load("Lumina 2")
    arguments = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    noise = case.noise(1)
    with counted(patched, case.blocks, case.streams) as stock:
        sample(stock_guider(patched, **arguments), noise=noise, steps=4)
    guider = detail_guider(pack, patched, {"every": 4, "massive_ratio": 1.0, "batching": "in turn"}, **arguments)
    with counted(patched, case.blocks, case.streams) as rows:
        _, report = reported(pack, guider, noise=noise, steps=4)
    assert (report.steps_fired, report.steps_reused) == (1, 3)
    assert [guided - plain for guided, plain in zip(rows, stock, strict=True)] == [0, 0, 1, 1]


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

    plain = reusing(subject.plain(subject.model, conditioning(1), conditioning(2), 4.0, w=1.5), {0, 2, 3, 5})
    assert (
        relative_error(stages(detail_guider(pack, subject.model, {"every": 2, "batching": batching})), stages(plain))
        <= 1e-5
    )


@PLANS
def test_another_prompt_is_computed_anew(pack, subject, batching):
    """Parts of the schedule: the difference of one prompt is not another's."""
    positive = conditioning(1, start_percent=0.0, end_percent=0.4) + conditioning(3, start_percent=0.4, end_percent=1.0)
    guider = detail_guider(pack, subject.model, {"every": 8, "batching": batching}, positive=positive)
    guided, report = reported(pack, guider, steps=6)
    plain = subject.plain(subject.model, positive, conditioning(2), 4.0, w=1.5)
    assert (report.steps_fired, report.steps_reused) == (2, 4)
    assert relative_error(guided, sample(reusing(plain, {0, 3}), steps=6)) <= 1e-5


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
    assert relative_error(guided, sample(reusing(plain, {0, 2}), noise=noise, steps=3)) <= 1e-5


class ReusingBesideCache(PlainBesideCache):
    """Computes only where at least `every` steps have passed; the cache may answer then too."""

    age = 10**6

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        self.age += 1
        if self.age < self.every:
            return (
                CFGGuider.predict_noise(self, x, timestep, model_options, seed) + self.w * self.velocity * timestep[0]
            )
        before = self.__dict__.get("velocity")
        result = super().predict_noise(x, timestep, model_options, seed)
        if self.velocity is not before:
            self.age = 0
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
    free = reported(pack, detail_guider(pack, model(), {"every": 3}), steps=STEPS)[1]
    held = reported(pack, detail_guider(pack, model(), {"every": 3, "limit": 0.05}), steps=STEPS)[1]
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


@pytest.mark.parametrize("every", [0, 9, -1])
def test_what_every_may_be(pack, every):
    with pytest.raises(ValueError, match=rf"every: {every} is outside 1 to 8"):
        pack.run("DetailGuidanceOptions", every=every)


class Gated(Reusing):
    """Computes D_m also where c has changed by more than a share of itself, step by step, since it last did."""

    def both(self, x, timestep, model_options):
        number = self.calls
        if number == 0 or number - self.last >= self.every or self.change > self.gate:
            self.due, self.last, self.change = self.due | {number}, number, 0.0
        c, d = super().both(x, timestep, model_options)
        if number > self.last:
            self.change += max(
                ((new - old).norm() / new.norm()).item() for new, old in zip(c, self.before, strict=True)
            )
        self.before = c.clone()
        return c, d


@PLANS
@pytest.mark.parametrize("gate", [0.05, 0.3, 0.6])
def test_the_gate(pack, subject, gate, batching):
    """One picture after another: the sum of the largest is not the largest sum."""
    guider = detail_guider(pack, subject.model, {"batching": batching, "every": 4, "gate": gate})
    plain = reusing(subject.plain(subject.model, conditioning(1), conditioning(2), 4.0, w=1.5), ())
    plain.__class__, plain.every, plain.gate = Gated, 4, gate
    guided, report = reported(pack, guider, steps=10)
    assert relative_error(guided, sample(plain, steps=10)) <= 1e-5
    assert report.steps_fired == len(plain.due) and report.steps_fired + report.steps_reused == 10


def test_the_gate_opens_for_the_picture_that_changes_most(pack):
    of_reuse = pack.module("detail_guidance.reuse").Kept
    before = torch.ones(2, 4)
    kept = of_reuse.of(before, before, 1.0, "conditions")
    assert kept.may_serve(8, 0.1, "conditions")
    after = kept.after(torch.tensor([[1.0] * 4, [2.0] * 4]))
    torch.testing.assert_close(after.change, torch.tensor([0.0, 0.5]))
    assert after.may_serve(8, 0.0, "conditions") and after.may_serve(8, 0.51, "conditions")
    assert not after.may_serve(8, 0.49, "conditions") and not after.may_serve(2, 0.0, "conditions")
    assert not after.may_serve(8, 0.0, "other conditions")
