"""The pictures the reference model is trained on and compared with: photographic cut-outs on photographs of textures.

The cut-outs are those of Debian's package `tuxpaint-stamps-default` (GPL-2), fetched by `make evidence` and
`make test`, never committed. "a bear on grass 1" is a bear at a random place and scale on a random crop of "grass 1".
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import photographs
import torch
from PIL import Image
from torch import Tensor

STAMPS = Path(__file__).resolve().parents[2] / ".host/stamps"
# The package's other rooms hold symbols and drawings.
ROOMS = ("animals", "clothes", "food", "hobbies", "household", "plants", "sports", "vehicles")
CAPTION = re.compile(r"an? [a-z]+( [a-z]+){0,2}")
SMALLEST = 90  # pixels of the longer side: smaller cut-outs have no detail to learn
SIZES = tuple(range(56, 113, 8))  # pixels of the longer side in the picture
PLAIN = 0.15  # share of pictures without an object
ON = " on "


def load() -> "Composites":
    return Composites(photographs.load(), _stamps())


@dataclass(frozen=True)
class Composites:
    """Objects and textures by name.

    Attributes:
        textures: uint8 (3, height, width).
        objects: the cut-out at each of SIZES, uint8 (4, height, width): colour times opacity, then opacity.
    """

    textures: dict[str, Tensor]
    objects: dict[str, list[Tensor]]

    @property
    def words(self) -> list[str]:
        """Every word of every prompt, sorted."""
        return sorted({word for name in [*self.objects, *self.textures, ON] for word in name.split()})

    def prompts(self, count: int, generator: torch.Generator) -> list[str]:
        """Random prompts, with repetition; a share PLAIN of them without an object."""
        objects, textures = list(self.objects), list(self.textures)
        drawn = []
        for _ in range(count):
            texture = textures[_below(len(textures), generator)]
            if torch.rand((), generator=generator) < PLAIN:
                drawn.append(texture)
            else:
                drawn.append(objects[_below(len(objects), generator)] + ON + texture)
        return drawn

    def parts(self, prompt: str) -> tuple[str, str]:
        """A prompt's object, empty where it has none, and its texture."""
        name, _, texture = prompt.rpartition(ON)
        return name, texture

    def picture(self, prompt: str, generator: torch.Generator) -> Tensor:
        """One of the real pictures a prompt describes: float (3, PICTURE, PICTURE), 0 to 1."""
        name, texture = self.parts(prompt)
        picture = photographs.crops(self.textures[texture], 1, generator)[0]
        if name:
            stamp = self.objects[name][_below(len(SIZES), generator)].float() / 255
            if torch.rand((), generator=generator) < 0.5:
                stamp = stamp.flip(-1)
            _, height, width = stamp.shape
            top = _below(photographs.PICTURE - height + 1, generator)
            left = _below(photographs.PICTURE - width + 1, generator)
            under = picture[:, top : top + height, left : left + width]
            under.copy_((stamp[:3] + (1 - stamp[3]) * under).clamp(max=1))  # a resampled edge may overshoot
        return picture


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))


def _stamps() -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = {}
    for file in sorted(file for room in ROOMS for file in (STAMPS / room).rglob("*.png")):
        caption = _caption_of(file)
        if caption is None or caption in found:
            continue
        with Image.open(file) as image:
            rgba = image.convert("RGBA")
        rgba = rgba.crop(rgba.getchannel("A").getbbox())
        if max(rgba.size) < SMALLEST or min(rgba.size) * 4 < max(rgba.size):
            continue
        premultiplied = rgba.convert("RGBa")
        found[caption] = []
        for size in SIZES:
            scale = size / max(rgba.size)
            small = premultiplied.resize([max(1, round(s * scale)) for s in rgba.size], Image.Resampling.LANCZOS)
            found[caption].append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    if not found:
        raise FileNotFoundError(f"No cut-outs in {STAMPS}: run `make evidence` or `make test`, which fetch them.")
    return found


def _caption_of(file: Path) -> str | None:
    """A stamp's sentence up to the first comma or full stop, where it is a short name: "a great blue heron"."""
    text = file.with_suffix(".txt")
    if "cartoon" in file.parts or not text.exists() or file.stem.endswith(("_mirror", "_flip")):
        return None
    first_line = text.read_text(errors="replace").partition("\n")[0]
    caption = re.split(r"[,.!]", first_line)[0].strip().lower()
    return caption if CAPTION.fullmatch(caption) else None
