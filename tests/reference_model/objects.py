"""Objects at known places on textures: 3D emoji of the npm package `@lobehub/fluent-emoji-3d`, with their transparency.

The drawings are Microsoft's Fluent Emoji (MIT). Half of them train a model, the other half it has never seen.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

DRAWINGS = Path(__file__).resolve().parents[2] / ".host/javascript/node_modules/@lobehub/fluent-emoji-3d/assets"
FILES = {
    "apple": "1f34e",
    "bear": "1f43b",
    "bus": "1f68c",
    "car": "1f697",
    "clock": "23f0",
    "crown": "1f451",
    "fish": "1f420",
    "football": "26bd",
    "fox": "1f98a",
    "frog": "1f438",
    "gift": "1f381",
    "house": "1f3e0",
    "lemon": "1f34b",
    "panda": "1f43c",
    "pig": "1f437",
    "sunflower": "1f33b",
    # Never trained on:
    "cactus": "1f335",
    "cup": "2615",
    "drum": "1f941",
    "duck": "1f986",
    "guitar": "1f3b8",
    "heart": "2764-fe0f",
    "ladybug": "1f41e",
    "mushroom": "1f344",
    "owl": "1f989",
    "pumpkin": "1f383",
    "robot": "1f916",
    "rocket": "1f680",
    "strawberry": "1f353",
    "teapot": "1fad6",
    "train": "1f686",
    "turtle": "1f422",
}
TRAINED, UNSEEN = list(FILES)[:16], list(FILES)[16:]
SIZES = (0.4, 0.8)  # of an object's longer side, in sides of the picture


@dataclass
class Placed:
    """An object on a texture.

    Attributes:
        picture: (3, size, size) in 0 … 1.
        mask: (size, size) in 0 … 1, the object's opacity.
        left, top, scale: a point (x, y) of the drawing, in its own pixels, lies at (left + scale·x, top + scale·y).
    """

    picture: Tensor
    mask: Tensor
    left: int
    top: int
    scale: float


@cache
def drawing(name: str) -> Image.Image:
    """The object alone, RGBA, cut to what can be seen."""
    file = DRAWINGS / f"{FILES[name]}.webp"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there: run `make check` first, it installs the package.")
    with Image.open(file) as image:
        rgba = image.convert("RGBA")
    return rgba.crop(rgba.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox())


def place(name: str, texture: Tensor, size: float, generator: torch.Generator) -> Placed:
    """Put an object somewhere on a texture (3, size, size) in 0 … 1; `size` as in SIZES."""
    side = texture.shape[-1]
    original = drawing(name)
    scale = size * side / max(original.size)
    width, height = (max(1, round(length * scale)) for length in original.size)
    rgba = torch.from_numpy(np.asarray(original.resize((width, height), Image.Resampling.LANCZOS)).copy())
    colours, alpha = rgba.permute(2, 0, 1).float().div(255).split([3, 1])
    left = int(torch.randint(side - width + 1, (), generator=generator))
    top = int(torch.randint(side - height + 1, (), generator=generator))
    picture, mask = texture.clone(), torch.zeros(side, side)
    window = picture[:, top : top + height, left : left + width]
    window.copy_(window + alpha * (colours - window))
    mask[top : top + height, left : left + width] = alpha[0]
    return Placed(picture, mask, left, top, scale)


def random_size(generator: torch.Generator) -> float:
    low, high = SIZES
    return low + (high - low) * float(torch.rand((), generator=generator))


def prompt_of(name: str, texture: str) -> str:
    return f"{name} on {texture}"
