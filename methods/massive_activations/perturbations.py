"""Perturbing a prediction at its massive channels: objects of the `Perturbation` protocol."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

from torch import Tensor

from .channels import disrupt_, listed_channels, massive_channels
from .profile import Profile


class ReportedPerturbation(Protocol):
    """A `Perturbation` that Detail Guidance reports: it also tells which channels it changes."""

    def observe(self, hidden_states: Tensor) -> Tensor:
        """As of `Perturbation`; for those of channels the channels themselves, bool (channels,)."""

    def apply(self, hidden_states: Tensor, statistics: Any, keep: float) -> None:
        """As of `Perturbation`: perturbs image tokens (rows, tokens, …, channels) in place."""

    def channels(self, statistics: Any) -> Tensor | None:
        """The channels for the report, bool (channels,); None where the perturbation is not about channels."""


@dataclass(frozen=True)
class _OfChannels:
    """Perturbations of channels that `observe` finds.

    Attributes:
        change: how the channels are disrupted, one of the functions in channels.py; the paper's zeroes them.
    """

    _: KW_ONLY
    change: Callable[[Tensor, Tensor, float], None] = disrupt_

    def apply(self, hidden_states: Tensor, statistics: Tensor, keep: float) -> None:
        self.change(hidden_states, statistics, keep)

    def channels(self, statistics: Tensor) -> Tensor | None:
        return statistics


@dataclass(frozen=True)
class MassiveActivations(_OfChannels):
    """The massive channels, found afresh in every forward.

    Attributes:
        ratio: ≥ 1, threshold over the median channel's magnitude.
        at_most: ≥ 1, so many channels, the largest first.
    """

    ratio: float
    at_most: int

    def observe(self, hidden_states: Tensor) -> Tensor:
        return massive_channels(hidden_states, self.ratio, self.at_most)


@dataclass(frozen=True)
class ListedChannels(_OfChannels):
    """Channels by number."""

    numbers: tuple[int, ...]

    def observe(self, hidden_states: Tensor) -> Tensor:
        return listed_channels(self.numbers, hidden_states)


@dataclass(frozen=True)
class ProfiledChannels(_OfChannels):
    """A block's channels by a profile of the model; none where the profile has none for the block."""

    profile: Profile
    block: int

    def observe(self, hidden_states: Tensor) -> Tensor:
        self.profile.check_width(hidden_states.shape[-1])
        return listed_channels(self.profile.channels.get(self.block, ()), hidden_states)
