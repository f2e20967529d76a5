"""2. What decides where they are, and how large."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from finding import COLOURS, GREY, ORANGE, Finding, plots, save, table, verdict
from judge import Estimate
from laboratory import Laboratory, Size
from massive_activations import channels
from torch import Tensor, nn
from weakened import observing

TITLE = "2. The gate says where, the timestep how large, the text hardly matters"
DRAWS = 200


def pictures(size: Size) -> int:
    return size.prompts


def run(laboratory: Laboratory, judge: object, folder: Path) -> Finding:
    model, count = laboratory.model(), laboratory.size.prompts
    found = channels(laboratory)
    network = model.model.diffusion_model
    magnitude: dict[int, list[Tensor]] = defaultdict(list)  # block → (pictures,) for each step, batch after batch
    profile: dict[int, list[Tensor]] = defaultdict(list)
    gates: dict[int, list[Tensor]] = defaultdict(list)

    def see(block: int, text: Tensor, image: Tensor) -> None:
        size = image.abs().mean(dim=1)
        magnitude[block].append(size[:, found[block]].mean(dim=1))
        profile[block].append(size.mean(dim=0))

    def hook_of(number: int):
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            parts = output.chunk(6, dim=1)  # of attention and of the MLP: shift, scale, gate
            gates[number].append(torch.stack([parts[2], parts[5]]).abs().mean(dim=(0, 1)))

        return hook

    hooks = [b.x_block.adaLN_modulation.register_forward_hook(hook_of(n)) for n, b in enumerate(network.joint_blocks)]
    with observing(network, see):
        laboratory.latents(model, count, cfg=1.0)
    for hook in hooks:
        hook.remove()

    steps = laboratory.size.steps
    rows, step_shares, prompt_shares, ranks, variations, falling = [], [], [], [], [], []
    for block in range(1, len(network.joint_blocks)):
        # The seen come batch after batch, and within a batch step after step.
        batches = [magnitude[block][first : first + steps] for first in range(0, len(magnitude[block]), steps)]
        table_of = torch.cat([torch.stack(batch, dim=1) for batch in batches]).numpy()
        magnitude[block] = table_of
        shares = _shares(table_of)
        mean = torch.stack(profile[block]).mean(dim=0)
        gate = torch.stack(gates[block - 1]).mean(dim=0)
        top = int(mean[found[block]].argmax())
        channel = found[block][top]
        rank = 1 + int((gate > gate[channel]).sum())
        correlation = float(np.corrcoef(gate.log(), mean.log())[0, 1])
        step_shares.append(shares[0])
        prompt_shares.append(shares[1])
        ranks.append(rank)
        variations.append(float((table_of.std(axis=0) / table_of.mean(axis=0)).mean()))
        by_step = table_of.mean(axis=0)
        falling.append(by_step[-1] < by_step[0])
        rows.append([block, channel, f"{rank} of {len(gate)}", f"{correlation:.2f}", *(s.percent for s in shares)])
        rows[-1] += [f"{variations[-1]:.0%}", f"{by_step[0]:.3g} → {by_step[-1]:.3g}"]
    width = len(profile[1][0])
    verdicts = {
        "The gate says where": (
            verdict(*(rank <= 4 for rank in ranks)),
            f"The massive channel's gate before the block is number {', '.join(map(str, ranks))} of {width} by size.",
        ),
        "The timestep says how large": (
            verdict(*(share.low > 0.5 for share in step_shares)),
            f"It explains {', '.join(f'{s.mean:.0%}' for s in step_shares)} of the variance at blocks 1 to "
            f"{len(rows)}. From noise to image the magnitude falls at {sum(falling)} of them; the paper's grows.",
        ),
        "Text hardly matters": (
            verdict(all(share.high < 0.2 for share in prompt_shares), all(each < 0.1 for each in variations)),
            f"The prompt, together with the noise that each has of its own, explains "
            f"{', '.join(f'{s.mean:.0%}' for s in prompt_shares)} of the variance; the magnitude's standard deviation "
            f"over prompts is {', '.join(f'{v:.0%}' for v in variations)} of its mean.",
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
        f"{count} prompts, each with its own noise, × {steps} timesteps of sampling without guidance: mean |z| of the "
        "massive channel over a picture's tokens, its variance over the table of prompts × timesteps split into the "
        "two main effects and the rest (95 % by bootstrap over prompts); rank of the channel among the block's gates, "
        "and the correlation of log |α| and log |z| over channels.",
        verdicts,
        [table([*head, "mean, first → last step"], rows)],
        [_draw(laboratory, magnitude, gates, profile, found, folder)],
    )


def _shares(values: np.ndarray) -> list[Estimate]:
    """Shares of the variance of (prompts, timesteps): the timestep's, the prompt's, the rest's."""

    def split(sample: np.ndarray) -> np.ndarray:
        total = sample.var()
        step, prompt = sample.mean(axis=0).var(), sample.mean(axis=1).var()
        return np.array([step, prompt, total - step - prompt]) / total

    numbers = np.random.default_rng(0)
    draws = [split(values[numbers.integers(len(values), size=len(values))]) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return [Estimate(*each) for each in zip(split(values).tolist(), low.tolist(), high.tolist(), strict=True)]


def _draw(laboratory, magnitude, gates, profile, found, folder: Path) -> str:
    last = len(found) - 1
    figure, (axes,) = plots(2, height=3.6)
    for block in range(1, last + 1):
        low, middle, high = np.percentile(magnitude[block], [5, 50, 95], axis=0)
        steps = range(1, len(middle) + 1)
        axes[0].fill_between(steps, low, high, color=COLOURS[block], alpha=0.25, linewidth=0)
        axes[0].plot(steps, middle, color=COLOURS[block], label=f"block {block}")
    axes[0].set(xlabel="sampling step (noise to image)", ylabel="mean |z| of the massive channel", ylim=(0, None))
    axes[0].set_title("median and 5 to 95 % of the prompts", fontsize=10)
    axes[0].legend(fontsize=9, frameon=False)
    gate, mean = torch.stack(gates[last - 1]).mean(dim=0), torch.stack(profile[last]).mean(dim=0)
    axes[1].scatter(gate, mean, s=8, color=GREY)
    axes[1].scatter(gate[found[last]], mean[found[last]], s=30, color=ORANGE)
    for channel in found[last]:
        axes[1].annotate(f" {channel}", (float(gate[channel]), float(mean[channel])), fontsize=9)
    axes[1].set(xlabel=f"mean |α| of block {last - 1}", ylabel=f"mean |z| at block {last}'s input", yscale="log")
    axes[1].set_title("a point for each channel; orange: massive", fontsize=10)
    return save(figure, folder, "2-causes.png")
