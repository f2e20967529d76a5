"""Drawings of what a probe recorded. Needs matplotlib."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..common.drawing import new_figure, picture
from ..common.palette import BLACK, BLUE, GREEN, GREY, ORANGE
from .profile import Profile
from .recording import NOTHING, MapRecording, Recording


def figures(recording: Recording, profile: Profile) -> Tensor:
    """One picture for each question, (pictures, height, width, 3), 0 to 1: where, how much, and why."""
    drawn = [_channels(recording, profile), _growth(recording, profile)]
    if any(block + 1 < profile.blocks for _, block in recording.gates):
        drawn.append(_gates(recording, profile))
    return torch.stack(drawn)


def maps(recording: MapRecording, name: str, grid: Callable[[int, Sequence[int]], tuple[int, ...]]) -> Tensor:
    """A picture for each step, (steps, height, width, 3): the massive activations over the first picture's tokens, of a
    video's middle frame. All have one scale, so that steps can be compared.

    Args:
        name: the block's name.
        grid: number of tokens, their latent's shape → frames (of a video), rows and columns of tokens.
    """
    if not recording.maps:
        raise ValueError(NOTHING)
    most = max(float(each.magnitude.max()) for each in recording.maps.values())
    drawn = []
    for step, each in sorted(recording.maps.items()):
        *_, rows, columns = grid(len(each.magnitude), each.latent)
        frames = each.magnitude.view(-1, rows, columns)  # of a context window fewer than of the whole
        shown = frames[len(frames) // 2]
        figure, (axes,) = new_figure(1, f"{name}, σ {recording.sigmas[step]:.3g}: {each}")
        image = axes.imshow(shown.cpu().numpy(), cmap="cividis", vmin=0, vmax=most)
        axes.set_title(f"±{each.variation:.0%} over tokens (standard deviation / mean)", fontsize=12)
        axes.set_xlabel("token column", fontsize=12)
        axes.set_ylabel("token row", fontsize=12)
        figure.colorbar(image, label="mean |z| of these channels")
        drawn.append(picture(figure))
    return torch.stack(drawn)


def _channels(recording: Recording, profile: Profile) -> Tensor:
    """Which channels, at an early, a middle and a late block ([DG], figure 2)."""
    blocks = _some(range(profile.blocks))
    figure, axes = new_figure(len(blocks), f"{recording.family}: magnitude of every channel at a block's input")
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
    return picture(figure)


def _growth(recording: Recording, profile: Profile) -> Tensor:
    """The largest channel's ratio over blocks and over noise levels, image and text tokens apart ([DG], figure 4)."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    figure, (over_blocks, over_steps) = new_figure(2, f"{recording.family}: how far the largest channel stands out")
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
    return picture(figure)


def _gates(recording: Recording, profile: Profile) -> Tensor:
    """Whether the residual gates α spike where the activations are massive at the block's output."""
    blocks = _some(sorted({block for _, block in recording.gates if block + 1 < profile.blocks}))
    figure, axes = new_figure(len(blocks), f"{recording.family}: AdaLN's residual gates")
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
    return picture(figure)


def _some(blocks: Sequence[int]) -> list[int]:
    """An early, a middle and a late one."""
    return sorted({blocks[len(blocks) // 4], blocks[len(blocks) // 2], blocks[-1]})


def _peak_ratios(magnitudes: Tensor) -> np.ndarray:
    """Magnitudes (…, channels) → the largest over the median, (…)."""
    return (magnitudes.amax(dim=-1) / magnitudes.quantile(0.5, dim=-1)).numpy()
