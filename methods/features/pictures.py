"""Pictures of features and of matches: for nodes, in the pictures' own size."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import interpolate

from ..common.palette import SIXTEEN, rgb
from .matching import Match

GAP = 8  # pixels between two pictures


def heat_picture(heat: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (rows, columns) over a picture of this height and width, its lowest to its highest: (height, width, 3)."""
    import matplotlib

    large = interpolate(heat[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    scaled = (large - large.min()) / (large.max() - large.min()).clamp_min(1e-12)
    return torch.from_numpy(matplotlib.colormaps["viridis"](scaled.numpy())[..., :3]).float()


def colours(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Three maps for each picture (pictures, 3, rows, columns), 0 to 1, as colours: (pictures, height, width, 3)."""
    return interpolate(maps, size, mode="bilinear", align_corners=False).movedim(1, -1)


def label_picture(parts: Tensor, size: tuple[int, int]) -> Tensor:
    """Parts (pictures, parts, rows, columns) as colours, token by token: (pictures, height, width, 3)."""
    shown = _palette()[parts.int().argmax(dim=1)]
    return interpolate(shown.movedim(-1, 1), size, mode="nearest").movedim(1, -1)


def overlay(pictures: Tensor, masks: Tensor) -> Tensor:
    """Masks (pictures, masks, height, width) as colours over pictures (pictures, height, width, 3), half as strong."""
    over = pictures
    for number in range(masks.shape[1]):
        strength = 0.5 * masks[:, number, ..., None]
        over = over + strength * (_palette()[number % len(SIXTEEN)] - over)
    return over


def _palette() -> Tensor:
    """The colours, (colours, 3)."""
    return torch.tensor([rgb(colour) for colour in SIXTEEN]) / 255


def lines_picture(
    left: Tensor, right: Tensor, points: Sequence[tuple[float, float]], found: Mapping[tuple[float, float], Match]
) -> Tensor:
    """Two pictures (height, width, 3) beside each other, with a line from each point to where it was found; thin where
    the match is not mutual. (height, width, 3)."""
    height, across = max(len(left), len(right)), left.shape[1] + GAP
    canvas = torch.ones(height, across + right.shape[1], 3)
    canvas[: len(left), : left.shape[1]] = left
    canvas[: len(right), across:] = right
    image = Image.fromarray((canvas.clamp(0, 1) * 255).round().byte().numpy())
    draw, unit = ImageDraw.Draw(image), max(1, height // 128)
    for number, (x, y) in enumerate(points):
        if (x, y) not in found:
            continue
        match, colour = found[x, y], SIXTEEN[number % len(SIXTEEN)]
        ends = [(x, y), (across + match.x, match.y)]
        draw.line(ends, fill=colour, width=2 * unit if match.mutual else unit)
        for at_x, at_y in ends:
            box = (at_x - 3 * unit, at_y - 3 * unit, at_x + 3 * unit, at_y + 3 * unit)
            draw.ellipse(box, fill=colour, outline="#000000", width=unit)
    return torch.from_numpy(np.asarray(image).copy()).float() / 255
