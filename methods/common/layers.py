"""The layer m, as a fraction of the depth: a workflow stays valid on models of any depth."""

import re
from math import floor

from .numbers import parse_numbers


def block_at(fraction: float, blocks: int) -> int:
    """The block, of 0 … blocks − 1 in execution order, that a fraction (0 to 1) of the depth names."""
    return min(floor(fraction * blocks), blocks - 1)


def block_range(start: float, end: float, blocks: int) -> range:
    """The blocks from start's to end's, both included. Equal fractions: the single layer m of [DG]."""
    return range(block_at(start, blocks), block_at(end, blocks) + 1)


def parse_layers(text: str, blocks: int) -> list[float]:
    """'0.5, 0.7' → these fractions; '4' → so many, evenly over the depth. One for each block that they name.

    Raises:
        ValueError: anything else.
    """
    if re.fullmatch(r"\s*\d+\s*", text) and int(text) > 0:
        count = min(int(text), blocks)
        fractions = [round((number + 1) / (count + 1), 3) for number in range(count)]
    else:
        fractions = parse_numbers("layers", text, 0.0, 1.0, "fractions of the depth such as 0.5, 0.7, or how many")
    return list({block_at(fraction, blocks): fraction for fraction in reversed(fractions)}.values())[::-1]
