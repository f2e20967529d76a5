"""Scores of pictures by a linear head on a CLIP network's embeddings."""

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


def linear_head(state: Mapping[str, Any], file: Path) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer of a head that is linear layers alone, as LAION's aesthetics predictors are: one
    layer ("weight", "bias"), or several, numbered in their names ("layers.0.weight").

    Raises:
        ValueError: the file is no such head.
    """
    names = sorted((name for name in state if name.endswith("weight")), key=_number)
    none = torch.zeros(0)
    layers = [(state[name], state.get(f"{name.removesuffix('weight')}bias", none)) for name in names]
    widths = [weight.shape for weight, _ in layers if isinstance(weight, Tensor) and weight.ndim == 2]
    fits = len(widths) == len(layers) and all(a[0] == b[1] for a, b in pairwise(widths))
    biases = all(isinstance(bias, Tensor) and bias.shape == weight.shape[:1] for weight, bias in layers)
    if not layers or not fits or not biases or widths[-1][0] != 1:
        raise ValueError(
            f"head: {file.name} is no head of linear layers that ends in one number. Choose an aesthetics predictor on "
            "CLIP's embeddings."
        )
    return [(weight.float(), bias.float()) for weight, bias in layers]


def aesthetics(embeddings: Tensor, head: list[tuple[Tensor, Tensor]], file: Path) -> Tensor:
    """The head's number for each embedding (pictures, width), which is taken at length one, (pictures,).

    Raises:
        ValueError: the head was made for embeddings of another width.
    """
    width = head[0][0].shape[1]
    if embeddings.shape[1] != width:
        raise ValueError(
            f"head: {file.name} is for embeddings of {width} numbers, this clip_vision's have {embeddings.shape[1]}. "
            "Choose the CLIP vision model that the head was made for."
        )
    values = torch.nn.functional.normalize(embeddings.float(), dim=1)
    for weight, bias in head:
        values = linear(values, weight, bias)
    return values[:, 0]


def _number(name: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", name))
