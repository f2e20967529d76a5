"""Which layer and which scale is best: what a grid of pictures says.

Only pictures that were sampled count. A figure that needs none and predicts the same was not found: see the evidence,
its part on what predicts the effect.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from . import metrics

KEEPS_LAYOUT = 0.9  # median correlation with the pictures without; the authors' own pairs keep 0.995 with CFG
WORTHWHILE = 0.05  # of the distance without it: the least gain that is worth its cost
NOTHING = 1e-4  # relative strength below which nothing was disrupted but by rounding
FEWEST = 8  # pictures: four to choose by, four to judge by

Verdict = Literal[
    "helps", "does not help", "cannot be told", "keeps the layout", "breaks the layout", "nothing to judge"
]


@dataclass(frozen=True)
class Interval:
    """A mean over pictures and its 95 % confidence interval, by Student's t."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "Interval":
        """The interval of the mean of (n ≥ 2,) values."""
        half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
        return cls(float(values.mean()), float(values.mean() - half), float(values.mean() + half))

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} … {self.high:+.3f})"


@dataclass(frozen=True)
class Cell:
    """The pictures of one layer and one scale, beside those without Detail Guidance from the same noise.

    Attributes:
        layer: fraction of the depth.
        block: number of the block that the layer names.
        strength: relative, as the run reports it; None where no second prediction tells it.
        seconds: per picture.
        layout: correlation of each picture's layout with the one without, (n,).
        energy: spectral energy over the one without, in each of `metrics.OCTAVES`, (n, octaves).
        gain: how much nearer each is to reference pictures, as spectrum distance; None without any.
        likeness: how much more its features are like theirs, as cosine; or how much more a second judge likes it, which
            must not like it less; None without any.
        variant: what else differs from other cells of the grid, in words.
    """

    layer: float
    block: int
    scale: float
    strength: float | None
    seconds: float
    layout: np.ndarray
    energy: np.ndarray
    gain: np.ndarray | None
    likeness: np.ndarray | None
    variant: str = ""

    @property
    def keeps_layout(self) -> bool:
        return float(np.median(self.layout)) >= KEEPS_LAYOUT

    @property
    def chosen_by(self) -> Interval:
        """The gain on the pictures that choose: every second one. Only with references."""
        assert self.gain is not None
        return Interval.of(self.gain[::2])

    @property
    def judged_by(self) -> Interval:
        """The gain on the others."""
        assert self.gain is not None
        return Interval.of(self.gain[1::2])

    @property
    def less_alike(self) -> bool:
        """Whether the pictures that judge are, for certain, less like the references by their features."""
        return self.likeness is not None and Interval.of(self.likeness[1::2]).high < 0


def measured(
    layer: float,
    block: int,
    scale: float,
    strength: float | None,
    seconds: float,
    pictures: np.ndarray,
    without: np.ndarray,
    references: Sequence[np.ndarray] | None,
    likeness: np.ndarray | None,
    variant: str = "",
) -> Cell:
    """The figures of one cell.

    Args:
        pictures, without: (n, height, width, 3), 0 to 1, with and without Detail Guidance.
        references: for each picture, the mean of its real pictures' log spectra.
        likeness, variant: as of `Cell`.
    """
    pairs = list(zip(pictures, without, strict=True))
    octaves = [[metrics.energy_in_octaves(each) + metrics.TINY for each in pair] for pair in pairs]
    gain = None if references is None else distances(without, references) - distances(pictures, references)
    return Cell(
        layer, block, scale, strength, seconds,
        layout=np.array([metrics.low_pass_correlation(*pair) for pair in pairs]),
        energy=np.array([one / other for one, other in octaves]),
        gain=gain,
        likeness=likeness,
        variant=variant,
    )  # fmt: skip


def mean_log_spectrum(pictures: np.ndarray) -> np.ndarray:
    """Mean of the log spectra of real pictures (n, height, width, 3), from which `distances` are taken."""
    return np.mean([metrics.log_spectrum(picture) for picture in pictures], axis=0)


def distances(pictures: np.ndarray, references: Sequence[np.ndarray]) -> np.ndarray:
    """Spectrum distance of each picture from its own reference, (n,)."""
    return np.array([metrics.spectrum_distance(*pair) for pair in zip(pictures, references, strict=True)])


@dataclass(frozen=True)
class Recommendation:
    """What a calibration recommends.

    Attributes:
        cell: the recommended cell; None where that is no Detail Guidance at all.
        why: in words, with figures.
    """

    verdict: Verdict
    cell: Cell | None
    why: str


NOTHING_TO_JUDGE = Recommendation(
    "nothing to judge",
    None,
    "Nothing was disrupted at any of the layers, or what came out are no finite numbers: see the warnings.",
)


def recommended(cells: Sequence[Cell], distance: float | None, usual_layer: float) -> Recommendation:
    """With reference pictures: the cell that brings half of the pictures closer to them most surely, if the other half
    agrees. Without: no more than how far one can go.

    Args:
        cells: one or more.
        distance: mean distance of the pictures without Detail Guidance from the references; None without references.
        usual_layer: where to stand without references.
    """
    seen = _disrupted(cells)
    if not seen:
        return NOTHING_TO_JUDGE
    if distance is None:
        return _within_the_layout(seen, usual_layer)
    worth = WORTHWHILE * distance
    return _by_the_other_half(
        seen,
        worth,
        lambda judged: f"they come nearer to the reference pictures by {judged} of {distance:.3f}",
        f"{worth:.3f} would be worth it.",
        "Their features are less alike.",
    )


def recommended_by_scores(cells: Sequence[Cell]) -> Recommendation:
    """The cell whose pictures score highest most surely on one half, if the other half agrees.

    Args:
        cells: one or more; their gain is how much higher each picture scores than the same one without.
    """
    seen = _disrupted(cells)
    if not seen:
        return NOTHING_TO_JUDGE
    return _by_the_other_half(
        seen, 0.0, lambda judged: f"they score higher by {judged}", "Without it they score higher.", "The guard falls."
    )


def _disrupted(cells: Sequence[Cell]) -> list[Cell]:
    seen = [c for c in cells if (c.strength is None and (c.energy != 1).any()) or (c.strength or 0) > NOTHING]
    return [cell for cell in seen if np.isfinite(cell.layout).all()]


def _by_the_other_half(
    cells: Sequence[Cell], worth: float, gained: Callable[[Interval], str], less: str, less_alike: str
) -> Recommendation:
    """The verdict on the cell with the surest gain on the pictures that choose, by those that judge.

    Args:
        worth: the least gain that is worth its cost.
        gained: says a gain in words.
        less, less_alike: why a gain below that, or a likeness that falls, does not help.
    """
    best = max(cells, key=lambda cell: cell.chosen_by.low)  # the surest gain: the largest mean is often luck
    judged, variant = best.judged_by, f"{best.variant}, " if best.variant else ""
    figures = (
        f"{variant}layer {best.layer:g}, scale {best.scale:g} was the surest gain on one half of the pictures; on the "
        f"other half {gained(judged)}, and their layout is kept to a correlation of {np.median(best.layout):.2f}"
    )
    not_helping = f"Detail Guidance does not help this model with these pictures: {figures}."
    if judged.high < worth:
        return Recommendation("does not help", None, f"{not_helping} {less}")
    if best.less_alike:
        return Recommendation("does not help", None, f"{not_helping} {less_alike}")
    if judged.low > 0:
        return Recommendation("helps", best, f"Detail Guidance helps this model with these pictures: {figures}.")
    why = f"Whether Detail Guidance helps cannot be told from so few pictures: {figures}. Sample more."
    return Recommendation("cannot be told", None, why)


def _within_the_layout(cells: Sequence[Cell], usual_layer: float) -> Recommendation:
    layer = min((cell.layer for cell in cells), key=lambda layer: abs(layer - usual_layer))
    kept = [cell for cell in cells if cell.layer == layer and cell.keeps_layout]
    unknown = "Whether it helps, only reference pictures or your eyes can tell."
    if not kept:
        why = f"At layer {layer:g} every scale that was tried changes the layout (correlation below {KEEPS_LAYOUT:g})."
        return Recommendation("breaks the layout", None, f"{why} Try smaller ones. {unknown}")
    most = max(kept, key=lambda cell: cell.scale)
    why = (
        f"At layer {layer:g} pictures keep their layout up to scale {most.scale:g}, of those that were tried: median "
        f"correlation {np.median(most.layout):.3f}, at least {KEEPS_LAYOUT:g} is kept. {unknown}"
    )
    return Recommendation("keeps the layout", most, why)


def rows(cells: Sequence[Cell]) -> list[dict[str, str]]:
    """A line of figures for each cell: medians over pictures, gains with intervals."""
    variants = any(cell.variant for cell in cells)
    return [({"variant": cell.variant} if variants else {}) | _row(cell) for cell in cells]


def _row(cell: Cell) -> dict[str, str]:
    octaves = zip(metrics.OCTAVES, np.median(cell.energy, axis=0), strict=True)
    row = {
        "layer": f"{cell.layer:g}",
        "block": str(cell.block),
        "scale": f"{cell.scale:g}",
        "strength": "" if cell.strength is None else f"{cell.strength:.3f}",
        "layout": f"{np.median(cell.layout):.3f}",
        **{f"energy {1 / low:g}–{1 / high:g} px": f"{value:.2f}" for (low, high), value in octaves},
    }
    if cell.gain is not None:
        row |= {"gain, choosing": str(cell.chosen_by), "gain, judging": str(cell.judged_by)}
    if cell.likeness is not None:
        row["features more alike, judging"] = str(Interval.of(cell.likeness[1::2]))
    return row | {"seconds per picture": f"{cell.seconds:.2f}"}


def as_list(cells: Sequence[Cell]) -> str:
    """A line for each cell, as text: nodes that show text do not draw tables."""
    return "\n".join("- " + ", ".join(f"{name} {value}" for name, value in row.items()) for row in rows(cells))


def as_csv(cells: Sequence[Cell]) -> str:
    head, *_ = table = rows(cells)
    file = io.StringIO()
    writer = csv.DictWriter(file, list(head), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return file.getvalue()
