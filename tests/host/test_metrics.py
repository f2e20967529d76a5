"""Detail Metrics on pictures whose figures are known."""

import numpy as np
import pytest
import torch


def figures(pack, images, reference):
    """The list as name → median."""
    outputs = pack.outputs("DetailMetrics", images=images, reference=reference)
    assert outputs[0].shape == (1, 720, 960, 3)
    lines = [line.removeprefix("- ").split(": ") for line in outputs[1].splitlines() if line.startswith("- ")]
    return {name: float(value.split()[0]) for name, value in lines}


@pytest.fixture
def noise():
    return torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2


def test_the_same_pictures(pack, noise):
    found = figures(pack, noise, noise)
    assert len(found) == 8 and set(found.values()) == {1.0}


def test_half_the_contrast(pack, noise):
    grey = noise.mean(dim=(1, 2), keepdim=True)
    found = figures(pack, grey + (noise - grey) / 2, noise)
    assert found["contrast"] == pytest.approx(0.5, abs=1e-3) and found["correlation of the layout"] > 0.98
    assert [value for name, value in found.items() if "energy" in name] == pytest.approx([0.25] * 5, abs=1e-3)


def test_a_wave_is_in_its_octave(pack, noise):
    x = torch.arange(96).view(1, 1, 96, 1)
    wave = noise + 0.1 * torch.sin(2 * torch.pi * x * 0.2)  # 0.2 cycles per pixel
    found = figures(pack, wave, noise)
    assert found["energy, 1/8 to 1/4 cycle/px"] > 3
    assert found["energy, 1/4 to 1/2 cycle/px"] == pytest.approx(1, abs=0.05)


def test_grey_pictures_have_no_saturation(pack, noise):
    grey = noise.mean(dim=-1, keepdim=True).expand_as(noise)
    assert figures(pack, grey, noise)["saturation"] == 0.0


@pytest.mark.parametrize("pictures", [1, 2])
def test_words_for_who_has_not_seen_such_figures(pack, noise, pictures):
    """No table, which most nodes that show text do not draw, and nothing that reads as a mark."""
    text = pack.outputs("DetailMetrics", images=noise[:pictures], reference=noise[:pictures])[1]
    first, *_ = text.splitlines()
    counted = "one pair" if pictures == 1 else "medians of 2 pairs and their middle half"
    assert first == f"images over reference, {counted}: 1 is equal"
    assert "|" not in text and "More is not better, nor is less" in text
    assert ("(1.000 to 1.000)" in text) is (pictures > 1)


def test_one_reference_serves_all(pack, noise):
    assert figures(pack, noise[:1].repeat(3, 1, 1, 1), noise[:1])["contrast"] == 1.0


def test_bad_input(pack, noise):
    with pytest.raises(ValueError, match="reference: its pictures are 32 × 64, images' are 96 × 64"):
        figures(pack, noise, noise[:, :, :32])
    with pytest.raises(ValueError, match="reference: it has 2 pictures, images has 4"):
        figures(pack, noise.repeat(2, 1, 1, 1), noise)


def test_a_plain_picture_is_no_number(pack, noise):
    """Nothing to divide by: the table says nan or inf, and nothing fails."""
    outputs = pack.outputs("DetailMetrics", images=noise, reference=torch.full_like(noise, 0.5))
    assert "nan" in outputs[1] or "inf" in outputs[1]
    assert np.isfinite(outputs[0].numpy()).all()


def test_what_cannot_be_compared_side_by_side(pack):
    pictures = torch.rand(4, 32, 48, 3)
    with pytest.raises(ValueError, match="reference: it has 2 pictures, images has 4"):
        pack.outputs("DetailCompare", images=pictures, reference=pictures[:2])
    with pytest.raises(ValueError, match="reference: its pictures are 24 × 32, images' are 48 × 32"):
        pack.outputs("DetailCompare", images=pictures, reference=pictures[:, :, :24])
