"""The grid of a calibration as one picture: every layer and scale beside the same picture without Detail Guidance."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..common.palette import ORANGE, rgb
from .recommendation import Cell

LEAST, MOST = 256, 512  # pixels of a tile: smaller pictures are enlarged, larger ones cut to their middle, never scaled
GAP, LINE, FRAME, FONT = 8, 18, 4, 14
INK, GROUND, MARK = (20, 20, 20), (245, 245, 245), rgb(ORANGE)


def contact_sheet(
    cells: Sequence[Cell], pictures: Sequence[np.ndarray], without: np.ndarray, chosen: Cell | None
) -> Tensor:
    """(1, height, width, 3), 0 to 1. A row for each layer; the first picture of each is the one without.

    Args:
        cells: a grid's, or its first ones, layer by layer.
        pictures: one picture of each cell, (height, width, 3); `without` is the same without Detail Guidance.
        chosen: is framed.
    """
    tiles = [_tile(picture) for picture in (without, *pictures)]
    height, width = tiles[0].shape[:2]
    lines = list(dict.fromkeys((cell.variant, cell.layer) for cell in cells))
    cells_and_tiles = list(zip(cells, tiles[1:], strict=True))
    rows = [[(cell, tile) for cell, tile in cells_and_tiles if (cell.variant, cell.layer) == line] for line in lines]
    columns = 1 + max(map(len, rows))
    row_height = height + 3 * LINE + 2 * FRAME
    sheet = Image.new("RGB", (GAP + columns * (width + GAP), GAP + len(rows) * row_height), GROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for number, row in enumerate(rows):
        top = GAP + number * row_height
        (variant, layer), block = lines[number], row[0][0].block
        first = ", ".join(part for part in (variant, f"layer {layer:g}, block {block}") if part)
        labelled = [(first, "without", tiles[0], False)]
        labelled += [(*_label(cell), tile, cell is chosen) for cell, tile in row]
        for column, (first, second, tile, framed) in enumerate(labelled):
            left = GAP + column * (width + GAP)
            draw.text((left, top), first, INK, font)
            draw.text((left, top + LINE), second, INK, font)
            place = (left, top + 2 * LINE + FRAME)
            if framed:
                far = left + width + FRAME - 1, place[1] + height + FRAME - 1
                draw.rectangle([(left - FRAME, place[1] - FRAME), far], MARK)
            sheet.paste(Image.fromarray(tile), place)
    return torch.from_numpy(np.array(sheet)).float()[None] / 255


def _label(cell: Cell) -> tuple[str, str]:
    nearer = "" if cell.gain is None else f", gain {cell.judged_by.mean:+.3f}"
    strength = "" if cell.strength is None else f", strength {cell.strength:.2f}"
    return f"scale {cell.scale:g}{strength}", f"layout {np.median(cell.layout):.2f}{nearer}"


def _tile(picture: np.ndarray) -> np.ndarray:
    times = max(1, -(-LEAST // min(picture.shape[:2])))
    picture = picture.repeat(times, axis=0).repeat(times, axis=1)
    top, left = (max(0, side - MOST) // 2 for side in picture.shape[:2])
    return (picture[top : top + MOST, left : left + MOST] * 255).round().astype(np.uint8)
