"""The detail of an earlier step, in the place of this step's own."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from torch import Tensor

# Guided steps at a run's beginning that never reuse: predictions change most there, and two are needed to compare the
# model's hidden states with the family table.
ALWAYS_COMPUTED = 2


@dataclass(frozen=True)
class CachedDifference:
    """The difference D − D_m of a guided step, kept for the steps after it.

    Of the forms in which a difference can be kept, that of what the network itself answers, a velocity or a noise,
    changes least from step to step (docs/EVIDENCE.md, section 11). D is a x + b F of its answer F: b is −σ for
    rectified flow, others for other parametrisations.

    Attributes:
        difference: (D − D_m) / b, (pictures, …).
        conditions: the conditions that D and D_m were predicted for.
        age: guided steps since it was computed.
    """

    difference: Tensor
    conditions: Hashable
    age: int = 0

    @classmethod
    def of(cls, cond: Tensor, disrupted: Tensor, b: float, conditions: Hashable) -> "CachedDifference":
        """The difference of a step's predictions D and D_m, with that step's b."""
        return cls((cond - disrupted) / b, conditions)

    def disrupted(self, cond: Tensor, b: float) -> Tensor:
        """D_m of another step by this difference, from that step's D and b."""
        return cond - b * self.difference

    def aged(self) -> "CachedDifference":
        """This difference after one more guided step that has not computed D_m."""
        return replace(self, age=self.age + 1)

    def is_fresh(self, every: int, conditions: Hashable) -> bool:
        """Whether the next guided step may take this difference.

        Args:
            every: ≥ 1; D_m is computed at every so many guided steps at the latest.
            conditions: that step's conditions.
        """
        return self.age + 1 < every and self.conditions == conditions


def computed_steps(steps: int, every: int) -> int:
    """Number of guided steps, of `steps`, that compute D_m."""
    return min(steps, ALWAYS_COMPUTED) + max(steps - ALWAYS_COMPUTED, 0) // every
