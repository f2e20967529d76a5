"""Rows of a forward's batch, in whatever a block is given: tensors, in nested tuples, lists, dicts and dataclasses."""

from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """The value with every tensor in it replaced by the function's."""
    if isinstance(value, Tensor):
        return function(value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {item.name: attrgetter(item.name)(value) for item in fields(value)}
        return replace(value, **{name: map_tensors(function, part) for name, part in parts.items()})
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(function, item) for item in value)
    return value


def copied(value: Any) -> Any:
    """A copy: blocks, ControlNets and other packs may change what they are given in place."""
    return map_tensors(torch.clone, value)


def on_device(value: Any, device: torch.device) -> Any:
    """The value with its tensors on a device."""
    return map_tensors(lambda tensor: tensor.to(device), value)


def take_rows(
    value: Any, chosen: Sequence[slice], total: int, dim: int | None = 0, packed: bool = False, groups: bool = False
) -> Any:
    """The chosen rows of `total`; a view where they lie beside each other.

    Args:
        dim: dimension of the rows; None where there are none. A tensor of one row holds for all.
        packed: each row is many entries of that dimension.
        groups: all rows may come several times over.

    Raises:
        ValueError: a tensor has other rows than the batch.
    """

    def rows_in(tensor: Tensor) -> Tensor:
        if dim is None or tensor.shape[dim] == 1:
            return tensor
        times, rest = divmod(tensor.shape[dim], total)
        if rest or (times != 1 and not packed and not groups):
            raise ValueError(
                f"Detail Guidance cannot share rows here: a block of this model is given {tensor.shape[dim]} rows "
                f"where the batch has {total}. Set batching to in turn."
            )
        if packed:
            spans = [(rows.start * times, rows.stop * times) for rows in chosen]
        else:
            spans = [(first + r.start, first + r.stop) for first in range(0, times * total, total) for r in chosen]
        parts = [tensor.narrow(dim, start, stop - start) for start, stop in _joined(spans)]
        return torch.cat(parts, dim) if len(parts) > 1 else parts[0]

    return map_tensors(rows_in, value)


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, stop in spans:
        if joined and joined[-1][1] == start:
            start = joined.pop()[0]
        joined.append((start, stop))
    return joined


def copy_rows(value: Any, rows: slice, dim: int | None = 0) -> Any:
    """A copy of some rows."""

    def copy(tensor: Tensor) -> Tensor:
        return (tensor if dim is None else tensor.movedim(dim, 0)[rows].movedim(0, dim)).clone()

    return map_tensors(copy, value)


def mixed_rows(value: Any, towards: Any, rows: slice, share: float, dim: int | None = 0) -> Any:
    """A copy of the value with some rows moved towards others.

    Args:
        towards: as many rows, of `copy_rows`.
        share: how far, 0 to 1.
    """
    if isinstance(value, Tensor):
        mixed = value.clone()
        mine, theirs = (each if dim is None else each.movedim(dim, 0) for each in (mixed, towards))
        mine = mine if dim is None else mine[rows]
        mine.copy_(theirs if share == 1 else mine.lerp(theirs, share))
        return mixed
    if isinstance(value, tuple | list):
        return type(value)(mixed_rows(*pair, rows, share, dim) for pair in zip(value, towards, strict=True))
    return value


def repeat_chunks(value: Any, chunks: int, sources: Sequence[int], dim: int | None = 0) -> Any:
    """Equal chunks of rows → the chunks that `sources` names, in that order."""

    def repeat(tensor: Tensor) -> Tensor:
        if dim is None:
            return tensor
        parts = tensor.chunk(chunks, dim)
        return torch.cat([parts[source] for source in sources], dim)

    return map_tensors(repeat, value)


def concatenated(values: Sequence[Any], dim: int | None, device: torch.device) -> Any:
    """Values of one structure, their rows one after another, on a device."""
    first = values[0]
    if isinstance(first, Tensor):
        return first.to(device) if dim is None else torch.cat([value.to(device) for value in values], dim)
    return type(first)(concatenated(parts, dim, device) for parts in zip(*values, strict=True))
