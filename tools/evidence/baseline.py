"""What the experiments compare with: the reference model with CFG alone."""

from functools import cache

from finding import NOT_HERE, verdict
from judge import Estimate, Judge, Judged, estimate
from laboratory import Laboratory, Size


def pictures(size: Size) -> int:
    return size.pairs


@cache
def baseline(laboratory: Laboratory, judge: Judge) -> Judged:
    """Of all pairs; an experiment takes the first so many."""
    return judge(laboratory.pictures(laboratory.model(), laboratory.size.pairs))


SPECTRUM = "Δ spectrum distance"
KERNEL = "Δ kernel distance"
HIGH = "Δ log energy 1/4 to 1/2 cycle/px"
LAYOUT = "layout correlation"
UNLIKE = "perceptual distance"
TEXTURE = "Δ log p texture"
OBJECT = "Δ log p object"
HEAD = [SPECTRUM, KERNEL, HIGH, LAYOUT, UNLIKE, TEXTURE, OBJECT]


def changes(judge: Judge, judged: Judged, base: Judged) -> dict[str, Estimate]:
    """Paired changes (Δ) from another setting of the same pairs, and likeness to it, by the names of HEAD."""
    return {
        SPECTRUM: estimate(judged.distance - base.distance),
        KERNEL: judge.kernel_change(judged, base),
        HIGH: estimate((judged.bands - base.bands)[:, -1]),
        LAYOUT: estimate(judged.layout(base)),
        UNLIKE: estimate(judged.unlike(base)),
        TEXTURE: estimate(judged.texture - base.texture),
        OBJECT: estimate(judged.object - base.object),
    }


def cells(change: dict[str, Estimate]) -> list[str]:
    return [each.signed if name.startswith("Δ") else str(each) for name, each in change.items()]


def closer_to_real(change: dict[str, Estimate]) -> str:
    """Holds if the spectrum and the features come closer to real pictures', in part if one does; not if anything that
    tells real pictures is worse for certain."""
    better = [change[name].below_zero for name in (SPECTRUM, KERNEL)]
    worse = [change[name].above_zero for name in (SPECTRUM, KERNEL)]
    worse += [change[name].below_zero for name in (TEXTURE, OBJECT)]
    return NOT_HERE if any(worse) else verdict(*better)


def reason(change: dict[str, Estimate]) -> str:
    return ", ".join(f"{name} {change[name].signed}" for name in (SPECTRUM, KERNEL, TEXTURE, OBJECT)) + "."
