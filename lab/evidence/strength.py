"""8. Whether a strength measured against the prediction means the same in every model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from finding import BLUE, ORANGE, Finding, above, plain_numbers, plots, save, table
from judge import DRAWS, Estimate, Judge, Judged, estimate
from laboratory import CFG, Laboratory, Size, choosing
from massive_activations import channels
from weakened import disrupted, guided

TITLE = "8. A normalised strength"
SCALES = (0.25, 0.5)
STRENGTHS = (0.1, 0.2)


def pictures(size: Size) -> int:
    return 2 * (len(SCALES) + len(STRENGTHS) + 1) * size.few


@dataclass(frozen=True)
class Run:
    """
    Attributes:
        asked: ("scale" or "strength", its value).
        effect: perceptual distance from the same pair without guidance, (pairs,).
    """

    model: str
    asked: tuple[str, float]
    scale: float
    strength: float
    effect: np.ndarray
    energy: Estimate


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    models = [laboratory.deep, laboratory.shallow]
    runs = [each for name in models for each in _runs(laboratory, judge, name)]
    effects = {asked: np.array([r.effect for r in runs if r.asked == asked]) for asked in {r.asked for r in runs}}
    gain = log_gain([effects["scale", w] for w in SCALES], [effects["strength", s] for s in STRENGTHS])
    spreads = {asked: np.exp(_log_spread(each.mean(axis=1))) for asked, each in effects.items()}
    missed = max(abs(r.strength / r.asked[1] - 1) for r in runs if r.asked[0] == "strength")
    verdicts = {
        "Equal strength is a more equal effect than equal scale": (
            above(gain, 0.0),
            "Between the two models the larger effect is "
            + ", ".join(f"{spreads['scale', w]:.2f} (w = {w:g})" for w in SCALES)
            + " times the smallest at equal scale, "
            + ", ".join(f"{spreads['strength', s]:.2f} ({s:g})" for s in STRENGTHS)
            + f" times at equal strength; the mean log ratio of the two is {gain.signed} (positive: strength is more "
            "equal).",
        )
    }
    head = ["model", "asked for", "scale w", "strength ‖w(c − d)‖ / ‖x − c‖", "perceptual distance"]
    rows = [
        [
            r.model,
            f"{r.asked[0]} {r.asked[1]:g}",
            f"{r.scale:.3g}",
            f"{r.strength:.3f}",
            f"{estimate(r.effect)}",
            r.energy.signed,
        ]
        for r in runs
    ]
    return Finding(
        TITLE,
        "open: w means different things in different models; adaptive strength is named as the main practical gap.",
        f"The two models, {laboratory.size.few} pairs each at cfg {CFG:g}, the default layer: the effect is the "
        "perceptual distance of each picture from the same pair's without guidance, at equal scales, and at those that "
        f"should make the mean strength equal (found by proportion; missed by at most {missed:.0%}). Every run of "
        "this pack reports its strength (*relative strength*), and the option `limit` caps it.",
        verdicts,
        [table([*head, "Δ log energy 1/4 to 1/2 cycle/px"], rows)],
        [_draw(runs, folder)],
    )


def _runs(laboratory: Laboratory, judge: Judge, name: str) -> list[Run]:
    model, pairs = laboratory.model(name), choosing(laboratory.size.few)
    block = laboratory.block(name)
    weaken = disrupted({block: channels(laboratory, name)[block]})

    def sampled(model: Any) -> Judged:
        return judge.sampled(model, pairs, name=name)

    base = sampled(model)

    def guided_by(asked: tuple[str, float], scale: float) -> Run:
        strengths: list[float] = []
        judged = sampled(guided(model, weaken, scale, strengths))
        energy = estimate((judged.bands - base.bands)[:, -1])
        return Run(name, asked, scale, float(np.mean(strengths)), judged.unlike(base), energy)

    runs = [guided_by(("scale", scale), scale) for scale in SCALES]
    per_scale = runs[0].strength / runs[0].scale
    return runs + [guided_by(("strength", strength), strength / per_scale) for strength in STRENGTHS]


def log_gain(by_scale: list[np.ndarray], by_strength: list[np.ndarray]) -> Estimate:
    """How much more equal effects (models, pairs) are at equal strength: mean log spread at equal scale minus that at
    equal strength, by bootstrap over pairs."""

    def gain(drawn: np.ndarray) -> float:
        spreads = [[_log_spread(e[:, drawn].mean(axis=1)) for e in each] for each in (by_scale, by_strength)]
        return float(np.mean(spreads[0]) - np.mean(spreads[1]))

    pairs = by_scale[0].shape[1]
    numbers = np.random.default_rng(0)
    draws = [gain(numbers.integers(pairs, size=pairs)) for _ in range(DRAWS)]
    return Estimate(gain(np.arange(pairs)), *np.percentile(draws, [2.5, 97.5]))


def _log_spread(values: np.ndarray) -> float:
    return float(np.log(values.max() / values.min()))


def _draw(runs: list[Run], folder: Path) -> str:
    figure, (axes,) = plots(2, height=3.2)
    for name, colour, marker in zip(dict.fromkeys(r.model for r in runs), (BLUE, ORANGE), "so", strict=True):
        own = [each for each in runs if each.model == name]
        effects = [each.effect.mean() for each in own]
        style = {"color": colour, "marker": marker, "linestyle": "", "label": name.replace("x", " × ")}
        axes[0].plot([each.scale for each in own], effects, **style)
        axes[1].plot([each.strength for each in own], effects, **style)
    for axis, label in zip(axes, ("scale w", "strength ‖w(c − d)‖ / ‖x − c‖"), strict=True):
        axis.set(xlabel=label, xscale="log", yscale="log")
        plain_numbers(axis.xaxis)
        plain_numbers(axis.yaxis)
    axes[0].set_ylabel("perceptual distance")
    axes[1].legend(fontsize=9, frameon=False)
    return save(figure, folder, "8-strength.png")
