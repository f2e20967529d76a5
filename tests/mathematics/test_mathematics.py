"""Properties of the mathematics, and comparison with plain loops in float64 NumPy."""

from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pack.methods.common.layers import block_at, block_range
from pack.methods.detail_guidance.formula import detail_guidance, limited, relative_strength, rescaled
from pack.methods.detail_guidance.settings import Options, Settings, parse_channels
from pack.methods.detail_guidance.window import Window, keep_factor
from pack.methods.massive_activations.channels import disrupt_, listed_channels, massive_channels
from pack.methods.massive_activations.profile import Profile

seeds = st.integers(0, 2**32 - 1)
fractions = st.floats(0, 1)
scales = st.floats(0, 20)


def pictures(seed, count=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, 5, 6, generator=generator, dtype=torch.float64) for _ in range(count)]


# The formula


@given(seeds, scales, st.floats(1, 20))
def test_the_formula(seed, w, cfg):
    x, c, u, d = pictures(seed, 4)
    guided, _ = detail_guidance(x, u + cfg * (c - u), c, d, w)
    expected = np.empty(c.shape)
    for i in np.ndindex(*c.shape):
        D, D_empty, D_m, lam = float(c[i]), float(u[i]), float(d[i]), cfg - 1
        expected[i] = D + lam * (D - D_empty) + w * (D - D_m)
    np.testing.assert_allclose(guided.numpy(), expected, rtol=1e-9, atol=1e-9)


@given(seeds, scales)
def test_no_difference_no_detail(seed, w):
    x, base, c = pictures(seed)
    guided, strength = detail_guidance(x, base, c, c, w)
    assert torch.equal(guided, base) and strength.tolist() == [0, 0]


@given(seeds, scales, st.floats(0.1, 3), st.floats(-2, 2))
def test_it_is_the_same_on_any_affine_parametrisation(seed, w, scale, shift):
    """Noise, velocity and denoised predictions of one timestep are affine in each other."""
    x, base, c, d = pictures(seed, 4)
    guided, _ = detail_guidance(x, base, c, d, w)
    other, _ = detail_guidance(x, scale * base + shift, scale * c + shift, scale * d + shift, w)
    torch.testing.assert_close(other, scale * guided + shift, rtol=1e-8, atol=1e-8)


@given(seeds, st.floats(0.01, 20), st.floats(0.1, 1))
def test_relative_strength(seed, w, amount):
    """Of each picture w‖c − d‖ / ‖x − c‖, in loops; of what the mask leaves of the term."""
    x, base, c, d = pictures(seed, 4)
    _, strength = detail_guidance(x, base, c, d, w, mask=torch.full((1, 1, 1, 1), amount))
    for picture in range(len(x)):
        term = sum(
            (w * amount * float(a - b)) ** 2 for a, b in zip(c[picture].ravel(), d[picture].ravel(), strict=True)
        )
        update = sum(float(a - b) ** 2 for a, b in zip(x[picture].ravel(), c[picture].ravel(), strict=True))
        assert strength[picture].item() == pytest.approx((term / update) ** 0.5, rel=1e-4)


@given(seeds, st.floats(0.05, 1), st.floats(-2, 2))
def test_relative_strength_does_not_depend_on_the_parametrisation(seed, sigma, shift):
    """Velocities (x − D) / σ give the same, and so does a latent with another zero."""
    x, base, c, d = pictures(seed, 4)
    _, strength = detail_guidance(x, base, c, d, 0.7)
    velocity, weaker = (x - c) / sigma, (x - d) / sigma
    of_velocity = (0.7 * (weaker - velocity)).flatten(1).norm(dim=1) / velocity.flatten(1).norm(dim=1)
    torch.testing.assert_close(strength.double(), of_velocity, rtol=1e-5, atol=1e-8)
    _, shifted = detail_guidance(x + shift, base + shift, c + shift, d + shift, 0.7)
    torch.testing.assert_close(shifted, strength, rtol=1e-5, atol=1e-8)


@given(seeds, st.floats(0.001, 2), st.sampled_from([1e-5, 1e-2, 1.0]))
def test_as_strength_each_picture_has_it(seed, wanted, difference):
    """Unless that takes more than the greatest w."""
    x, base, c, d = pictures(seed, 4)
    d = c + difference * (d - c)
    guided, strength = detail_guidance(x, base, c, d, wanted, as_strength=True)
    for number in range(len(x)):
        per_w = ((c[number] - d[number]).norm() / (x[number] - c[number]).norm()).item()
        w = min(wanted / per_w, 20)
        assert strength[number].item() == pytest.approx(w * per_w, rel=1e-4)
        torch.testing.assert_close(guided[number], base[number] + w * (c[number] - d[number]), rtol=1e-4, atol=1e-6)


def test_as_strength_rounding_stays_small():
    """Where nothing was disrupted the two predictions differ by rounding alone."""
    x, c = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    guided, strength = detail_guidance(x, c, c, c * (1 + 1e-7), 0.5, as_strength=True)
    torch.testing.assert_close(guided, c, rtol=1e-5, atol=1e-5)
    assert strength.item() < 1e-5
    assert torch.equal(detail_guidance(x, c, c, c, 0.5, as_strength=True)[0], c)


@given(seeds, st.floats(0.01, 20), st.floats(0.001, 10))
def test_limit(seed, w, limit):
    c, d, update = pictures(seed)
    term = w * (c - d)
    held = limited(term, update, limit)
    free = relative_strength(term, update)
    torch.testing.assert_close(relative_strength(held, update), free.clamp(max=limit), rtol=1e-4, atol=1e-6)
    untouched = free < limit * 0.999
    torch.testing.assert_close(held[untouched], term[untouched])


@given(seeds, fractions)
def test_rescale_moves_the_deviation(seed, amount):
    guided, base, _ = pictures(seed)
    guided = guided * 3
    expected = amount * base.flatten(1).std(1) + (1 - amount) * guided.flatten(1).std(1)
    torch.testing.assert_close(rescaled(guided, base, amount).flatten(1).std(1), expected)


def test_constant_predictions_stay_finite():
    zero = torch.zeros(1, 4, 2, 2)
    guided, strength = detail_guidance(zero, zero, zero, zero, 5.0, limit=0.1, rescale=1.0)
    assert torch.equal(guided, zero) and strength.item() == 0


@given(seeds, st.floats(0.01, 20), st.floats(0.5, 8))
def test_across_cfg(seed, w, cfg):
    """The added term is orthogonal to D − D_∅ in each picture; the part that is left out lies along it."""
    x, u, c, d = pictures(seed, 4)
    base = c + (cfg - 1) * (c - u)
    whole, _ = detail_guidance(x, base, c, d, w)
    guided, _ = detail_guidance(x, base, c, d, w, across_cfg=True)
    for number in range(len(x)):
        added, left = ((a[number] - b[number]).double().flatten() for a, b in ((guided, base), (whole, guided)))
        way = (base - c)[number].double().flatten()
        if way.norm() > 0:
            way /= way.norm()
            assert abs(float(added @ way)) <= 1e-4 * w * float((c - d)[number].norm()) + 1e-6
            torch.testing.assert_close(left, (left @ way) * way, rtol=1e-3, atol=1e-4 * w)


def test_across_cfg_without_cfg_is_the_whole():
    x, c, d = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(detail_guidance(x, c, c, d, 0.5, across_cfg=True)[0], detail_guidance(x, c, c, d, 0.5)[0])


@given(seeds)
def test_pictures_of_a_batch_do_not_see_each_other(seed):
    given = pictures(seed, 4)
    together, strength = detail_guidance(*given, 2.0, limit=0.5, rescale=0.7)
    alone = [detail_guidance(*(each[i : i + 1] for each in given), 2.0, limit=0.5, rescale=0.7) for i in (0, 1)]
    torch.testing.assert_close(together, torch.cat([guided for guided, _ in alone]))
    torch.testing.assert_close(strength, torch.cat([s for _, s in alone]))


# Massive channels


@given(seeds, st.lists(st.integers(0, 31), max_size=6, unique=True), st.integers(1, 8))
def test_planted_channels_are_found(seed, planted, at_most):
    z = torch.randn(2, 10, 32, generator=torch.Generator().manual_seed(seed))
    for rank, channel in enumerate(planted):
        z[..., channel] += 40 + 5 * rank
    found = massive_channels(z, ratio=10.0, at_most=at_most)
    assert found.nonzero().flatten().tolist() == sorted(planted[::-1][:at_most])


@given(seeds, st.floats(0.01, 100))
def test_finding_does_not_depend_on_the_scale(seed, factor):
    z = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(massive_channels(z, 1.2, 5), massive_channels(z * factor, 1.2, 5))


def test_the_median_of_an_even_number_of_channels_is_the_mean_of_the_middle_two():
    z = torch.tensor([[[1.0, 2.0, 4.0, 16.0]]])
    assert massive_channels(z, 5.0, 4).tolist() == [False, False, False, True]
    assert not massive_channels(z, 5.5, 4).any()


def test_finding_in_half_precision_sums_in_single():
    z = torch.full((1, 70000, 4), 2.0, dtype=torch.float16)
    z[..., 2] = 60.0
    assert massive_channels(z, 10.0, 4).tolist() == [False, False, True, False]


def test_listed_channels():
    z = torch.zeros(1, 2, 6)
    assert listed_channels([4, 1], z).nonzero().flatten().tolist() == [1, 4]
    with pytest.raises(ValueError, match="channels: 6, 9 cannot be disrupted, this model's channels are 0 to 5"):
        listed_channels([2, 6, 9], z)


@given(seeds, fractions)
def test_disrupt(seed, keep):
    z = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed))
    out = z.clone()
    channels = torch.zeros(8, dtype=torch.bool)
    channels[[1, 6]] = True
    disrupt_(out, channels, keep)
    assert torch.equal(out[..., ~channels], z[..., ~channels])
    torch.testing.assert_close(out[..., channels], z[..., channels] * keep)


# Rules


@given(seeds, fractions)
def test_rules_of_channels(seed, keep):
    """Each finds its channels and multiplies them by ρ."""
    z = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(seed))
    z[..., 3] += 50
    profile = Profile("SD3 / SD3.5", 4, 8, {2: (1, 6)}, torch.zeros(4, 8))
    expected = [
        (Options(massive_ratio=8.0, max_channels=2), [3]),
        (Options(channels=(0, 5)), [0, 5]),
        (Options(profile=profile), [1, 6]),
        (Options(channels=(0, 5), profile=profile), [1, 6]),
    ]
    for options, channels in expected:
        perturbation = options.channels_at(2)
        found = perturbation.observe(z)
        assert found.nonzero().flatten().tolist() == channels
        expected_state, actual = z.clone(), z.clone()
        expected_state[..., channels] *= keep
        perturbation.apply(actual, found, keep)
        torch.testing.assert_close(actual, expected_state)
    assert not Options(profile=profile).channels_at(1).observe(z).any()


# Layers and window


@given(fractions, st.integers(1, 100))
def test_a_fraction_names_a_block(fraction, blocks):
    block = block_at(fraction, blocks)
    assert 0 <= block < blocks
    assert block == blocks - 1 or block <= fraction * blocks < block + 1


@given(fractions, fractions, st.integers(1, 100))
def test_layers_are_never_empty(a, b, blocks):
    layers = block_range(min(a, b), max(a, b), blocks)
    assert len(layers) >= 1
    assert len(block_range(a, a, blocks)) == 1


@pytest.mark.parametrize("fraction, block", [(0.0, 0), (0.49, 11), (0.5, 12), (0.99, 23), (1.0, 23)])
def test_blocks_of_24(fraction, block):
    assert block_at(fraction, 24) == block


def test_window():
    window = Window(start=0.8, end=0.2, noisiest=1.0)
    assert [sigma in window for sigma in (1.0, 0.8, 0.5, 0.2, 0.1)] == [False, True, True, True, False]
    assert [round(window.progress(sigma), 9) for sigma in (0.8, 0.5, 0.2)] == [0, 0.5, 1]


def test_a_window_without_a_beginning():
    window = Window(start=inf, end=0.0, noisiest=14.6)
    assert 1000.0 in window and window.progress(1000.0) == 0
    assert window.progress(7.3) == 0.5 and window.progress(0.0) == 1


def test_keep_factor():
    assert [keep_factor(0.2, 0.6, progress) for progress in (0, 0.5, 1)] == pytest.approx([0.2, 0.4, 0.6])


# Settings


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=8))
def test_channel_lists_are_read_as_written(channels):
    assert parse_channels(", ".join(map(str, channels))) == tuple(sorted(set(channels)))


def test_auto():
    assert parse_channels(" Auto ") is None


def test_defaults_are_valid():
    Settings(options=Options())
