"""2. What decides where they are, and how large."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from finding import COLOURS, GREY, ORANGE, Finding, plots, save, table, verdict
from judge import Estimate
from laboratory import Laboratory, Size
from massive_activations import channels
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from weakened import gates_of, observing

TITLE = "2. The gate says where, the timestep how large, the text hardly matters"
DRAWS = 200


def pictures(size: Size) -> int:
    return size.prompts


@dataclass(frozen=True)
class Cause:
    """Of one block's input.

    Attributes:
        magnitude: mean |z| of the massive channel over a picture's tokens, (prompts, timesteps).
        gate: mean |α| of the block before, (channels,).
        profile: mean |z|, (channels,).
        channel: the massive one.
    """

    magnitude: np.ndarray
    gate: np.ndarray
    profile: np.ndarray
    channel: int

    @property
    def shares(self) -> list[Estimate]:
        return shares_of(self.magnitude)

    @property
    def rank(self) -> int:
        return 1 + int((self.gate > self.gate[self.channel]).sum())

    @property
    def correlation(self) -> float:
        """Of the ranks of gates and magnitudes, over channels."""
        return float(scipy.stats.spearmanr(self.gate, self.profile).statistic)

    @property
    def variation(self) -> float:
        """Standard deviation over prompts, divided by the mean."""
        return float((self.magnitude.std(axis=0) / self.magnitude.mean(axis=0)).mean())


def causes(laboratory: Laboratory) -> dict[int, Cause]:
    """Block → what was seen at its input; all blocks but the first."""
    model, count, steps = laboratory.model(), laboratory.size.prompts, laboratory.size.steps
    found = channels(laboratory)
    magnitude: dict[int, list[Tensor]] = defaultdict(list)  # batch after batch, each step after step
    profile: dict[int, list[Tensor]] = defaultdict(list)
    gates: dict[int, list[Tensor]] = defaultdict(list)

    def see(block: int, text: Tensor, image: Tensor) -> None:
        size = image.abs().mean(dim=1)
        magnitude[block].append(size[:, found[block][0]])
        profile[block].append(size.mean(dim=0))

    def see_gates(block: int, gate: Tensor) -> None:
        gates[block].append(gate.abs().mean(dim=(0, 1)))

    network = model.model.diffusion_model
    with observing(network, see), gates_of(network, see_gates):
        laboratory.latents(model, count, cfg=1.0)
    seen = {}
    for block in range(1, len(network.joint_blocks)):
        batches = [magnitude[block][first : first + steps] for first in range(0, len(magnitude[block]), steps)]
        seen[block] = Cause(
            magnitude=torch.cat([torch.stack(batch, dim=1) for batch in batches]).numpy(),
            gate=torch.stack(gates[block - 1]).mean(dim=0).numpy(),
            profile=torch.stack(profile[block]).mean(dim=0).numpy(),
            channel=found[block][0],
        )
    return seen


def run(laboratory: Laboratory, judge: object, folder: Path) -> Finding:
    seen = causes(laboratory)
    count, steps = laboratory.size.prompts, laboratory.size.steps
    rows, falls = [], []
    for block, cause in seen.items():
        by_step = cause.magnitude.mean(axis=0)
        falls.append(by_step[-1] < by_step[0])
        rows.append([block, cause.channel, f"{cause.rank} of {len(cause.gate)}", f"{cause.correlation:.2f}"])
        rows[-1] += [each.percent for each in cause.shares]
        rows[-1] += [f"{cause.variation:.0%}", f"{by_step[0]:.3g} → {by_step[-1]:.3g}"]
    by_timestep, by_prompt, _ = zip(*(cause.shares for cause in seen.values()), strict=True)

    def listed(values: Iterable[object]) -> str:
        return ", ".join(map(str, values))

    verdicts = {
        "The gate says where": (
            verdict(
                all(cause.rank == 1 for cause in seen.values()),
                all(cause.correlation > 0.5 for cause in seen.values()),
            ),
            f"The massive channel's gate in the block before is number {listed(c.rank for c in seen.values())} of "
            f"{len(seen[1].gate)} by size at blocks 1 to {len(seen)} (holds: number 1); over all channels, the ranks "
            f"of gate and magnitude correlate by {listed(f'{c.correlation:.2f}' for c in seen.values())} (holds: above "
            "0.5).",
        ),
        "The timestep says how large, growing towards the image": (
            verdict(all(share.low > 0.5 for share in by_timestep), not any(falls)),
            f"It explains {listed(f'{share.mean:.0%}' for share in by_timestep)} of the variance (holds: above half); "
            f"from the first step to the last the magnitude falls at {sum(falls)} of {len(falls)} blocks (holds: "
            "none).",
        ),
        "Text hardly matters": (
            verdict(all(share.high < 0.2 for share in by_prompt), all(c.variation < 0.1 for c in seen.values())),
            f"The prompt, with the noise that each has of its own, explains "
            f"{listed(f'{share.mean:.0%}' for share in by_prompt)} of the variance (holds: below a fifth); the "
            f"standard deviation over prompts is {listed(f'{c.variation:.0%}' for c in seen.values())} of the mean "
            "(holds: below a tenth).",
        ),
    }
    head = [
        "block",
        "channel",
        "its gate before",
        "gates and magnitudes correlate",
        "timestep",
        "prompt and noise",
        "rest",
        "std / mean over prompts",
    ]
    return Finding(
        TITLE,
        "massive channels are those at which AdaLN's gate α spikes; their magnitude is nearly constant over 1,000 "
        "prompts and grows from noise to image ([DG], figure 4).",
        f"{count} prompts, each with its own noise, × {steps} timesteps of sampling without guidance: mean |z| of "
        "the massive channel over a picture's tokens, its variance over the table of prompts × timesteps split into "
        "the two main effects and the rest (95 % by bootstrap over prompts); rank of the channel among the block's "
        "gates, and the rank correlation of |α| and |z| over channels. Gates of all blocks before add up in z; only "
        "those of the last one are ranked.",
        verdicts,
        [table([*head, "mean, first → last step"], rows)],
        [_draw(seen, folder)],
    )


def shares_of(values: np.ndarray) -> list[Estimate]:
    """Shares of the variance of (prompts, timesteps): the timestep's, the prompt's, the rest's."""

    def split(sample: np.ndarray) -> np.ndarray:
        total = sample.var()
        step, prompt = sample.mean(axis=0).var(), sample.mean(axis=1).var()
        return np.array([step, prompt, total - step - prompt]) / total

    numbers = np.random.default_rng(0)
    draws = [split(values[numbers.integers(len(values), size=len(values))]) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return [Estimate(*each) for each in zip(split(values).tolist(), low.tolist(), high.tolist(), strict=True)]


def _draw(seen: dict[int, Cause], folder: Path) -> str:
    figure, (axes,) = plots(2, height=3.6)
    for block, cause in seen.items():
        low, middle, high = np.percentile(cause.magnitude, [5, 50, 95], axis=0)
        steps = range(1, len(middle) + 1)
        axes[0].fill_between(steps, low, high, color=COLOURS[block], alpha=0.25, linewidth=0)
        axes[0].plot(steps, middle, color=COLOURS[block], label=f"block {block}")
    axes[0].set(xlabel="sampling step (noise to image)", ylabel="mean |z| of the massive channel", ylim=(0, None))
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_title("median and 5 to 95 % of the prompts", fontsize=10)
    axes[0].legend(fontsize=9, frameon=False)
    last = max(seen)
    cause = seen[last]
    axes[1].scatter(cause.gate, cause.profile, s=8, color=GREY)
    axes[1].scatter(cause.gate[cause.channel], cause.profile[cause.channel], s=30, color=ORANGE)
    axes[1].annotate(f" {cause.channel}", (cause.gate[cause.channel], cause.profile[cause.channel]), fontsize=9)
    axes[1].set(xlabel=f"mean |α| of block {last - 1}", ylabel=f"mean |z| at block {last}'s input", yscale="log")
    axes[1].set_title("a point for each channel; orange: massive", fontsize=10)
    return save(figure, folder, "2-causes.png")
