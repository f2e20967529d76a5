"""Recordings of massive activations in a sampling run, and their reports: observers of dit/observer.py."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...dit import BlockInput
from .channels import most_massive
from .perturbations import ReportedPerturbation
from .profile import Profile

Where = tuple[int, int]  # step, block
NOTHING = (
    "Nothing was recorded: no block of the model was asked with the positive conditioning. The engine that loaded this "
    "model ignores block patches, or another node's cache answered in its place."
)


@dataclass(frozen=True)
class Statistics:
    """Statistics of |z| over rows and tokens, for each channel: float32 (channels,)."""

    mean: Tensor
    peak: Tensor


def statistics(z: Tensor) -> Statistics:
    """Statistics of a hidden state (rows, tokens, …, channels), on its device, without waiting for it."""
    magnitude = z.abs().flatten(0, -2)
    return Statistics(magnitude.mean(dim=0, dtype=torch.float32), magnitude.amax(dim=0).float())


@dataclass
class Recording:
    """What a probe keeps of one sampling run. A step's statistics are made on the model's device and leave it when the
    next step begins: by then they are ready, so that nothing waits for them.

    Attributes:
        family, family_id: the model family's name for people and for files.
        block_names: for people.
        sigmas: noise level of each step.
        image, text: (step, block) → statistics of the block's input.
        gates: (step, block) → mean of |α|, float32 (channels,).
    """

    family: str
    family_id: str
    block_names: list[str]
    sigmas: list[float] = field(default_factory=list)
    image: dict[Where, Statistics] = field(default_factory=dict)
    text: dict[Where, Statistics] = field(default_factory=dict)
    gates: dict[Where, Tensor] = field(default_factory=dict)

    def on_block(self, number: int, given: BlockInput) -> None:
        where = (given.step, number)
        if number == 0:
            self._leave_the_device(given.step)
        self.image[where] = statistics(given.image)
        if given.text is not None and given.text.shape[1]:
            self.text[where] = statistics(given.text)
        modulation = given.modulation()
        if modulation is not None:
            self.gates[where] = modulation[..., 2, :].abs().flatten(0, 1).mean(dim=0).float()

    def _leave_the_device(self, before: int) -> None:
        """Move the statistics of the step before this one to the CPU."""
        for kind in (self.image, self.text):
            for where, each in kind.items():
                if where[0] == before - 1:
                    kind[where] = Statistics(each.mean.cpu(), each.peak.cpu())
        for where, gate in self.gates.items():
            if where[0] == before - 1:
                self.gates[where] = gate.cpu()

    def image_means(self) -> Tensor:
        """Mean of |z|, float32 (blocks, steps, channels); NaN where a cache answered in the model's place.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.image:
            raise ValueError(NOTHING)
        return self._stacked({where: each.mean for where, each in self.image.items()})

    def _stacked(self, values: dict[Where, Tensor]) -> Tensor:
        channels = len(next(iter(values.values())))
        result = torch.full((len(self.block_names), len(self.sigmas), channels), torch.nan)
        for (step, block), value in values.items():
            result[block, step] = value.cpu()
        return result

    def profile(self, ratio: float, at_most: int) -> Profile:
        """The channels that are massive on average over the steps.

        Args:
            ratio, at_most: as of `massive_channels`.
        """
        magnitudes = self.image_means().nanmean(dim=1)
        found = {block: most_massive(magnitude, ratio, at_most) for block, magnitude in enumerate(magnitudes)}
        channels = {block: tuple(mask.nonzero().flatten().tolist()) for block, mask in found.items() if mask.any()}
        return Profile(self.family_id, len(self.block_names), magnitudes.shape[1], channels, magnitudes)

    def report(self, profile: Profile) -> str:
        """The massive activations in words, a line for each block."""
        means = self.image_means()
        blocks, steps, width = means.shape
        lines = [f"{self.family}: the largest of {width} channels at each of {blocks} blocks, mean of {steps} steps"]
        return "\n".join(lines + [self._line(block, means[block], profile) for block in range(blocks)])

    def _line(self, block: int, means: Tensor, profile: Profile) -> str:
        name, magnitude = f"block {block} ({self.block_names[block]})", profile.magnitudes[block]
        median = magnitude.quantile(0.5)
        channels = profile.channels.get(block, ())
        if not channels:
            largest = int(magnitude.argmax())
            return f"{name}: none; the largest, {largest}, is {magnitude[largest] / median:.3g} times the median"
        shares = ", ".join(f"{channel} ({magnitude[channel] / median:.3g} times the median)" for channel in channels)
        largest = max(channels, key=lambda channel: float(magnitude[channel]))
        return f"{name}: channel {shares}; {largest} goes from {means[0, largest]:.3g} to {means[-1, largest]:.3g}"


@dataclass(frozen=True)
class Map:
    """A block's massive activations over the picture, at one step.

    Attributes:
        magnitude: mean of |z| over the massive channels, or of the largest channel where none is massive, (tokens,).
        channels: these channels, bool (channels,).
        massive: whether they are massive, bool ().
        latent: shape of the latent that the tokens are of.
    """

    magnitude: Tensor
    channels: Tensor
    massive: Tensor
    latent: torch.Size

    @property
    def variation(self) -> float:
        """Standard deviation over the mean, of the tokens: 0 is perfectly uniform."""
        return float(self.magnitude.std() / self.magnitude.mean())

    def __str__(self) -> str:
        channels = ", ".join(map(str, self.channels.nonzero().flatten().tolist()))
        return f"massive {channels}" if self.massive else f"none is massive; the largest is {channels}"


@dataclass
class MapRecording:
    """The maps of one block over one sampling run, of its first picture; filled and read as `Recording`.

    Attributes:
        block: number of the block.
        finder: finds its massive channels in image tokens (1, tokens, …, channels).
    """

    block: int
    finder: ReportedPerturbation
    sigmas: list[float] = field(default_factory=list)
    maps: dict[int, Map] = field(default_factory=dict)

    def on_block(self, number: int, given: BlockInput) -> None:
        if number != self.block:
            return
        z = given.image[:1]
        found = self.finder.observe(z)
        magnitude = z.abs().flatten(0, -2).float()
        largest = torch.zeros_like(found).scatter(0, magnitude.mean(dim=0).argmax(dim=0, keepdim=True), True)
        channels = torch.where(found.any(), found, largest)
        self.maps[given.step] = Map(magnitude @ channels.float() / channels.sum(), channels, found.any(), given.latent)

    def report(self) -> str:
        """The maps' uniformity in words, a line for each step.

        Raises:
            ValueError: nothing was recorded.
        """
        if not self.maps:
            raise ValueError(NOTHING)
        return "\n".join(self._line(step, each) for step, each in sorted(self.maps.items()))

    def _line(self, step: int, seen: Map) -> str:
        low, high = (float(each) for each in seen.magnitude.aminmax())
        return (
            f"step {step} (σ {self.sigmas[step]:.3g}): {seen}; mean |z| {float(seen.magnitude.mean()):.3g}, "
            f"from {low:.3g} to {high:.3g} over tokens, standard deviation / mean {seen.variation:.2f}"
        )
