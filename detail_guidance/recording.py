"""What a probe records of a sampling run, and what it says of massive activations."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .massive import most_massive
from .profile import Profile

Where = tuple[int, int]  # step, block


@dataclass(frozen=True)
class Statistics:
    """Of |z| over rows and tokens, per channel: float32 (channels,)."""

    mean: Tensor
    peak: Tensor


def statistics(z: Tensor) -> Statistics:
    """Of a hidden state (rows, tokens, …, channels), on its device, without waiting for it."""
    magnitude = z.abs().flatten(0, -2)
    return Statistics(magnitude.mean(dim=0, dtype=torch.float32), magnitude.amax(dim=0).float())


@dataclass
class Recording:
    """One sampling run. Filled on the model's device while it runs, read on the CPU after it.

    Attributes:
        sigmas: noise level of each step.
        image, text: statistics of a block's input.
        gates: mean of |α| over rows, AdaLN's residual gates of a block, float32 (channels,); where the family has them.
    """

    family: str
    block_names: list[str]
    sigmas: list[float] = field(default_factory=list)
    image: dict[Where, Statistics] = field(default_factory=dict)
    text: dict[Where, Statistics] = field(default_factory=dict)
    gates: dict[Where, Tensor] = field(default_factory=dict)

    def image_means(self) -> Tensor:
        """Mean of |z|, float32 (blocks, steps, channels); NaN where a cache answered in the model's place.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.image:
            raise ValueError(
                "Nothing was recorded: no block of the model was asked with the positive conditioning. The engine that "
                "loaded this model ignores block patches, or another node's cache answered in its place."
            )
        return self._stacked({where: each.mean for where, each in self.image.items()})

    def _stacked(self, values: dict[Where, Tensor]) -> Tensor:
        channels = len(next(iter(values.values())))
        result = torch.full((len(self.block_names), len(self.sigmas), channels), torch.nan)
        for (step, block), value in values.items():
            result[block, step] = value.cpu()
        return result

    def profile(self, ratio: float, at_most: int) -> Profile:
        """The channels that are massive on average over the steps; arguments as of `massive_channels`."""
        magnitudes = self.image_means().nanmean(dim=1)
        found = {block: most_massive(magnitude, ratio, at_most) for block, magnitude in enumerate(magnitudes)}
        channels = {block: tuple(mask.nonzero().flatten().tolist()) for block, mask in found.items() if mask.any()}
        return Profile(self.family, len(self.block_names), magnitudes.shape[1], channels, magnitudes)

    def report(self, profile: Profile) -> str:
        """What was seen, a line for each block, for people."""
        means = self.image_means()
        first, last = self.sigmas[0], self.sigmas[-1]
        blocks, steps, width = means.shape
        lines = [f"{self.family}: {blocks} blocks, {width} channels, {steps} steps (σ {first:.3g} to {last:.3g})"]
        return "\n".join(lines + [self._line(block, means[block], profile) for block in range(blocks)])

    def _line(self, block: int, means: Tensor, profile: Profile) -> str:
        magnitude, width = profile.magnitudes[block], profile.width
        name = f"block {block} ({self.block_names[block]})"
        median = magnitude.quantile(0.5)
        channels = profile.channels.get(block, ())
        if not channels:
            largest = int(magnitude.argmax())
            return f"{name}: none; the largest, {largest}, is {magnitude[largest] / median:.3g} times the median"
        shares = ", ".join(f"{channel} ({magnitude[channel] / median:.3g} times the median)" for channel in channels)
        largest = max(channels, key=lambda channel: float(magnitude[channel]))
        line = f"{name}: {shares}; {largest}'s |z| from {means[0, largest]:.3g} to {means[-1, largest]:.3g}"
        line += f", at most {max(float(each.peak[largest]) for (_, at), each in self.image.items() if at == block):.3g}"
        text = [each.mean.cpu() for (_, at), each in self.text.items() if at == block]
        if text:
            mean = torch.stack(text).mean(dim=0)
            line += f"; on text {mean[largest] / mean.quantile(0.5):.3g} times the median"
        # What stands at this block's input was let through by the gates before it.
        gates = [gate.cpu() for (_, at), gate in self.gates.items() if at == block - 1]
        if gates:
            mean = torch.stack(gates).mean(dim=0)
            line += f"; the gate before it is number {1 + int((mean > mean[largest]).sum())} of {width} by size"
        return line
