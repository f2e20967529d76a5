"""The curve of dg_scale over the schedule, against a plain implementation."""

import comfy.samplers
import numpy as np
import pytest
import torch
from models import conditioning, model
from plain import PlainDetailGuider, relative_error
from sampling import counted, detail_guider, reported, sample

CURVE = "0:0.2, 0.25:1, 1:0.4"
STEPS = 6


class Scheduled(PlainDetailGuider):
    """w by a list, one for each step."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        self.w = 1.5 * next(self.shares)
        return super().predict_noise(x, timestep, model_options, seed)


def levels(patcher):
    return comfy.samplers.calculate_sigmas(patcher.get_model_object("model_sampling"), "simple", STEPS)[:-1].tolist()


@pytest.mark.parametrize("batching", ["together", "in turn"])
def test_the_scale_goes_along_it(pack, batching):
    """SD3's noise levels run from 1 to 0, so that a level's place is 1 minus it."""
    patcher = model()
    actual = sample(detail_guider(pack, patcher, {"curve": CURVE, "batching": batching}), steps=STEPS)
    plain = Scheduled(patcher, conditioning(1), conditioning(2), cfg=4.0, w=1.5)
    plain.shares = iter([np.interp(1 - level, [0, 0.25, 1], [0.2, 1, 0.4]) for level in levels(patcher)])
    assert relative_error(actual, sample(plain, steps=STEPS)) <= 1e-5
    assert relative_error(actual, sample(detail_guider(pack, patcher), steps=STEPS)) > 1e-3


def test_within_the_window(pack):
    """Places are the guided part's: 0 is at start_percent, 1 at end_percent."""
    patcher = model()
    sampling = patcher.get_model_object("model_sampling")
    first, last = (float(sampling.percent_to_sigma(percent)) for percent in (0.2, 0.8))
    window = {"start_percent": 0.2, "end_percent": 0.8}
    actual = sample(detail_guider(pack, patcher, {"curve": "0:1, 1:0.1"}, **window), steps=STEPS)
    inside = [level for level in levels(patcher) if last <= level <= first]
    assert 0 < len(inside) < STEPS
    plain = Scheduled(patcher, conditioning(1), conditioning(2), cfg=4.0, w=1.5)
    places = [(first - level) / (first - last) for level in levels(patcher)]
    shares = [np.interp(place, [0, 1], [1, 0.1]) if 0 <= place <= 1 else 0.0 for place in places]
    plain.shares = iter(shares)
    assert relative_error(actual, sample(plain, steps=STEPS)) <= 1e-5


def test_where_it_is_zero_nothing_is_computed(pack):
    patcher = model()
    with counted(patcher) as rows:
        _, report = reported(pack, detail_guider(pack, patcher, {"curve": "0:0, 0.5:0, 0.6:1"}, cfg=1.0), steps=STEPS)
    past_half = sum(1 - level > 0.5 for level in levels(patcher))
    assert 0 < past_half < STEPS
    assert report.steps_fired == past_half and rows[-1] == STEPS + past_half


def test_in_the_negative(pack):
    """There it sets how much of the massive activations is kept, step by step."""
    patcher = model()
    flat, curved = ({"path": "negative"} | more for more in ({}, {"curve": "0:1, 1:1"}))
    pictures = [sample(detail_guider(pack, patcher, options), steps=STEPS) for options in (flat, curved)]
    assert torch.equal(*pictures)
    falling = sample(detail_guider(pack, patcher, {"path": "negative", "curve": "0:1, 1:0.1"}), steps=STEPS)
    half = sample(detail_guider(pack, patcher, flat, dg_scale=0.75), steps=STEPS)
    halved = sample(detail_guider(pack, patcher, {"path": "negative", "curve": "0:0.5"}), steps=STEPS)
    assert torch.equal(half, halved) and not torch.equal(falling, pictures[0])


def test_a_kept_difference_grows_old_where_nothing_is_guided(pack):
    """Behind a gap of the curve the detail is computed anew: of every so many steps, those in the gap count too."""
    options = {"curve": "0:1, 0.2:0, 0.8:0, 0.85:1", "every": 8}
    _, report = reported(pack, detail_guider(pack, model(), options), steps=30)
    _, before = reported(pack, detail_guider(pack, model(), {"curve": "0:1, 0.2:0", "every": 8}), steps=30)
    assert report.steps_guided > before.steps_guided and report.steps_fired > before.steps_fired


def test_reports_know_its_highest_point(pack):
    """Cfg 3 leaves room for 2 in the negative: 3 is more, half of it is not."""
    options = {"path": "negative", "curve": "0:0.5"}
    _, report = reported(pack, detail_guider(pack, model(), options, cfg=3.0, dg_scale=3.0), steps=STEPS)
    assert report.kept_of_negative == pytest.approx(0.25)
    assert not any("changes nothing" in warning for warning in report.warnings)


def test_no_step_where_it_is_above_zero(pack):
    _, report = reported(pack, detail_guider(pack, model(), {"curve": "0:0, 0.99:0, 1:1"}), steps=4)
    assert any("where the curve 0:0, 0.99:0, 1:1 is above 0: nothing was guided" in each for each in report.warnings)


def test_strength_follows_it(pack):
    patcher, strength = model(), {"scale_is": "strength"}
    halved = sample(detail_guider(pack, patcher, strength | {"curve": "0:0.5"}, dg_scale=0.1), steps=STEPS)
    assert torch.equal(halved, sample(detail_guider(pack, patcher, strength, dg_scale=0.05), steps=STEPS))


@pytest.mark.parametrize(
    "text, why",
    [
        ("0.5", r"is no list of points place:share such as"),
        ("0:1; 1:0", r"is no list of points"),
        ("0:-1", r"is no list of points"),
        ("0:1.2.3", r"has what is no number"),
        ("0:1.5", r"has a number above 1\. Places and shares are 0 to 1; raise dg_scale for more"),
        ("0.5:1, 0.5:0", r"has places that do not rise"),
        ("0:0, 1:0", r"is 0 everywhere, which is Detail Guidance off"),
    ],
)
@pytest.mark.parametrize("place", ["node", "options"])
def test_what_is_refused(pack, text, why, place):
    with pytest.raises(ValueError, match=rf"curve: '{text}' {why}"):
        detail_guider(
            pack,
            model(),
            *([{"curve": text}] if place == "options" else []),
            **({"curve": text} if place == "node" else {}),
        )
