"""The judge of drawings: the truth is found, and a network names what is drawn."""

import drawings
import numpy as np
import pytest
import torch
import truth
from latents import AUTOENCODER, autoencoder
from naming import Namer


@pytest.mark.parametrize("thing", ["fox", "ferris wheel"])
@pytest.mark.parametrize("place", [0, 13, 26])
def test_the_nearest_truth_is_found(thing, place):
    """A drawing on a plain ground, a little noisy: its own place is the nearest, the ground comes from the border."""
    colours, opacity = (each[place] for each in truth.cut_outs(thing))
    drawn = colours + (1 - opacity) * np.array([0.3, 0.6, 0.8])
    noisy = (drawn + np.random.default_rng(0).normal(0, 0.05, drawn.shape)).clip(0, 1)
    assert np.abs(truth.nearest_truth(thing, noisy) - drawn).max() < 0.02


def test_neither_noise_nor_blur_pleases():
    drawn = truth.nearest_truth("fox", np.full((128, 128, 3), 0.5))
    noisy = (drawn + np.random.default_rng(0).normal(0, 0.05, drawn.shape)).clip(0, 1)
    image = torch.from_numpy(drawn).permute(2, 0, 1)
    blurred = torch.nn.functional.avg_pool2d(image, 5, 1, 2, count_include_pad=False).permute(1, 2, 0).numpy()
    exact, noise, blur = truth.errors(["fox"] * 3, np.stack([drawn, noisy, blurred]))
    assert exact == pytest.approx(0, abs=1e-6) and noise > 0.05 and blur > 0.05


def test_prompts_are_of_the_models_words():
    words = set(drawings.vocabulary())
    assert all(set(truth.prompt_of(thing).split()) <= words for thing in drawings.THINGS)


def test_a_network_names_drawings():
    """Also those of a place that it was not fitted to; not those of another thing."""
    namer = Namer(autoencoder(AUTOENCODER))
    assert namer.held_out > 0.95
    things = list(drawings.THINGS)[1::8]
    drawn = np.stack([truth.nearest_truth(thing, np.full((128, 128, 3), 0.7)) for thing in things])
    assert namer.right(drawn, things).mean() > 0.9
    assert namer.right(drawn, things[::-1]).mean() < 0.1
