"""Rows of a forward's batch, in whatever a block is given."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor


def take(value: Any, chosen: Sequence[slice], total: int, dim: int = 0, packed: bool = False) -> Any:
    """The chosen rows, of `total`, of a tensor or of every tensor in nested tuples, lists and dataclasses.

    Args:
        dim: which dimension the rows are. A tensor of one row holds for all.
        packed: each row is many entries of that dimension.

    Raises:
        ValueError: a tensor with other rows than the batch.
    """
    if isinstance(value, Tensor):
        if value.shape[dim] == 1:
            return value
        each = value.shape[dim] // total if packed else 1
        if value.shape[dim] != each * total:
            raise ValueError(
                f"Detail Guidance cannot share rows here: a block of this model is given {value.shape[dim]} rows where "
                f"the batch has {total}. Set batching to in turn."
            )
        return torch.cat(
            [value.narrow(dim, rows.start * each, (rows.stop - rows.start) * each) for rows in chosen], dim
        )
    if is_dataclass(value) and not isinstance(value, type):
        parts = {item.name: attrgetter(item.name)(value) for item in fields(value)}
        return replace(value, **{name: take(part, chosen, total, dim, packed) for name, part in parts.items()})
    if isinstance(value, tuple | list):
        return type(value)(take(item, chosen, total, dim, packed) for item in value)
    return value


def spread(tensor: Tensor, chunks: int, sources: Sequence[int], dim: int = 0) -> Tensor:
    """A tensor of equal chunks of rows → the chunks that `sources` names, in that order."""
    parts = tensor.chunk(chunks, dim)
    return torch.cat([parts[source] for source in sources], dim)
