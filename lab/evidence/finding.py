"""What an experiment hands to the page, and how tables and figures look there."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's palette, which everyone can tell apart.
ORANGE, BLUE, GREEN, RED, GREY = "#e69f00", "#0072b2", "#009e73", "#d55e00", "#999999"
COLOURS = (ORANGE, BLUE, GREEN, RED, "#cc79a7", "#56b4e9", "#f0e442", GREY, "#000000")

HOLDS, IN_PART, CONTRADICTED = "holds", "holds in part", "contradicted"
INCONCLUSIVE, NOT_TESTABLE, MEASURED = "inconclusive", "not testable here", "measured"


@dataclass(frozen=True)
class Finding:
    """A claim and what became of it.

    Attributes:
        source: what the sources say.
        method: what was measured, on what.
        verdicts: part of the claim → verdict and its reason in figures.
        tables: Markdown.
        figures: file names.
    """

    title: str
    source: str
    method: str
    verdicts: dict[str, tuple[str, str]]
    tables: list[str]
    figures: list[str] = field(default_factory=list)

    @property
    def told(self) -> str:
        """On the terminal."""
        verdicts = [f"  {claim}: {verdict}. {why}" for claim, (verdict, why) in self.verdicts.items()]
        return "\n".join([self.title, *verdicts])

    def __str__(self) -> str:
        verdicts = [f"- **{claim}: {verdict}.** {why}" for claim, (verdict, why) in self.verdicts.items()]
        figures = [f"![{self.title}](evidence/{name})" for name in self.figures]
        source, method = f"*The sources say:* {self.source}", f"*Measured:* {self.method}"
        return "\n\n".join([f"## {self.title}", source, method, "\n".join(verdicts), *self.tables, *figures])


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def verdict(*holds: bool) -> str:
    """Of a claim whose parts are facts about this model, seen without doubt."""
    return HOLDS if all(holds) else IN_PART if any(holds) else CONTRADICTED


def all_of(*outcomes: str) -> str:
    """Of a claim with parts of which each has an outcome of its own."""
    if all(outcome == HOLDS for outcome in outcomes):
        return HOLDS
    if any(outcome in (HOLDS, IN_PART) for outcome in outcomes):
        return IN_PART
    return CONTRADICTED if all(outcome == CONTRADICTED for outcome in outcomes) else INCONCLUSIVE


def in_every(outcomes: Sequence[str]) -> str:
    """Of a claim about each of several, which one counter-example contradicts."""
    return CONTRADICTED if CONTRADICTED in outcomes else all_of(*outcomes)


def above(found: Any, threshold: float) -> str:
    """Of a claim that something is more than a threshold."""
    return HOLDS if found.low > threshold else CONTRADICTED if found.high < threshold else INCONCLUSIVE


def falls(change: Any, least: float) -> str:
    """Of a claim that something falls, by its change with an interval and the smallest effect worth reporting (≥ 0).

    A change that is certainly smaller than that, or a rise, contradicts the claim; a wide interval is inconclusive.
    """
    if change.high < 0:
        return HOLDS if change.mean <= -least else IN_PART
    if change.low > -least:
        return CONTRADICTED
    return INCONCLUSIVE


def plots(columns: int, rows: int = 1, height: float = 3.2) -> tuple[Any, np.ndarray]:
    figure, axes = plt.subplots(rows, columns, figsize=(9.6, height * rows), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def plain_numbers(axis: Any) -> None:
    """Of a logarithmic axis (`axes.xaxis`): 0.05 and not 5 × 10⁻²."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def save(figure: Any, folder: Path, name: str) -> str:
    figure.savefig(folder / name, dpi=100, bbox_inches="tight")  # long labels would be cut
    plt.close(figure)
    with Image.open(folder / name) as drawn:  # a third of the size, and no difference to the eye
        drawn.convert("RGB").quantize(256).save(folder / name, optimize=True)
    return name


def strips(rows: dict[str, np.ndarray], folder: Path, name: str, columns: int = 9) -> str:
    """Rows of pictures, each row with its label."""
    figure, axes = plt.subplots(len(rows), 1, figsize=(9.6, 0.92 * len(rows)), layout="constrained", squeeze=False)
    for axis, (label, pictures) in zip(axes[:, 0], rows.items(), strict=True):
        axis.imshow(np.hstack(list(pictures[:columns])).clip(0, 1), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    return save(figure, folder, name)
