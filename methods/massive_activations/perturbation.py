"""What a weaker prediction is: a rule sees the tokens of the ordinary one, and weakens the same tokens of the other."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from .channels import disrupt, listed_channels, massive_channels
from .profile import Profile


class Rule(Protocol):
    """One way to weaken a prediction at one place of the model, such as a block's input."""

    def observe(self, z: Tensor) -> Tensor:
        """What `weaken` has to know of a condition's hidden state z, (rows, tokens, …, channels), on its device and
        without waiting for it."""

    def weaken(self, z: Tensor, found: Tensor, keep: float) -> Tensor:
        """The weaker form of z, of z's shape; z is left as it is.

        Args:
            found: what `observe` made of the ordinary prediction's hidden state at the same place.
            keep: ρ, 0 to 1: how much is kept of what the rule takes away, where it can take a part.
        """

    def channels(self, found: Tensor) -> Tensor | None:
        """The channels that it weakens, bool (channels,); None where it is not about channels."""


class _OfChannels:
    """Multiplies channels by the keep factor: zero is the paper's own, more than zero is softer."""

    def weaken(self, z: Tensor, found: Tensor, keep: float) -> Tensor:
        return disrupt(z, found, keep)

    def channels(self, found: Tensor) -> Tensor | None:
        return found


@dataclass(frozen=True)
class MassiveActivations(_OfChannels):
    """The massive channels, found afresh in every forward.

    Attributes:
        ratio: ≥ 1, over the median channel's magnitude.
        at_most: ≥ 1, so many, the largest first.
    """

    ratio: float
    at_most: int

    def observe(self, z: Tensor) -> Tensor:
        return massive_channels(z, self.ratio, self.at_most)


@dataclass(frozen=True)
class ListedChannels(_OfChannels):
    """Channels by number."""

    numbers: tuple[int, ...]

    def observe(self, z: Tensor) -> Tensor:
        return listed_channels(self.numbers, z)


@dataclass(frozen=True)
class ProfiledChannels(_OfChannels):
    """A block's channels by a profile of the model; none where it has none for the block."""

    profile: Profile
    block: int

    def observe(self, z: Tensor) -> Tensor:
        self.profile.check_width(z.shape[-1])
        return listed_channels(self.profile.channels.get(self.block, ()), z)
