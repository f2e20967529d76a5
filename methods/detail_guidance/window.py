"""The part of the noise schedule that is guided."""

from dataclasses import dataclass


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

    def __contains__(self, sigma: float) -> bool:
        return self.end <= sigma <= self.start

    def progress(self, sigma: float) -> float:
        """0 at the window's start, 1 at its end, linear in the noise level."""
        start = min(self.start, self.noisiest)
        if start <= self.end:
            return 0.0
        return min(max((start - sigma) / (start - self.end), 0.0), 1.0)


def keep_factor(keep_start: float, keep_end: float, progress: float) -> float:
    """ρ_t of [EMA], whose schedule is not public: linear between its values at the window's two ends."""
    return keep_start + (keep_end - keep_start) * progress
