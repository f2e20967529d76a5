"""The part of the noise schedule that is guided."""

from dataclasses import dataclass
from math import inf
from typing import Any

import torch


@dataclass(frozen=True)
class Window:
    """Noise levels from `start` down to `end`, both included (σ in the units of the sampler).

    Attributes:
        start: infinity where the window has no beginning.
        noisiest: the model's highest noise level, where a window without a beginning begins to count.
    """

    start: float
    end: float
    noisiest: float

    @classmethod
    def of(cls, start_percent: float, end_percent: float, sampling: Any) -> "Window":
        """The window of two shares of the schedule.

        Args:
            start_percent, end_percent: 0 to 1; at 0 the window has no beginning.
            sampling: the model's, with the host's `percent_to_sigma` and `sigma_max`.
        """
        start, end = (sampling.percent_to_sigma(percent) for percent in (start_percent, end_percent))
        return cls(float(start) if start_percent > 0 else inf, float(end), float(sampling.sigma_max))

    def __contains__(self, sigma: float) -> bool:
        return _rounded(self.end) <= _rounded(sigma) <= _rounded(self.start)

    def progress(self, sigma: float) -> float:
        """0 at the window's start, 1 at its end, linear in the noise level."""
        start = min(self.start, self.noisiest)
        if start <= self.end:
            return 0.0
        return min(max((start - sigma) / (start - self.end), 0.0), 1.0)


def keep_factor(keep_start: float, keep_end: float, progress: float) -> float:
    """ρ_t of [EMA], whose schedule is not public: linear between its values at the window's two ends."""
    return keep_start + (keep_end - keep_start) * progress


def _rounded(sigma: float) -> float:
    """A bound as the host's steps and ranges have it, in float32: as a double, it would lose a step that lies on it."""
    return float(torch.tensor(sigma, dtype=torch.float32))
