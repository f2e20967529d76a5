"""2. What decides where they are, and how large."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from finding import GREY, ORANGE, Finding, plots, save, table, verdict
from judge import Estimate
from laboratory import LATENT, Laboratory, Size
from massive_activations import channels
from matplotlib import cm
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from weakened import gates_of, observing

TITLE = "2. The gates say where, the timestep how large, the text hardly matters"
DRAWS = 200


def pictures(size: Size) -> int:
    return size.crossed[0] * size.crossed[1]


@dataclass(frozen=True)
class Cause:
    """Of one block's input.

    Attributes:
        magnitude: mean |z| of the massive channel over a picture's tokens, (prompts, noises, timesteps).
        gate: mean |α| of each of the blocks before, summed: what the hidden state accumulates, (channels,).
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
        """Standard deviation over prompts, of the mean over their noises, divided by the mean."""
        by_prompt = self.magnitude.mean(axis=1)
        return float((by_prompt.std(axis=0) / by_prompt.mean(axis=0)).mean())


def causes(laboratory: Laboratory) -> dict[int, Cause]:
    """Block → what was seen at its input; all blocks but the first. Every prompt meets every noise."""
    model, (prompts, noises), steps = laboratory.model(), laboratory.size.crossed, laboratory.size.steps
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
    names = list(laboratory.textures)[:prompts]
    noise = torch.randn((noises, *LATENT), generator=torch.Generator().manual_seed(4))
    with observing(network, see), gates_of(network, see_gates):
        laboratory.sampled(model, [n for n in names for _ in noise], noise.repeat(prompts, 1, 1, 1), cfg=1.0)
    seen, gate = {}, torch.zeros(())
    for block in range(1, len(network.joint_blocks)):
        gate = gate + torch.stack(gates[block - 1]).mean(dim=0)
        batches = [magnitude[block][first : first + steps] for first in range(0, len(magnitude[block]), steps)]
        by_picture = torch.cat([torch.stack(batch, dim=1) for batch in batches])
        seen[block] = Cause(
            magnitude=by_picture.view(prompts, noises, steps).numpy(),
            gate=gate.numpy(),
            profile=torch.stack(profile[block]).mean(dim=0).numpy(),
            channel=found[block][0],
        )
    return seen


def run(laboratory: Laboratory, judge: object, folder: Path) -> Finding:
    seen = causes(laboratory)
    (prompts, noises), steps = laboratory.size.crossed, laboratory.size.steps
    rows, grows = [], []
    for block, cause in seen.items():
        by_step = cause.magnitude.mean(axis=(0, 1))
        grows.append(by_step[-1] > by_step[0])
        rows.append([block, cause.channel, f"{cause.rank} of {len(cause.gate)}", f"{cause.correlation:.2f}"])
        rows[-1] += [each.percent for each in cause.shares]
        rows[-1] += [f"{cause.variation:.0%}", f"{by_step[0]:.3g} → {by_step[-1]:.3g}"]
    by_timestep, by_prompt, by_noise, _ = zip(*(cause.shares for cause in seen.values()), strict=True)

    def listed(values: Iterable[object]) -> str:
        return ", ".join(map(str, values))

    verdicts = {
        "The gates say where": (
            verdict(*(cause.rank == 1 for cause in seen.values())),
            f"By the gates of all blocks before it, the massive channel is number "
            f"{listed(c.rank for c in seen.values())} of {len(seen[1].gate)} at blocks 1 to {len(seen)} (holds: number "
            "1). Over all channels, the ranks of gate and magnitude correlate by "
            f"{listed(f'{c.correlation:.2f}' for c in seen.values())}.",
        ),
        "The magnitude grows from noise to image": (
            verdict(*grows),
            f"From the first step to the last it grows at {sum(grows)} of {len(grows)} blocks. The timestep explains "
            f"{listed(f'{share.mean:.0%}' for share in by_timestep)} of the variance.",
        ),
        "It barely depends on the prompt": (
            verdict(*(cause.variation < 0.1 for cause in seen.values())),
            f"The standard deviation over prompts is {listed(f'{c.variation:.0%}' for c in seen.values())} of the mean "
            "(holds: below a tenth everywhere). The prompt explains "
            f"{listed(f'{share.mean:.0%}' for share in by_prompt)} of the variance, the noise "
            f"{listed(f'{share.mean:.0%}' for share in by_noise)}.",
        ),
    }
    head = [
        "block",
        "channel",
        "its gates before",
        "gates and magnitudes correlate",
        "timestep",
        "prompt",
        "noise",
        "rest",
        "std / mean over prompts",
    ]
    return Finding(
        TITLE,
        "massive channels are those at which AdaLN's gate α spikes; their magnitude is nearly constant over 1,000 "
        "prompts and grows from noise to image ([DG], figure 4).",
        f"{prompts} prompts × {noises} noises, each with each, × {steps} timesteps of sampling without guidance: mean "
        "|z| of the massive channel over a picture's tokens, its variance split into the three main effects and the "
        "rest (95 % by bootstrap over prompts); rank of the channel by |α| summed over all blocks before, of attention "
        "and MLP, which is what z accumulates.",
        verdicts,
        [table([*head, "mean, first → last step"], rows)],
        [_draw(seen, folder)],
    )


def shares_of(values: np.ndarray) -> list[Estimate]:
    """Shares of the variance of (prompts, noises, timesteps): the timestep's, the prompt's, the noise's, the rest's."""

    def split(sample: np.ndarray) -> np.ndarray:
        effects = [sample.mean(axis=axes).var() for axes in ((0, 1), (1, 2), (0, 2))]
        return np.array([*effects, sample.var() - sum(effects)]) / sample.var()

    numbers = np.random.default_rng(0)
    draws = [split(values[numbers.integers(len(values), size=len(values))]) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return [Estimate(*each) for each in zip(split(values).tolist(), low.tolist(), high.tolist(), strict=True)]


def _draw(seen: dict[int, Cause], folder: Path) -> str:
    figure, (axes,) = plots(2, height=3.6)
    for block, cause in seen.items():
        by_step = np.median(cause.magnitude, axis=(0, 1))
        axes[0].plot(range(1, len(by_step) + 1), by_step, color=cm.viridis(block / len(seen)), label=f"{block}")
    axes[0].set(xlabel="sampling step (noise to image)", ylabel="median |z| of the massive channel", ylim=(0, None))
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend(fontsize=8, frameon=False, title="block", loc="center left", bbox_to_anchor=(1, 0.5))
    last = max(seen)
    cause = seen[last]
    axes[1].scatter(cause.gate, cause.profile, s=8, color=GREY)
    axes[1].scatter(cause.gate[cause.channel], cause.profile[cause.channel], s=30, color=ORANGE)
    axes[1].annotate(f" {cause.channel}", (cause.gate[cause.channel], cause.profile[cause.channel]), fontsize=9)
    axes[1].set(xlabel=f"|α| summed over blocks 0 to {last - 1}", ylabel=f"|z| at block {last}'s input", yscale="log")
    axes[1].set_title("a point for each channel; orange: massive", fontsize=10)
    return save(figure, folder, "2-causes.png")
