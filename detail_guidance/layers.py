"""The layer m, as a fraction of the depth: a workflow stays valid on models of any depth."""

from math import floor


def block_at(fraction: float, blocks: int) -> int:
    """The block, of 0 … blocks − 1 in execution order, that a fraction (0 to 1) of the depth names."""
    return min(floor(fraction * blocks), blocks - 1)


def block_range(start: float, end: float, blocks: int) -> range:
    """The blocks from start's to end's, both included. Equal fractions: the single layer m of [DG]."""
    return range(block_at(start, blocks), block_at(end, blocks) + 1)
