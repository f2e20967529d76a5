"""1. Where the massive activations are."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from finding import COLOURS, GREY, ORANGE, Finding, plots, save, table, verdict
from laboratory import DEPTH, DEPTHS, REFERENCE_MODEL, Laboratory, Size
from rooms import massive
from torch import Tensor
from weakened import Channels, observing

FROM_SCRATCH = (2, 3)  # depths; growth.json has their training from its first step
EARLY = 1 / 3  # of the training
Growth = list[tuple[int, float]]  # per block, the largest channel and its magnitude over the median

TITLE = "1. Massive activations sit in few fixed channels, on every image token"


def pictures(size: Size) -> int:
    return len(DEPTHS) * size.few


@dataclass(frozen=True)
class Seen:
    """Of the image tokens at one block's input, over pictures and steps, per channel: (channels,).

    Attributes:
        magnitude: mean of |z|.
        energy: mean of z².
        variation: standard deviation of |z| over a picture's tokens, divided by their mean.
        largest: share of tokens on which the channel is the largest.
    """

    magnitude: Tensor
    energy: Tensor
    variation: Tensor
    largest: Tensor

    @property
    def ratios(self) -> Tensor:
        return self.magnitude / self.magnitude.quantile(0.5)


@cache
def seen(laboratory: Laboratory, depth: int) -> list[Seen]:
    """At every block's input, while the model samples without guidance."""
    sums: dict[int, list[Tensor]] = {}

    def see(block: int, text: Tensor, image: Tensor) -> None:
        size = image.abs()
        largest = torch.bincount(size.argmax(dim=-1).flatten(), minlength=size.shape[-1]) / size[..., 0].numel()
        variation = (size.std(dim=1) / size.mean(dim=1)).mean(dim=0)
        each = torch.stack([size.mean(dim=(0, 1)), image.square().mean(dim=(0, 1)), variation, largest])
        sums.setdefault(block, []).append(each)

    with observing(laboratory.model(depth).model.diffusion_model, see):
        laboratory.latents(laboratory.model(depth), laboratory.size.few, cfg=1.0, depth=depth)
    return [Seen(*torch.stack(each).mean(dim=0)) for _, each in sorted(sums.items())]


def channels(laboratory: Laboratory, depth: int = DEPTH) -> Channels:
    """The massive channels at every block's input, by the nodes' defaults; those of the others where it has none."""
    ratio = laboratory.default("DetailGuidanceOptions", "massive_ratio")
    at_most = laboratory.default("DetailGuidanceOptions", "max_channels")
    found = [
        massive.most_massive(s.magnitude, ratio, at_most).nonzero().flatten().tolist() for s in seen(laboratory, depth)
    ]
    everywhere = sorted({channel for each in found for channel in each}) or [
        int(seen(laboratory, depth)[-1].magnitude.argmax())
    ]
    return {block: each or everywhere for block, each in enumerate(found)}


def run(laboratory: Laboratory, judge: object, folder: Path) -> Finding:
    rows, all_fixed, all_few, all_there, at_first, all_tokens, all_uniform = [], [], [], [], [], [], []
    threshold = laboratory.default("DetailGuidanceOptions", "massive_ratio")
    for depth in DEPTHS:
        blocks = seen(laboratory, depth)
        for number, block in enumerate(blocks):
            top = int(block.magnitude.argmax())
            ordinary = block.magnitude.argsort(descending=True)[1:9]
            rows.append(
                [
                    f"{depth} × {64 * depth}",
                    number,
                    f"{top}: {block.ratios[top]:.1f}×",
                    f"{block.ratios[ordinary[0]]:.1f}×",
                    int((block.ratios > threshold).sum()),
                    f"{block.energy[top] / block.energy.sum():.0%}",
                    f"{block.largest[top]:.1%}",
                    f"{block.variation[top]:.2f}",
                    f"{block.variation[ordinary].median():.2f}",
                ]
            )
        later = blocks[1:]
        at_first.append(bool((blocks[0].ratios > threshold).any()))
        tops = [int(block.magnitude.argmax()) for block in later]
        all_fixed.append(len(set(tops)) == 1)
        massive_at = [int((block.ratios > threshold).sum()) for block in later]
        all_few += [number <= 4 for number in massive_at]
        all_there += [number >= 1 for number in massive_at]
        all_tokens += [bool(b.largest[t] > 0.99) for b, t in zip(later, tops, strict=True)]
        all_uniform += [bool(b.variation[t] < 0.2) for b, t in zip(later, tops, strict=True)]
    growth = json.loads((REFERENCE_MODEL / "growth.json").read_text())
    appeared = {depth: _appeared(growth[str(depth)], threshold) for depth in FROM_SCRATCH}
    verdicts = {
        "Few fixed channels": (
            verdict(all(all_fixed), all(all_few)),
            f"The largest channel is the same at every block's input after the first in {sum(all_fixed)} of "
            f"{len(DEPTHS)} models; at most four channels exceed {threshold:g} times the median at {sum(all_few)} of "
            f"{len(all_few)} such inputs.",
        ),
        "On every image token": (
            verdict(all(all_tokens), all(all_uniform)),
            f"It is the largest channel of more than 99 % of the tokens at {sum(all_tokens)} of {len(all_tokens)} "
            f"inputs, and varies by less than 20 % over a picture's tokens at {sum(all_uniform)}.",
        ),
        "In all layers, at several sizes": (
            verdict(*all_there, *at_first),
            f"Some channel exceeds {threshold:g} times the median at {sum(all_there)} of {len(all_there)} inputs after "
            f"the first block's, and at {sum(at_first)} of {len(at_first)} first ones, which are the patch embedding: "
            "no block has written there yet.",
        ),
        "Early in training, and from then on": (
            verdict(*(share is not None and share < EARLY for share, _ in appeared.values())),
            "At the last block's input, with the same channel to the end: "
            + "; ".join(f"depth {depth} {text}" for depth, (_, text) in appeared.items())
            + ". (Depth 4 had been trained on textures before its first step shown here.)",
        ),
    }
    head = ["model", "block", "largest channel", "next", f"above {threshold:g}×", "its energy", "largest on tokens"]
    figures = [_magnitudes(laboratory, folder), _growth(growth, folder)]
    return Finding(
        TITLE,
        "massive activations occupy few fixed channels on all image tokens, in all layers, at all model sizes, and "
        "appear early in training ([DG], figures 2 and 3).",
        f"{len(DEPTHS)} models of depth × width, sampling {laboratory.size.few} prompts without guidance, all steps: "
        "mean of |z| at every block's input as a multiple of the median channel's; share of the hidden state's energy; "
        "share of tokens on which the channel is the largest; standard deviation over a picture's tokens divided by "
        "the mean, beside the median of the eight next channels. Training: on noised real pictures, `growth.json`.",
        verdicts,
        [table([*head, "varies", "next eight vary"], rows)],
        figures,
    )


def _by_step(growth: dict[str, Growth]) -> list[tuple[int, Growth]]:
    return sorted((int(step), blocks) for step, blocks in growth.items())


def _appeared(growth: dict[str, Growth], threshold: float) -> tuple[float | None, str]:
    """From which share of the training on the final channel is above the threshold at the last block's input."""
    steps = _by_step(growth)
    last, final = steps[-1][0], steps[-1][1][-1][0]
    there = [blocks[-1][0] == final and blocks[-1][1] > threshold for _, blocks in steps]
    if not there[-1]:
        return None, f"never above {threshold:g} times the median"
    first = len(there) - there[::-1].index(False) if False in there else 0
    step, blocks = steps[first]
    return step / last, f"from step {step} of {last} on ({blocks[-1][1]:.1f}×, channel {final})"


def _magnitudes(laboratory: Laboratory, folder: Path) -> str:
    threshold = laboratory.default("DetailGuidanceOptions", "massive_ratio")
    figure, axes = plots(max(DEPTHS), len(DEPTHS), height=1.9)
    for row, depth in zip(axes, DEPTHS, strict=True):
        for axis in row[depth:]:
            axis.set_axis_off()
        for number, (axis, block) in enumerate(zip(row, seen(laboratory, depth), strict=False)):
            top = int(block.magnitude.argmax())
            axis.vlines(range(len(block.ratios)), 0, block.ratios, color=GREY, linewidth=1)
            colour = ORANGE if block.ratios[top] > threshold else GREY
            axis.vlines([top], 0, block.ratios[top], color=colour, linewidth=2.5)
            axis.annotate(f" {top}", (top, float(block.ratios[top])), va="top", fontsize=9)
            axis.set_title(f"depth {depth}, block {number}", fontsize=9)
        row[0].set_ylabel("mean |z| / median", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("channel", fontsize=9)
    return save(figure, folder, "1-channels.png")


def _growth(growth: dict, folder: Path) -> str:
    figure, axes = plots(len(DEPTHS))
    for axis, depth in zip(axes[0], DEPTHS, strict=True):
        steps = _by_step(growth[str(depth)])
        for block in range(depth):
            ratios = [blocks[block][1] for _, blocks in steps]
            axis.plot(
                [int(s) for s, _ in steps],
                ratios,
                color=COLOURS[block],
                marker="o",
                markersize=3,
                label=f"block {block}",
            )
        axis.set_title(f"depth {depth}", fontsize=10)
        axis.set_xlabel("training step")
        axis.set_ylim(bottom=0)
    axes[0, 0].set_ylabel("largest / median mean |z|")
    axes[0, -1].legend(fontsize=8, frameon=False, loc="center right")
    return save(figure, folder, "1-training.png")
