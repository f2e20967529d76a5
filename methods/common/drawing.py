"""Drawing with matplotlib for nodes: legible on a node, with units, in colours that everyone can tell apart."""

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, DPI = 9.6, 7.2, 100


def require_matplotlib() -> None:
    """Refuse to go on where matplotlib is not installed.

    Raises:
        RuntimeError: it is not.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise RuntimeError(
            "matplotlib is not installed, and this node draws with it. Install the requirements of this pack into the "
            "Python that ComfyUI runs in, as ComfyUI Manager does, and restart."
        )


def new_figure(rows: int, title: str) -> tuple[Any, list["Axes"]]:
    """A figure with this title and so many axes below each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not pyplot: its state is the whole process's
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=15)
    axes = list(np.atleast_1d(figure.subplots(rows)))
    for each in axes:
        each.tick_params(labelsize=11)
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def picture(figure: Any) -> Tensor:
    """The figure as (height, width, 3), 0 to 1."""
    figure.canvas.draw()
    rgb = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(rgb.copy()).float() / 255
