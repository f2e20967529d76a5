"""What the experiments compare with: the reference model without Detail Guidance, and how settings are compared."""

from functools import cache

from judge import Estimate, Judge, Judged, estimate
from laboratory import Laboratory, Pairs


@cache
def baseline(laboratory: Laboratory, judge: Judge, pairs: Pairs) -> Judged:
    """With CFG."""
    return judge.sampled(laboratory.model(), pairs)


@cache
def conditional_alone(laboratory: Laboratory, judge: Judge, pairs: Pairs) -> Judged:
    return judge.sampled(laboratory.model(), pairs, cfg=1.0)


SPECTRUM = "Δ spectrum distance"
KERNEL = "Δ kernel distance"
HIGH = "Δ log energy 1/4 to 1/2 cycle/px"
LAYOUT = "layout correlation"
UNLIKE = "perceptual distance"
TEXTURE = "Δ log p texture"
HEAD = [SPECTRUM, KERNEL, HIGH, LAYOUT, UNLIKE, TEXTURE]


def changes(judge: Judge, judged: Judged, base: Judged) -> dict[str, Estimate]:
    """Paired changes (Δ) from another setting of the same pairs, and likeness to it, by the names of HEAD."""
    return {
        SPECTRUM: estimate(judged.distance - base.distance),
        KERNEL: judge.kernel_change(judged, base),
        HIGH: estimate((judged.bands - base.bands)[:, -1]),
        LAYOUT: estimate(judged.layout(base)),
        UNLIKE: estimate(judged.unlike(base)),
        TEXTURE: estimate(judged.texture - base.texture),
    }


def cells(change: dict[str, Estimate]) -> list[str]:
    return [each.signed if name.startswith("Δ") else str(each) for name, each in change.items()]
