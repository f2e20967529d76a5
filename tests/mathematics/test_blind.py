"""Blind choices: pairs that hide their sides, the scores of what was chosen, and what a judge makes of them."""

from random import Random

import numpy as np
import pytest
import torch
from pack.methods.calibration.blind import key_of, letters_of, pairs, scores, summary, wilson
from pack.methods.calibration.recommendation import Cell, recommended_by_scores
from scipy import stats

PICTURES = 12


def batches(settings=2, pictures=PICTURES, size=4):
    """Pictures whose value tells which they are: 0.3 for each setting, 0.01 for each picture; the first are without."""
    numbers = torch.arange(pictures) / 100
    return [(0.3 * setting + numbers).view(-1, 1, 1, 1).expand(-1, size, size, 3) for setting in range(1 + settings)]


def clicks(shown, prefers):
    """The letters of a person who looks at each pair's left and right picture and prefers one, or neither."""
    return "".join(prefers(*each) for each in shown)


def cells(values, settings, pictures=PICTURES):
    """The grid's cells, gaining what the scores say."""
    table = np.array(values).reshape(1 + settings, pictures)
    layout, energy = np.full(pictures, 0.95), np.full((pictures, 4), 1.1)
    return [
        Cell(0.5, number, 0.25, 0.1, 1.0, layout, energy, table[1 + number] - table[0], None)
        for number in range(settings)
    ]


def test_each_setting_and_picture_is_shown_once_beside_the_one_without():
    given = batches()
    order = pairs(given, seed=3)
    assert sorted((pair.setting, pair.picture) for pair in order) == [(s, p) for s in (0, 1) for p in range(PICTURES)]
    for pair in order:
        sides = {side: image for side, image in zip("lr", pair.of(given), strict=True)}
        assert torch.equal(sides.pop(pair.with_on), given[1 + pair.setting][pair.picture])
        (without,) = sides.values()
        assert torch.equal(without, given[0][pair.picture])


def test_order_and_sides_are_the_seeds_and_balanced():
    given = batches(settings=1)
    drawn = [pairs(given, seed) for seed in range(400)]
    assert pairs(given, 7) == drawn[7]
    assert len({tuple(pair.picture for pair in order) for order in drawn}) == 400
    firsts = np.bincount([order[0].picture for order in drawn], minlength=PICTURES)
    assert stats.chisquare(firsts).pvalue > 1e-3
    for place in range(PICTURES):
        left = sum(order[place].with_on == "l" for order in drawn)
        assert stats.binomtest(left, 400).pvalue > 1e-4, place
    for picture in range(PICTURES):
        left = sum(pair.with_on == "l" for order in drawn for pair in order if pair.picture == picture)
        assert stats.binomtest(left, 400).pvalue > 1e-4, picture


def test_choices_give_the_scores_in_the_grids_order():
    given = batches()
    order = pairs(given, seed=5)
    wanted = {
        (setting, picture): Random(100 * setting + picture).choice([1.0, 0.0, -1.0])
        for setting in (0, 1)
        for picture in range(PICTURES)
    }
    letters = ""
    for pair in order:
        left, right = pair.of(given)
        brighter = "l" if left.mean() > right.mean() else "r"  # the one with is
        darker = "lr".replace(brighter, "")
        letters += {1.0: brighter, 0.0: "=", -1.0: darker}[wanted[pair.setting, pair.picture]]
    expected = [0.0] * PICTURES + [wanted[setting, picture] for setting in (0, 1) for picture in range(PICTURES)]
    assert scores(order, letters) == expected and {1.0, 0.0, -1.0} == set(expected)


def test_a_setting_that_is_preferred_is_recommended():
    given = batches()
    order = pairs(given, seed=1)
    second = lambda left, right: "l" if left.max() > 0.55 else "r" if right.max() > 0.55 else "="  # noqa: E731
    letters = clicks((pair.of(given) for pair in order), second)
    advice = recommended_by_scores(cells(scores(order, letters), 2))
    assert advice.verdict == "helps" and advice.cell.block == 1
    against = letters.translate(str.maketrans("lr", "rl"))
    assert recommended_by_scores(cells(scores(order, against), 2)).cell is None


def test_noise_recommends_nothing():
    """The judge decides by six of twelve pictures: without ties all six agree by chance in one of 64 grids."""
    random, given = Random(0), batches()
    helped = 0
    for seed in range(300):
        order = pairs(given, seed)
        letters = "".join(random.choice("lr") for _ in order)
        helped += recommended_by_scores(cells(scores(order, letters), 2)).cell is not None
    assert stats.binomtest(helped, 300, 1 / 64, alternative="greater").pvalue > 1e-3


def test_one_who_always_clicks_the_same_side_recommends_nothing():
    given = batches()
    helped = 0
    for seed in range(300):
        order = pairs(given, seed)
        helped += recommended_by_scores(cells(scores(order, "l" * len(order)), 2)).cell is not None
    assert stats.binomtest(helped, 300, 1 / 64, alternative="greater").pvalue > 1e-3
    order = pairs(given, 0)
    assert recommended_by_scores(cells(scores(order, "=" * len(order)), 2)).cell is None


def test_the_key_is_of_the_pictures_and_the_seed():
    given = batches()

    def key(pictures, seed=0):
        return key_of(pictures, pairs(pictures, seed), seed)

    other = [batch.clone() for batch in given]
    other[2][3, 0, 0, 0] += 1 / 255
    less = [batch[:-1] for batch in given]
    keys = [key(given), key(given, 1), key(other), key(less), key([given[0], given[2], given[1]])]
    assert len(set(keys)) == len(keys) and all(letters_of(f"{each}:", each, 1) == "" for each in keys)
    assert key([batch.clone() for batch in given]) == keys[0]
    order = pairs(given, 0)
    assert key_of(given, order[::-1], 0) != keys[0], "another shuffling of the same seed"


def test_choices_of_other_pairs_are_none():
    assert letters_of("", "01234567", 3) == ""
    assert letters_of("01234567:l=", "01234567", 3) == "l="
    assert letters_of("01234567:l=r", "01234567", 3) == "l=r"
    assert letters_of("89abcdef:l=", "01234567", 3) is None
    assert letters_of("89abcdef:llllll", "01234567", 3) is None


@pytest.mark.parametrize(
    "choices, message",
    [
        (
            "l=",
            r"choices: 'l=' is not a key of eight hexadecimal digits, a colon and a letter for each pair: l, r or =",
        ),
        ("01234567", "choices: '01234567' is not a key"),
        ("01234567:lx", "choices: '01234567:lx' is not a key"),
        ("01234567:L", "choices: '01234567:L' is not a key"),
        ("0123456:l", "choices: '0123456:l' is not a key"),
        ("01234567:l\n", r"choices: '01234567:l\\n' is not a key"),
        ("01234567:lrlr", "choices: '01234567:lrlr' has 4 letters, there are 3 pairs"),
    ],
)
def test_choices_that_are_none(choices, message):
    with pytest.raises(ValueError, match=message):
        letters_of(choices, "01234567", 3)


def test_pictures_that_make_no_pairs():
    with pytest.raises(ValueError, match="pictures: it is one batch; a batch without"):
        pairs(batches(settings=0), 0)
    with pytest.raises(ValueError, match=r"pictures: its batches are 12 of 4 × 4, 12 of 6 × 6; all must have"):
        pairs([batches()[0], batches(size=6)[1]], 0)
    with pytest.raises(ValueError, match=r"pictures: its batches are 12 of 4 × 4, 11 of 4 × 4; all must have"):
        pairs([batches()[0], batches()[1][:-1]], 0)


@pytest.mark.parametrize(
    "count, total, low, high",
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_is_that_of_the_literature(count, total, low, high):
    """Newcombe 1998, Statistics in Medicine 17, table I, score interval without continuity correction."""
    assert wilson(count, total) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_on_both_ends():
    for count in (0, 3, 9):
        low, high = stats.binomtest(count, 9).proportion_ci(method="wilson")
        assert wilson(count, 9) == pytest.approx((low, high))


def test_the_report_counts_what_was_chosen():
    order = pairs(batches(settings=1), 0)
    other = {"l": "r", "r": "l"}
    letters = "".join([p.with_on for p in order[:9]] + [other[p.with_on] for p in order[9:11]] + ["="])
    assert summary(order, letters) == (
        "With Detail Guidance was chosen in 9 of 12 pairs, without in 2, no difference in 1: 82 % of those that differ "
        "(95 % interval 52 … 95 %)."
    )
    assert summary(order, "=" * 12) == (
        "With Detail Guidance was chosen in 0 of 12 pairs, without in 0, no difference in 12."
    )
