"""4. Whether guidance away from the disrupted prediction makes pictures more like real ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from baseline import HEAD, SPECTRUM, baseline, cells, changes, closer_to_real, reason
from finding import COLOURS, Finding, plain_numbers, plots, save, strips, table, verdict
from judge import DIMENSIONS, Judge, Judged, estimate
from laboratory import CFG, DEPTH, Laboratory, Size
from massive_activations import channels
from rooms import metrics
from weakened import Weakening, disrupted, guided, skipping, with_blurred_condition

TITLE = "4. Detail Guidance makes detail more like real pictures', with and without CFG"
MEASURED = 16  # pairs on which the strengths are made equal
HIGHER = CFG + 1
SAMPLED = 7  # arms, without the baseline


def pictures(size: Size) -> int:
    return 3 * min(MEASURED, size.few) + SAMPLED * size.pairs


@dataclass(frozen=True)
class Arm:
    """One way to sample.

    Attributes:
        forwards: of the whole model, per picture and step of a run of the usual number of steps.
        strength: mean share of the guidance term in the model's own update; NaN where there is none.
    """

    name: str
    forwards: float
    judged: Judged
    strength: float = np.nan


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    model, count, steps = laboratory.model(), laboratory.size.pairs, laboratory.size.steps
    scale = laboratory.default("DetailGuidance", "dg_scale")
    block = laboratory.default_block()
    partial = (DEPTH - block) / DEPTH
    more_steps = round(steps * (2 + partial) / 2)  # as many forwards as CFG with Detail Guidance takes
    weaken: Weakening = disrupted({block: channels(laboratory)[block]})
    strength = _strength(laboratory, weaken, scale)

    def sampled(each: Any, **arguments: Any) -> Judged:
        return judge(laboratory.pictures(each, count, **arguments))

    def other(name: str, forwards: float, weaken: Weakening) -> Arm:
        """Another weaker prediction, with the scale at which its term is as large as Detail Guidance's."""
        its_scale = scale * strength / _strength(laboratory, weaken, scale)
        reached: list[float] = []
        judged = sampled(guided(model, weaken, its_scale, reached))
        return Arm(f"CFG {CFG:g} + {name}, {its_scale:.2g}", forwards, judged, float(np.mean(reached)))

    alone = Arm("conditional alone", 1, sampled(model, cfg=1.0))
    detail_alone = Arm(f"DG, w {scale:g}", 1 + partial, sampled(laboratory.detail_guidance(), cfg=1.0))
    cfg = Arm(f"CFG {CFG:g}", 2, baseline(laboratory, judge))
    detail = Arm(f"CFG {CFG:g} + DG, w {scale:g}", 2 + partial, sampled(laboratory.detail_guidance()), strength)
    others = [
        other(f"skipped block {block}", 3 - 1 / DEPTH, skipping([block])),
        other("blurred condition", 3, with_blurred_condition),
        Arm(f"CFG {CFG:g}, {more_steps} steps", 2 * more_steps / steps, sampled(model, steps=more_steps)),
        Arm(
            f"CFG {HIGHER:g}, {more_steps} steps",
            2 * more_steps / steps,
            sampled(model, cfg=HIGHER, steps=more_steps),
        ),
    ]
    real = Arm("other real pictures", np.nan, judge(judge.other_reals(count)))
    arms = [alone, detail_alone, cfg, detail, *others]
    against = {detail_alone.name: alone, **{each.name: cfg for each in (detail, *others)}}
    compared = {arm.name: changes(judge, arm.judged, against[arm.name].judged) for arm in arms if arm.name in against}
    ahead = {arm.name: estimate(detail.judged.distance - arm.judged.distance) for arm in others}
    verdicts = {
        "Without CFG": (closer_to_real(compared[detail_alone.name]), reason(compared[detail_alone.name])),
        "With CFG": (closer_to_real(compared[detail.name]), reason(compared[detail.name])),
        "Closer to real than other guidance of equal strength or cost": (
            verdict(*(each.below_zero for each in ahead.values())),
            f"{SPECTRUM} from each of them to CFG + DG: "
            + "; ".join(f"{name} {each.signed}" for name, each in ahead.items())
            + ".",
        ),
    }
    absolute = ["setting", "forwards", "strength", "spectrum distance", "Fréchet distance", "right: texture", "object"]
    return Finding(
        TITLE,
        "DG raises SD3's HPSv2.1 from 21.84 to 28.65 without CFG and from 28.23 to 29.87 with it; on SD3, CFG + DG is "
        "ahead of CFG, CFG-Zero, FA-CFG and PAG ([DG], tables).",
        f"{count} prompt–seed pairs, {steps} Euler steps. DG is this pack's node at its defaults. The skipped block "
        "(as by SkipLayerGuidanceDiT) and the blurred condition (every word replaced by the mean over the prompt's "
        "words and padding; the pooled vector is that mean already) get the scale at which their term is as large "
        f"as DG's, measured on {min(MEASURED, count)} pairs; both cost more than DG. More steps make CFG cost what "
        f"CFG + DG costs. *Forwards* are per picture and step of a run of {steps}. The Fréchet distance is that of "
        f"{DIMENSIONS} principal components of the features; it is biased upwards for so few pictures, the row of "
        "other real pictures shows by how much. Changes (Δ) are against the same pairs with the same CFG and no "
        "other guidance.",
        verdicts,
        [
            table(absolute, [_absolute(judge, arm) for arm in (*arms, real)]),
            table(["setting", *HEAD], [[name, *cells(change)] for name, change in compared.items()]),
        ],
        [
            _bands([*arms, real], folder),
            strips({arm.name: arm.judged.pictures for arm in (*arms, real)}, folder, "4-guidance.png"),
        ],
    )


def _strength(laboratory: Laboratory, weaken: Weakening, scale: float) -> float:
    strengths: list[float] = []
    model = guided(laboratory.model(), weaken, scale, strengths)
    laboratory.latents(model, min(MEASURED, laboratory.size.few))
    return float(np.mean(strengths))


def _absolute(judge: Judge, arm: Arm) -> list[str]:
    judged = arm.judged
    cost, strength = (f"{value:.3g}" if np.isfinite(value) else "" for value in (arm.forwards, arm.strength))
    right = [estimate(each).percent for each in (judged.texture_right, judged.object_right)]
    return [arm.name, cost, strength, f"{estimate(judged.distance)}", f"{judge.frechet(judged):.0f}", *right]


def _bands(arms: list[Arm], folder: Path) -> str:
    figure, (axes,) = plots(1, height=4)
    middles = [np.sqrt(low * high) for low, high in metrics.OCTAVES]
    for colour, arm in zip(COLOURS, arms, strict=True):
        bands = [estimate(band) for band in arm.judged.bands.T]
        mean = np.array([band.mean for band in bands])
        errors = np.abs([[band.low for band in bands], [band.high for band in bands]] - mean)
        axes[0].errorbar(middles, mean, errors, color=colour, marker="o", markersize=4, capsize=2, label=arm.name)
    axes[0].axhline(0, color="black", linewidth=1)
    axes[0].set(xscale="log", xlabel="cycles per pixel", ylabel="log energy minus real pictures'")
    plain_numbers(axes[0].xaxis)
    axes[0].legend(fontsize=8, frameon=False)
    return save(figure, folder, "4-bands.png")
