"""Pictures of what was measured: legible on a node, with units, in colours that everyone can tell apart.

Needs matplotlib.
"""

import importlib.util
from collections.abc import Callable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..calibration.metrics import BANDS, radial_spectrum
from ..calibration.recommendation import KEEPS_LAYOUT, Cell
from .profile import Profile
from .recording import NOTHING, MapRecording, Recording

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette.
ORANGE, BLUE, GREEN, BLACK, GREY = "#e69f00", "#0072b2", "#009e73", "#000000", "#999999"
WIDTH, HEIGHT, DPI = 9.6, 7.2, 100


def require_matplotlib() -> None:
    """
    Raises:
        RuntimeError: it is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise RuntimeError(
            "matplotlib is not installed, and this node draws with it. Install the requirements of this pack into the "
            "Python that ComfyUI runs in, as ComfyUI Manager does, and restart."
        )


def figures(recording: Recording, profile: Profile) -> Tensor:
    """One picture for each question, (pictures, height, width, 3), 0 to 1: where, how much, and why."""
    drawn = [_channels(recording, profile), _growth(recording, profile)]
    if any(block + 1 < profile.blocks for _, block in recording.gates):
        drawn.append(_gates(recording, profile))
    return torch.stack(drawn)


def maps(recording: MapRecording, name: str, grid: Callable[[int], tuple[int, ...]]) -> Tensor:
    """A picture for each step, (steps, height, width, 3): the massive activations over the first picture's tokens, of a
    video's middle frame. All have one scale, so that steps can be compared.

    Args:
        name: of the block.
        grid: how many frames, of a video, rows and columns so many tokens are.
    """
    if not recording.maps:
        raise ValueError(NOTHING)
    most = max(float(each.magnitude.max()) for each in recording.maps.values())
    drawn = []
    for step, each in sorted(recording.maps.items()):
        *_, rows, columns = grid(len(each.magnitude))
        frames = each.magnitude.view(-1, rows, columns)  # of a context window fewer than of the whole
        shown = frames[len(frames) // 2]
        figure, (axes,) = _figure(1, f"{name}, σ {recording.sigmas[step]:.3g}: {each}")
        image = axes.imshow(shown.cpu().numpy(), cmap="cividis", vmin=0, vmax=most)
        axes.set_title(f"±{each.variation:.0%} over tokens (standard deviation / mean)", fontsize=12)
        axes.set_xlabel("token column", fontsize=12)
        axes.set_ylabel("token row", fontsize=12)
        figure.colorbar(image, label="mean |z| of these channels")
        drawn.append(_picture(figure))
    return torch.stack(drawn)


def spectra(pictures: np.ndarray, references: np.ndarray) -> Tensor:
    """The radial spectra of two batches and their ratio, (1, height, width, 3).

    Args:
        pictures, references: (n, height, width, 3), 0 to 1.
    """
    figure, (power, ratio) = _figure(2, "Detail by frequency")
    frequencies = (np.arange(BANDS) + 0.5) / (2 * BANDS)
    ours, theirs = (np.array([radial_spectrum(picture) for picture in batch]) for batch in (pictures, references))
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
    return _picture(figure)[None]


def calibration(cells: Sequence[Cell]) -> Tensor:
    """What the scale does at each layer, (1, height, width, 3): to the layout, and to the distance from reference
    pictures or, without any, to the finest octave's energy."""
    figure, (layout, other) = _figure(2, "What the scale does, layer by layer")
    layers = list(dict.fromkeys(cell.layer for cell in cells))
    for layer, (colour, marker) in zip(layers, cycle(zip((ORANGE, BLUE, GREEN, BLACK, GREY), "os^Dv", strict=True))):
        row = sorted((cell for cell in cells if cell.layer == layer), key=lambda cell: cell.scale)
        scales = [cell.scale for cell in row]
        style: dict[str, Any] = {"color": colour, "marker": marker, "label": f"layer {layer:g}, block {row[0].block}"}
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
    other.set_ylabel("nearer to reference pictures" if with_references else "energy of the finest octave", fontsize=12)
    other.set_xlabel("scale", fontsize=12)
    layout.legend(fontsize=11, frameon=False)
    return _picture(figure)[None]


def _figure(rows: int, title: str) -> tuple[Any, list["Axes"]]:
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


def _picture(figure: Any) -> Tensor:
    figure.canvas.draw()
    rgb = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    return torch.from_numpy(rgb.copy()).float() / 255


def _channels(recording: Recording, profile: Profile) -> Tensor:
    """Which channels, at an early, a middle and a late block ([DG], figure 2)."""
    blocks = _some(range(profile.blocks))
    figure, axes = _figure(len(blocks), f"{profile.family}: magnitude of every channel at a block's input")
    for block, each in zip(blocks, axes, strict=True):
        magnitudes = profile.magnitudes[block].numpy()
        found = list(profile.channels.get(block, ()))
        each.vlines(range(profile.width), 0, magnitudes, color=GREY, linewidth=1)
        each.vlines(found, 0, magnitudes[found], color=ORANGE, linewidth=3)
        for channel in found:
            each.annotate(f"  {channel}", (channel, magnitudes[channel]), color=BLACK, fontsize=12, va="top")
        each.set_ylabel("mean |z|", fontsize=12)
        each.set_title(f"block {block} ({recording.block_names[block]})", fontsize=12, loc="left")
        each.set_ylim(bottom=0)
    axes[-1].set_xlabel("channel", fontsize=12)
    return _picture(figure)


def _growth(recording: Recording, profile: Profile) -> Tensor:
    """How massive, over blocks and over noise levels, image and text tokens apart ([DG], figure 4)."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    figure, (over_blocks, over_steps) = _figure(2, f"{profile.family}: how far the largest channel stands out")
    image = recording.image_means()
    over_blocks.plot(_peak_ratios(image.nanmean(dim=1)), color=ORANGE, marker="o", label="image tokens")
    text = {block for _, block in recording.text}
    if text:
        means = [torch.stack([s.mean.cpu() for (_, at), s in recording.text.items() if at == b]) for b in sorted(text)]
        ratios = [float(_peak_ratios(mean.mean(dim=0))) for mean in means]
        over_blocks.plot(sorted(text), ratios, color=BLUE, marker="s", linestyle="--", label="text tokens")
    over_blocks.set_xlabel("block, in execution order", fontsize=12)
    over_blocks.set_yscale("log")
    over_blocks.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    over_blocks.yaxis.set_major_formatter("{x:g}")
    over_blocks.yaxis.set_minor_formatter(NullFormatter())
    over_blocks.xaxis.set_major_locator(MaxNLocator(integer=True))
    over_blocks.legend(fontsize=11, frameon=False)

    for block, colour, marker in zip(_some(range(profile.blocks)), (GREEN, ORANGE, BLUE), "^os", strict=False):
        stands_out = _peak_ratios(image[block])
        over_steps.plot(recording.sigmas, stands_out, color=colour, marker=marker, markersize=4, label=f"block {block}")
    over_steps.set_xlabel("noise level σ (sampling runs from left to right)", fontsize=12)
    over_steps.invert_xaxis()
    over_steps.legend(fontsize=11, frameon=False)
    for each in (over_blocks, over_steps):
        each.set_ylabel("largest / median |z|", fontsize=12)
    return _picture(figure)


def _gates(recording: Recording, profile: Profile) -> Tensor:
    """Whether the residual gates α spike where the activations are massive at the block's output."""
    blocks = _some(sorted({block for _, block in recording.gates if block + 1 < profile.blocks}))
    figure, axes = _figure(len(blocks), f"{profile.family}: AdaLN's residual gates")
    for block, each in zip(blocks, axes, strict=True):
        gates = torch.stack([gate.cpu() for (_, at), gate in recording.gates.items() if at == block]).mean(dim=0)
        massive = list(profile.channels.get(block + 1, ()))
        each.vlines(range(profile.width), 0, gates.numpy(), color=GREY, linewidth=1)
        each.vlines(massive, 0, gates[massive].numpy(), color=ORANGE, linewidth=3)
        each.set_ylabel("mean |α|", fontsize=12)
        each.set_title(
            f"block {block} ({recording.block_names[block]}); orange: massive at its output", fontsize=12, loc="left"
        )
        each.set_ylim(bottom=0)
    axes[-1].set_xlabel("channel", fontsize=12)
    return _picture(figure)


def _some(blocks: Sequence[int]) -> list[int]:
    """An early, a middle and a late one."""
    return sorted({blocks[len(blocks) // 4], blocks[len(blocks) // 2], blocks[-1]})


def _peak_ratios(magnitudes: Tensor) -> np.ndarray:
    """Magnitudes (…, channels) → the largest over the median, (…)."""
    return (magnitudes.amax(dim=-1) / magnitudes.quantile(0.5, dim=-1)).numpy()
