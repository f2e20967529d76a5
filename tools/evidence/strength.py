"""7. Whether a strength measured against the prediction means the same in every model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from finding import BLUE, GREEN, ORANGE, Finding, plain_numbers, plots, save, table, verdict
from judge import Estimate, Judge, Judged, estimate
from laboratory import DEPTHS, Laboratory, Size
from massive_activations import channels
from weakened import disrupted, guided

TITLE = "7. A normalised strength"
SCALES = (0.25, 0.5)
STRENGTHS = (0.05, 0.1)


def pictures(size: Size) -> int:
    return len(DEPTHS) * (1 + len(SCALES) + len(STRENGTHS)) * size.few


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    count = laboratory.size.few
    rows = []
    effects: dict[tuple[str, float], list[Estimate]] = {}
    points: dict[int, list[tuple[float, float, Estimate]]] = {depth: [] for depth in DEPTHS}
    for depth in DEPTHS:
        model = laboratory.model(depth)
        layer = int(laboratory.default("DetailGuidance", "layer_start") * depth)
        weaken = disrupted({layer: channels(laboratory, depth)[layer]})
        base = judge(laboratory.pictures(model, count, depth=depth))

        def sampled(scale: float, model=model, weaken=weaken, depth=depth, base=base) -> tuple[float, Judged, Estimate]:
            strengths: list[float] = []
            judged = judge(laboratory.pictures(guided(model, weaken, scale, strengths), count, depth=depth))
            return float(np.mean(strengths)), judged, estimate(1 - judged.layout(base))

        per_scale = 0.0
        for scale in SCALES:
            strength, judged, effect = sampled(scale)
            per_scale = strength / scale
            effects.setdefault(("scale", scale), []).append(effect)
            points[depth].append((scale, strength, effect))
            rows.append(_row(depth, layer, scale, strength, effect, judged, base))
        for wanted in STRENGTHS:
            strength, judged, effect = sampled(wanted / per_scale)
            effects.setdefault(("strength", wanted), []).append(effect)
            points[depth].append((wanted / per_scale, strength, effect))
            rows.append(_row(depth, layer, wanted / per_scale, strength, effect, judged, base))
    spread = {key: _spread([each.mean for each in found]) for key, found in effects.items()}
    by_scale = float(np.mean([spread["scale", scale] for scale in SCALES]))
    by_strength = float(np.mean([spread["strength", strength] for strength in STRENGTHS]))
    verdicts = {
        "Equal strength is a more equal effect than equal scale": (
            verdict(by_strength < by_scale),
            f"Between {len(DEPTHS)} models the largest effect on the layout is {by_strength:.2f} times the smallest at "
            f"equal strength ({', '.join(f'{s:g}' for s in STRENGTHS)}) and {by_scale:.2f} times at equal scale "
            f"({', '.join(f'{s:g}' for s in SCALES)}).",
        )
    }
    head = ["depth", "block", "scale w", "strength ‖w(c − d)‖ / ‖c‖", "1 − layout correlation"]
    return Finding(
        TITLE,
        "open: w means different things in different models; adaptive strength is named as the main practical gap.",
        f"{len(DEPTHS)} models, {count} pairs each at cfg 3, the middle layer: the effect on the pictures, one minus "
        "the correlation of the layout with the same pair's without guidance, at equal scales, and at the scales "
        "that make the mean strength equal. Every run of this pack reports the strength it had "
        "(`relative_strength`), and the option `limit` caps it.",
        verdicts,
        [table([*head, "log energy 1/4 to 1/2 cycle/px"], rows)],
        [_draw(points, folder)],
    )


def _row(depth: int, layer: int, scale: float, strength: float, effect: Estimate, judged: Judged, base: Judged) -> list:
    energy = estimate((judged.bands - base.bands)[:, -1])
    return [depth, layer, f"{scale:.3g}", f"{strength:.3f}", f"{effect}", energy.signed]


def _spread(values: Sequence[float]) -> float:
    return max(values) / min(values)


def _draw(points: dict[int, list[tuple[float, float, Estimate]]], folder: Path) -> str:
    figure, (axes,) = plots(2, height=3.2)
    for (depth, seen), colour, marker in zip(points.items(), (GREEN, BLUE, ORANGE), "^so", strict=True):
        for axis, key in zip(axes, (0, 1), strict=True):
            x, mean = [point[key] for point in seen], [point[2].mean for point in seen]
            axis.plot(x, mean, color=colour, marker=marker, linestyle="", label=f"depth {depth}")
    for axis, label in zip(axes, ("scale w", "strength ‖w(c − d)‖ / ‖c‖"), strict=True):
        axis.set(xlabel=label, xscale="log", yscale="log")
        plain_numbers(axis.xaxis)
        plain_numbers(axis.yaxis)
    axes[0].set_ylabel("1 − layout correlation")
    axes[1].legend(fontsize=9, frameon=False)
    return save(figure, folder, "7-strength.png")
