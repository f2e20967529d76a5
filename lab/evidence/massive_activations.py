"""1. Where the massive activations are."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import paths
import plain_modules  # noqa: F401
import torch
from finding import BLUE, GREY, ORANGE, Finding, plain_numbers, plots, save, table, verdict
from laboratory import Laboratory, Size, choosing
from matplotlib import cm
from pack.methods.massive_activations import channels as massive
from torch import Tensor
from weakened import Channels, observing

EARLY = 1 / 3  # of the training
RECIPE = "_skip0.15_adamw_"  # that of the two models, in a training's name
Growth = dict[str, list[tuple[int, float]]]  # step → per block, the largest channel and its magnitude over the median

TITLE = "1. Massive activations sit in few fixed channels, on every image token"


def pictures(size: Size) -> int:
    return 2 * size.few


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
def seen(laboratory: Laboratory, name: str | Path) -> list[Seen]:
    """At every block's input, while the model samples without guidance."""
    sums: dict[int, list[Tensor]] = {}

    def see(block: int, text: Tensor, image: Tensor) -> None:
        size = image.abs()
        largest = torch.bincount(size.argmax(dim=-1).flatten(), minlength=size.shape[-1]) / size[..., 0].numel()
        variation = (size.std(dim=1) / size.mean(dim=1)).mean(dim=0)
        each = torch.stack([size.mean(dim=(0, 1)), image.square().mean(dim=(0, 1)), variation, largest])
        sums.setdefault(block, []).append(each)

    model = laboratory.model(name)
    with observing(model.model.diffusion_model, see):
        laboratory.latents(model, choosing(laboratory.size.few), cfg=1.0, name=name)
    return [Seen(*torch.stack(each).mean(dim=0)) for _, each in sorted(sums.items())]


def channels(laboratory: Laboratory, name: str | Path | None = None) -> Channels:
    """The massive channels at every block's input, by the nodes' defaults, the largest first; the largest one where it
    has none."""
    ratio = laboratory.default("DetailGuidanceOptions", "massive_ratio")
    at_most = laboratory.default("DetailGuidanceOptions", "max_channels")
    found = {}
    for block, each in enumerate(seen(laboratory, name or laboratory.deep)):
        massive_ones = massive.most_massive(each.magnitude, ratio, at_most).nonzero().flatten().tolist()
        largest_first = sorted(massive_ones, key=lambda channel: -float(each.magnitude[channel]))
        found[block] = largest_first or [int(each.magnitude.argmax())]
    return found


def run(laboratory: Laboratory, judge: object, folder: Path) -> Finding:
    models = [laboratory.deep, laboratory.shallow]
    rows, all_fixed, all_few, all_there, at_first, all_tokens, all_uniform = [], [], [], [], [], [], []
    threshold = laboratory.default("DetailGuidanceOptions", "massive_ratio")
    for name in models:
        blocks = seen(laboratory, name)
        for number, block in enumerate(blocks):
            top = int(block.magnitude.argmax())
            ordinary = block.magnitude.argsort(descending=True)[1:9]
            rows.append(
                [
                    name.replace("x", " × "),
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
        all_few += [1 <= number <= 4 for number in massive_at]
        all_there += [number >= 1 for number in massive_at]
        all_tokens += [bool(b.largest[t] > 0.99) for b, t in zip(later, tops, strict=True)]
        all_uniform += [bool(b.variation[t] < 0.2) for b, t in zip(later, tops, strict=True)]
    grown: dict[str, Growth] = json.loads((paths.TRAINING / "growth.json").read_text())
    trainings = {name: growth for name, growth in grown.items() if RECIPE in name}  # section 10 has the others
    appeared = {name: _appeared(growth, threshold) for name, growth in trainings.items()}
    verdicts = {
        "Few fixed channels": (
            verdict(all(all_fixed), all(all_few)),
            f"The largest channel is the same at every block's input after the first in {sum(all_fixed)} of "
            f"{len(models)} models; one to four channels exceed {threshold:g} times the median at {sum(all_few)} of "
            f"{len(all_few)} such inputs.",
        ),
        "On every image token": (
            verdict(all(all_tokens), all(all_uniform)),
            f"It is the largest channel of more than 99 % of the tokens at {sum(all_tokens)} of {len(all_tokens)} "
            f"inputs, and varies by less than 20 % over a picture's tokens at {sum(all_uniform)}.",
        ),
        "In all layers, at several sizes": (
            verdict(all(all_there), all(at_first)),
            f"Some channel exceeds {threshold:g} times the median at {sum(all_there)} of {len(all_there)} inputs after "
            f"the first block's, and at {sum(at_first)} of {len(at_first)} first ones, which are the patch embedding: "
            "no block has written there yet.",
        ),
        "Early in training": (
            verdict(*(share is not None and share < EARLY for share, _ in appeared.values())),
            f"The final channel of the last block's input is massive (above {threshold:g} times the median) from there "
            "on: "
            + "; ".join(f"{name}: {text}" for name, (_, text) in appeared.items())
            + f" (holds: within the first {EARLY:.0%} of the training).",
        ),
    }
    head = ["model", "block", "largest channel", "next", f"above {threshold:g}×", "its energy", "largest on tokens"]
    return Finding(
        TITLE,
        "massive activations occupy few fixed channels on all image tokens, in all layers, at all model sizes, and "
        "appear early in training ([DG], figures 2 and 3).",
        f"Two models of blocks × width, sampling {laboratory.size.few} prompts without guidance, all steps: "
        "mean of |z| at every block's input as a multiple of the median channel's; share of the hidden state's energy; "
        "share of tokens on which the channel is the largest; standard deviation over a picture's tokens divided by "
        "the mean, beside the median of the eight next channels. Training: on noised real pictures, `growth.json`.",
        verdicts,
        [table([*head, "varies", "next eight vary"], rows)],
        [_magnitudes(laboratory, models, folder), _growth(trainings, folder)],
    )


def _by_step(growth: Growth) -> list[tuple[int, list[tuple[int, float]]]]:
    return sorted((int(step), blocks) for step, blocks in growth.items())


def _appeared(growth: Growth, threshold: float) -> tuple[float | None, str]:
    """From which share of the training on the final channel is the massive one at the last block's input."""
    steps = _by_step(growth)
    last, final = steps[-1][0], steps[-1][1][-1][0]
    there = [blocks[-1][0] == final and blocks[-1][1] > threshold for _, blocks in steps]
    if not there[-1]:
        return None, f"never, {steps[-1][1][-1][1]:.1f}× at the end of {last} steps"
    first = len(there) - there[::-1].index(False) if False in there else 0
    step, blocks = steps[first]
    text = (
        f"from step {step} of {last} on (channel {final}, {blocks[-1][1]:.1f}×, at the end {steps[-1][1][-1][1]:.1f}×)"
    )
    return step / last, text


def _magnitudes(laboratory: Laboratory, models: list[str], folder: Path) -> str:
    threshold = laboratory.default("DetailGuidanceOptions", "massive_ratio")
    figure, axes = plots(2, height=3.4)
    for axis, name in zip(axes[0], models, strict=True):
        for number, block in enumerate(seen(laboratory, name)):
            top = int(block.magnitude.argmax())
            colour = ORANGE if block.ratios[top] > threshold else GREY
            axis.scatter([number] * len(block.ratios), block.ratios, s=4, color=GREY, alpha=0.5)
            axis.scatter([number], [block.ratios[top]], s=24, color=colour)
            axis.annotate(f" {top}", (number, float(block.ratios[top])), fontsize=8, va="center")
        axis.axhline(threshold, color=BLUE, linewidth=1, linestyle=":")
        axis.set_title(f"{name.replace('x', ' × ')}; dotted: the pack's threshold", fontsize=10)
        axis.set(xlabel="block", yscale="log")
        plain_numbers(axis.yaxis)
    axes[0, 0].set_ylabel("mean |z| / median, a point for each channel")
    return save(figure, folder, "1-channels.png")


def _growth(trainings: dict[str, Growth], folder: Path) -> str:
    figure, axes = plots(len(trainings))
    for axis, (name, growth) in zip(axes[0], trainings.items(), strict=True):
        steps = _by_step(growth)
        blocks = range(len(steps[0][1]))
        for block in blocks:
            ratios = [each[block][1] for _, each in steps]
            shade = cm.viridis(block / len(blocks))
            axis.plot([step for step, _ in steps], ratios, color=shade, marker="o", markersize=3, label=f"{block}")
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("training step")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7, frameon=False, title="block", loc="center left", bbox_to_anchor=(1, 0.5))
    axes[0, 0].set_ylabel("largest / median mean |z|")
    return save(figure, folder, "1-training.png")
