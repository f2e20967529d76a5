"""The detail of an earlier step, in the place of this step's own."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from torch import Tensor

from .guidance import relative_strength


@dataclass(frozen=True)
class Kept:
    """What a guided step has computed of D_m, for the steps after it.

    Of the forms in which a difference can be kept, that of what the network itself answers, a velocity or a noise,
    changes least from step to step (docs/EVIDENCE.md, section 11). D is a x + b F of its answer F: b is −σ for
    rectified flow, others for other parametrisations.

    Attributes:
        difference: (D − D_m) / b, (pictures, …).
        conditions: what D and D_m were predictions of.
        cond: D of the last guided step, (pictures, …).
        change: relative change of D from step to step, summed since D_m was computed, (pictures,).
        age: guided steps since.
    """

    difference: Tensor
    conditions: Hashable
    cond: Tensor
    change: Tensor
    age: int = 0

    @classmethod
    def of(cls, cond: Tensor, disrupted: Tensor, b: float, conditions: Hashable) -> "Kept":
        return cls((cond - disrupted) / b, conditions, cond, cond.new_zeros(len(cond)))

    def disrupted(self, cond: Tensor, b: float) -> Tensor:
        """D_m of another step, by its D and b."""
        return cond - b * self.difference

    def after(self, cond: Tensor) -> "Kept":
        """One guided step later, which has not computed D_m."""
        change = self.change + relative_strength(cond - self.cond, cond)
        return replace(self, cond=cond, change=change, age=self.age + 1)

    def may_serve(self, every: int, gate: float, conditions: Hashable) -> bool:
        """Whether the next guided step may take it.

        Args:
            every: ≥ 1, at every so many guided steps D_m is computed at the latest.
            gate: sooner, where D of any picture had changed by more than this before the step; 0 is off. Waits for the
                device.
        """
        if self.age + 1 >= every or self.conditions != conditions:
            return False
        return gate == 0 or float(self.change.max()) <= gate
