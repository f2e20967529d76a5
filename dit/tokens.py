"""Appending tokens to a block's image stream: with their rotary positions, where the family has them in the blocks."""

from typing import Any

import torch
from torch import Tensor

from .anatomy import Anatomy
from .forward import Args
from .token_layout import TokenLayout


def append_tokens(
    anatomy: Anatomy, number: int, layout: TokenLayout, args: Args, tokens: Tensor, positions: Any = None
) -> Args:
    """A block's arguments with tokens appended behind its image stream.

    Args:
        number: the block's number.
        tokens: (rows, tokens, channels), for all rows of the batch.
        positions: the tokens' entries in the stage's `positions` argument, tokens at the same dimension; None for
            families that add positions to the tokens before the first block.

    Raises:
        ValueError: the block's stream ends in the text, or the family's row does not say where positions are.
    """
    block = anatomy.blocks[number]
    stage = block.stage
    if layout.order(stage) == "image text" or stage.row_dim_of(stage.image) != 0:
        raise ValueError(f"Tokens cannot be appended to {block.name} of {anatomy.family.name}: its image is not last.")
    stream = args[stage.image]
    longer = {**args, stage.image: torch.cat([stream, tokens.to(stream)], dim=1)}
    if stage.positions is None:
        if positions is not None:
            raise ValueError(f"positions: {anatomy.family.name} has none in its blocks. Leave them out.")
        return longer
    name, dim = stage.positions
    if positions is None:
        raise ValueError(f"positions: {anatomy.family.name} needs them, in the form of its argument {name}.")
    where = None if stage.prompt_keys is None else stage.prompt_keys(anatomy.block(number))
    end = stream.shape[1] if where == "behind" else args[name].shape[dim]
    before, after = args[name].split([end, args[name].shape[dim] - end], dim)
    sizes = [max(one, other) for one, other in zip(before.shape, positions.shape, strict=True)]
    parts = [part.expand(*sizes[:dim], -1, *sizes[dim + 1 :]) for part in (before, positions.to(before), after)]
    return {**longer, name: torch.cat(parts, dim)}


def without_appended(anatomy: Anatomy, number: int, out: Args, count: int) -> tuple[Args, Tensor]:
    """What a block returns, without the last `count` tokens of its image stream; and these."""
    name = anatomy.blocks[number].stage.image
    kept = out[name].shape[1] - count
    return {**out, name: out[name][:, :kept]}, out[name][:, kept:]
