"""The photographs the reference model is trained on and compared with: 43 named textures of the wheel `miniworld`."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

TEXTURES = Path(__file__).resolve().parents[2] / ".host/textures"
NOT_TEXTURES = {"logo_mila_1", "white_1"}
SHORTER_SIDE = 384  # a 128-pixel picture shows a third of a texture: a few bricks, one tile, part of a door
PICTURE = 128


def prompt_of(stem: str, stems: list[str]) -> str:
    """'brick_wall_1' → 'brick wall', 'lava_2' → 'lava 2': the number stays only where there are several."""
    name, _, number = stem.rpartition("_")
    if not number.isdigit():
        return stem.replace("_", " ")
    siblings = Counter(other.rpartition("_")[0] for other in stems)[name]
    return f"{name} {number}".replace("_", " ") if siblings > 1 else name.replace("_", " ")


def load() -> dict[str, torch.Tensor]:
    """Prompt → photograph, uint8 (3, height, width), shorter side SHORTER_SIDE (never enlarged)."""
    files = sorted(file for file in TEXTURES.glob("*.png") if file.stem not in NOT_TEXTURES)
    if not files:
        raise FileNotFoundError(f"No photographs in {TEXTURES}: run `make host` first.")
    stems = [file.stem for file in files]
    return {prompt_of(file.stem, stems): _read(file) for file in files}


def _read(file: Path) -> torch.Tensor:
    with Image.open(file) as image:
        picture = Image.new("RGB", image.size, "white")
        rgba = image.convert("RGBA")
        picture.paste(rgba, mask=rgba.getchannel("A"))
    scale = min(1.0, SHORTER_SIDE / min(picture.size))
    if scale < 1:
        picture = picture.resize([round(side * scale) for side in picture.size], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


def crops(photograph: torch.Tensor, count: int, generator: torch.Generator, size: int = PICTURE) -> torch.Tensor:
    """Random crops of one photograph, half of them mirrored: float (count, 3, size, size) in 0 … 1."""
    _, height, width = photograph.shape
    tops = torch.randint(height - size + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(width - size + 1, (count,), generator=generator).tolist()
    mirrored = torch.randint(2, (count,), generator=generator).tolist()
    pictures = []
    for top, left, mirror in zip(tops, lefts, mirrored, strict=True):
        picture = photograph[:, top : top + size, left : left + size]
        pictures.append(picture.flip(-1) if mirror else picture)
    return torch.stack(pictures).float() / 255
