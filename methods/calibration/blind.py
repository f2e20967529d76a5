"""Blind choices: which of two pictures is better, told by a person who does not know which is with Detail Guidance."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    """A picture without Detail Guidance and the same one with a setting of the grid, side by side.

    Attributes:
        setting, picture: their numbers, from 0.
        with_on: the side of the picture with Detail Guidance, "l" or "r".
    """

    setting: int
    picture: int
    with_on: str

    def of(self, pictures: Sequence[Tensor]) -> list[Tensor]:
        """The left and the right picture, (height, width, 3) each, from the batches that a grid hands out."""
        without, with_ = pictures[0][self.picture], pictures[1 + self.setting][self.picture]
        return [with_, without] if self.with_on == "l" else [without, with_]


def pairs(pictures: Sequence[Tensor], seed: int) -> list[Pair]:
    """A pair of each setting and picture, in a random order, its sides drawn at random.

    Args:
        pictures: as a grid hands them out: a batch without Detail Guidance, then one of each setting, each (pictures,
            height, width, 3).
        seed: decides the order and the sides.

    Raises:
        ValueError: there is one batch alone, or the batches differ in shape.
    """
    shapes = [tuple(each.shape) for each in pictures]
    if len(shapes) < 2:
        raise ValueError(
            "pictures: it is one batch; a batch without Detail Guidance and at least one with it make pairs. Connect "
            "Detail Guidance Grid."
        )
    if len(set(shapes)) > 1:
        told = ", ".join(f"{count} of {width} × {height}" for count, height, width, _ in shapes)
        raise ValueError(
            f"pictures: its batches are {told}; all must have as many pictures, of the same size. Connect Detail "
            "Guidance Grid."
        )
    random = Random(seed)
    order = [(setting, picture) for setting in range(len(shapes) - 1) for picture in range(shapes[0][0])]
    random.shuffle(order)
    return [Pair(*each, random.choice("lr")) for each in order]


def key_of(pictures: Sequence[Tensor], pairs: Sequence[Pair], seed: int) -> str:
    """Eight hexadecimal digits that differ for other pictures, at 8 bits a channel, and for another seed. They depend
    on the order and the sides too: where another Python shuffles otherwise, choices do not count for other pairs."""
    digest = hashlib.sha256(repr((seed, pairs, [tuple(each.shape) for each in pictures])).encode())
    for each in pictures:
        digest.update((255 * each.clamp(0, 1)).byte().cpu().numpy().tobytes())
    return digest.hexdigest()[:8]


def letters_of(choices: str, key: str, count: int) -> str | None:
    """The choices of the first pairs in shown order, a letter each: "l", "r", or "=" for no difference.

    Args:
        choices: "<key>:<letters>", or empty where nothing has been chosen.
        key: of the pairs.
        count: number of pairs.

    Returns:
        None where the choices are of other pairs.

    Raises:
        ValueError: the text has another form, or more letters than there are pairs.
    """
    if not choices:
        return ""
    parts = re.fullmatch(r"([0-9a-f]{8}):([lr=]*)", choices)
    if parts is None:
        raise ValueError(
            f"choices: {choices!r} is not a key of eight hexadecimal digits, a colon and a letter for each pair: l, r "
            "or =. Clear it, and choose on the node."
        )
    if parts[1] != key:
        return None
    if len(parts[2]) > count:
        raise ValueError(
            f"choices: {choices!r} has {len(parts[2])} letters, there are {count} pairs. Clear it, and choose on the "
            "node."
        )
    return parts[2]


def scores(pairs: Sequence[Pair], letters: str) -> list[float]:
    """A score of each picture in the grid's order: 0 without Detail Guidance; with it 1 if the picture was chosen, -1
    if the one without was, 0 if there was no difference.

    Args:
        letters: as many as pairs.
    """
    settings, each = 1 + max(pair.setting for pair in pairs), 1 + max(pair.picture for pair in pairs)
    values = [[0.0] * each for _ in range(1 + settings)]
    for pair, letter in zip(pairs, letters, strict=True):
        values[1 + pair.setting][pair.picture] = _gain(pair, letter)
    return [value for batch in values for value in batch]


def summary(pairs: Sequence[Pair], letters: str) -> str:
    """How often the picture with Detail Guidance was chosen, in a sentence, with the 95 % interval of its share."""
    gains = [_gain(*each) for each in zip(pairs, letters, strict=True)]
    chosen, not_chosen, same = (gains.count(gain) for gain in (1.0, -1.0, 0.0))
    text = (
        f"With Detail Guidance was chosen in {chosen} of {len(pairs)} pairs, without in {not_chosen}, no difference in "
        f"{same}"
    )
    if not (differ := chosen + not_chosen):
        return f"{text}."
    share, low, high = (f"{100 * each:.0f}" for each in (chosen / differ, *wilson(chosen, differ)))
    return f"{text}: {share} % of those that differ (95 % interval {low} … {high} %)."


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % score interval of a share, `count` of `total` ≥ 1 (Wilson 1927)."""
    p, z2 = count / total, stats.norm.ppf(0.975) ** 2 / total
    middle, half = p + z2 / 2, (z2 * (p * (1 - p) + z2 / 4)) ** 0.5
    return float((middle - half) / (1 + z2)), float((middle + half) / (1 + z2))


def _gain(pair: Pair, letter: str) -> float:
    if letter == "=":
        return 0.0
    return 1.0 if letter == pair.with_on else -1.0
