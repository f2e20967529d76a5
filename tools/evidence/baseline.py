"""What the experiments compare with: the reference model with CFG alone."""

from functools import cache

from judge import Estimate, Judge, Judged, estimate
from laboratory import Laboratory, Size


def pictures(size: Size) -> int:
    return size.pairs


@cache
def baseline(laboratory: Laboratory, judge: Judge) -> Judged:
    """Of all pairs; an experiment takes the first so many."""
    return judge(laboratory.pictures(laboratory.model(), laboratory.size.pairs))


HEAD = [
    "spectrum distance, change",
    "log energy 1/8 to 1/4",
    "1/4 to 1/2 cycle/px",
    "layout correlation",
    "texture, change of log p",
    "object, change of log p",
]


def changes(judged: Judged, base: Judged) -> dict[str, Estimate]:
    """Paired changes against the baseline, by the names of HEAD."""
    values = [
        judged.distance - base.distance,
        (judged.bands - base.bands)[:, -2],
        (judged.bands - base.bands)[:, -1],
        judged.layout(base),
        judged.texture - base.texture,
        judged.object - base.object,
    ]
    return {name: estimate(value) for name, value in zip(HEAD, values, strict=True)}


def cells(change: dict[str, Estimate]) -> list[str]:
    return [each.signed for each in change.values()]
