"""Image tokens that are blurred or shuffled at a block's input."""

from dataclasses import dataclass
from math import prod

from torch import Tensor

from ...dit import Args, PerturbedCall
from .grid import blurred, shuffled


@dataclass(frozen=True)
class BlurredTokens:
    """The image tokens lose what is finer than some tokens.

    Attributes:
        sigma: deviation of the Gaussian, in tokens.
    """

    sigma: float = 1.0

    def run(self, call: PerturbedCall, keep: float) -> Args:
        def changed(tokens: Tensor) -> Tensor:
            return blurred(tokens, call.token_grid(prod(tokens.shape[1:-1])), self.sigma).lerp(tokens, keep)

        return call.inner(call.with_image_tokens(changed))


@dataclass(frozen=True)
class ShuffledTokens:
    """The image tokens stand at other places."""

    def run(self, call: PerturbedCall, keep: float) -> Args:
        return call.inner(call.with_image_tokens(lambda tokens: shuffled(tokens).lerp(tokens, keep)))
