"""Rows of a batch in what blocks are given."""

from dataclasses import dataclass

import pytest
import torch


@dataclass
class Modulation:
    scale: torch.Tensor
    gate: torch.Tensor | None


@pytest.fixture(scope="module")
def rows(pack):
    return pack.module("dit.rows")


CHOSEN = [slice(2, 3), slice(0, 1)]


def test_of_tensors_in_nested_containers(rows):
    values = torch.arange(3.0).view(3, 1)
    taken = rows.take_rows((values, [Modulation(values * 2, None)], "kept"), CHOSEN, total=3)
    assert taken[0].tolist() == [[2], [0]]
    assert taken[1][0] == Modulation(taken[1][0].scale, None) and taken[1][0].scale.tolist() == [[4], [0]]
    assert taken[2] == "kept"


def test_rows_beside_each_other_are_a_view(rows):
    values = torch.arange(8.0).view(4, 2)
    taken = rows.take_rows(values, [slice(1, 2), slice(2, 4)], total=4)
    assert taken.tolist() == values[1:].tolist() and taken.data_ptr() == values[1:].data_ptr()
    packed = rows.take_rows(values, [slice(0, 1), slice(1, 2)], total=2, packed=True)
    assert packed.data_ptr() == values.data_ptr() and packed.shape == (4, 2)
    twice = rows.take_rows(values, [slice(0, 1)], total=2, groups=True)
    assert twice.tolist() == values[[0, 2]].tolist()


def test_one_row_holds_for_all(rows):
    shared = torch.ones(1, 4)
    assert rows.take_rows(shared, CHOSEN, total=3) is shared


def test_another_dimension_and_packed_rows(rows):
    tokens = torch.arange(6.0).view(1, 6)
    assert rows.take_rows(tokens, CHOSEN, total=3, dim=1, packed=True).tolist() == [[4, 5, 0, 1]]
    assert rows.take_rows(tokens[:, :3], CHOSEN, total=3, dim=1).tolist() == [[2, 0]]


def test_other_rows_than_the_batch_are_refused(rows):
    """Newer models give some blocks all rows twice over."""
    with pytest.raises(ValueError, match=r"given 6 rows where the batch has 3. Set batching to in turn"):
        rows.take_rows(torch.zeros(6, 2), CHOSEN, total=3)


def test_spread(rows):
    stream = torch.arange(4.0).view(4, 1)
    assert rows.repeat_chunks(stream, chunks=2, sources=[0, 1, 0]).flatten().tolist() == [0, 1, 2, 3, 0, 1]
