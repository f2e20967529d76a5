"""Drawings of a calibration's grid and of pictures' spectra. Needs matplotlib."""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
from torch import Tensor

from ..common.drawing import new_figure, picture
from ..common.palette import BLACK, BLUE, GREEN, GREY, ORANGE
from .metrics import BANDS, radial_spectrum
from .recommendation import KEEPS_LAYOUT, Cell


def spectra(pictures: np.ndarray, references: np.ndarray) -> Tensor:
    """The radial spectra of two batches and their ratio, (1, height, width, 3).

    Args:
        pictures, references: (n, height, width, 3), 0 to 1.
    """
    figure, (power, ratio) = new_figure(2, "Detail by frequency")
    frequencies = (np.arange(BANDS) + 0.5) / (2 * BANDS)
    ours, theirs = (np.array([radial_spectrum(each) for each in batch]) for batch in (pictures, references))
    power.plot(frequencies, ours.mean(axis=0), color=ORANGE, marker="o", label="images")
    power.plot(frequencies, theirs.mean(axis=0), color=BLUE, marker="s", linestyle="--", label="reference")
    power.set_yscale("log")
    power.set_ylabel("mean power of the luminance", fontsize=12)
    power.legend(fontsize=11, frameon=False)
    with np.errstate(divide="ignore", invalid="ignore"):  # a plain reference has nothing there
        ratio.plot(frequencies, np.median(ours / theirs, axis=0), color=ORANGE, marker="o")
    ratio.axhline(1, color=GREY, linewidth=1)
    ratio.set_ylabel("images / reference, median", fontsize=12)
    for each in (power, ratio):
        each.set_xlabel("cycles per pixel", fontsize=12)
    return picture(figure)[None]


def grid_plot(cells: Sequence[Cell]) -> Tensor:
    """What the scale does at each layer, (1, height, width, 3): to the layout, and to the distance from reference
    pictures or, without any, to the finest octave's energy."""
    figure, (layout, other) = new_figure(2, "What the scale does, layer by layer")
    lines = list(dict.fromkeys((cell.variant, cell.layer) for cell in cells))
    for line, (colour, marker) in zip(lines, cycle(zip((ORANGE, BLUE, GREEN, BLACK, GREY), "os^Dv", strict=True))):
        row = sorted((cell for cell in cells if (cell.variant, cell.layer) == line), key=lambda cell: cell.scale)
        scales = [cell.scale for cell in row]
        label = f"{row[0].variant} layer {row[0].layer:g}, block {row[0].block}".strip()
        style: dict[str, Any] = {"color": colour, "marker": marker, "label": label}
        layout.plot(scales, [np.median(cell.layout) for cell in row], **style)
        if row[0].gain is None:
            other.plot(scales, [np.median(cell.energy[:, -1]) for cell in row], **style)
        else:
            judged = [cell.judged_by for cell in row]
            half = [each.high - each.mean for each in judged]
            other.errorbar(scales, [each.mean for each in judged], half, capsize=4, **style)
    layout.axhline(KEEPS_LAYOUT, color=GREY, linewidth=1, linestyle="--")
    layout.set_ylabel("correlation of the layout", fontsize=12)
    with_references = cells[0].gain is not None
    other.axhline(0 if with_references else 1, color=GREY, linewidth=1)
    other.set_ylabel(
        "gain of the pictures that judge" if with_references else "energy of the finest octave", fontsize=12
    )
    other.set_xlabel("scale", fontsize=12)
    layout.legend(fontsize=11, frameon=False)
    return picture(figure)[None]
