"""The true picture of a drawn thing, and how far a picture is from it."""

from functools import cache

import drawings
import numpy as np
from perceptual import distances

PLACES = [(size, x, y) for size in (0.7, 0.75, 0.8) for x in (-0.04, 0.0, 0.04) for y in (-0.04, 0.0, 0.04)]
BORDER = 4  # pixels above and below, whose mean is the ground


def prompt_of(thing: str) -> str:
    """What is asked for: the thing on a ground of some hue."""
    return f"{thing} on {list(drawings.HUES)[list(drawings.THINGS).index(thing) % len(drawings.HUES)]}"


@cache
def cut_outs(thing: str) -> tuple[np.ndarray, np.ndarray]:
    """Colours times opacity (places, side, side, 3) and opacity (places, side, side, 1) of a thing at each place."""
    placed = [drawings.Placed(drawings.THINGS[thing], size, 0.5 + x, 0.5 + y) for size, x, y in PLACES]
    drawn = [drawings.draw_alone(each, drawings.PICTURE) for each in placed]
    return np.stack([colours for colours, _ in drawn]), np.stack([opacity for _, opacity in drawn])[..., None]


def nearest_truth(thing: str, picture: np.ndarray) -> np.ndarray:
    """The true picture of a thing that is nearest to a picture, on its own ground: the mean of its border."""
    colours, opacity = cut_outs(thing)
    ground = np.concatenate([picture[:BORDER].reshape(-1, 3), picture[-BORDER:].reshape(-1, 3)]).mean(axis=0)
    truths = colours + (1 - opacity) * ground
    return truths[np.square(truths - picture).mean(axis=(1, 2, 3)).argmin()]


def errors(things: list[str], pictures: np.ndarray) -> np.ndarray:
    """Perceptual distance of each picture from the nearest true one, (things,)."""
    nearest = [nearest_truth(thing, picture) for thing, picture in zip(things, pictures, strict=True)]
    return distances(pictures, np.stack(nearest))
