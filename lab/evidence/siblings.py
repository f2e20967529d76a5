"""10. What depth, stochastic depth, the optimiser and luck do."""

import json
from collections.abc import Callable
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import paths
import scipy.stats
from disrupted_model import KEPT, LEAST
from finding import (
    COLOURS,
    CONTRADICTED,
    HOLDS,
    INCONCLUSIVE,
    MEASURED,
    Finding,
    above,
    all_of,
    falls,
    in_every,
    plots,
    save,
    table,
    verdict,
)
from judge import Estimate
from laboratory import FULL, Laboratory, Size

TITLE = "10. Depth, stochastic depth, optimiser, seed"
SEEDS = 3
SIGNIFICANT = 0.05
WITH_CFG, LATE, WITHOUT = EFFECTS = ("CFG", "CFG, last third", "no CFG")
Recipe = tuple[int, float, str]  # blocks, stochastic depth, optimiser; widths and lengths may differ
NO_SKIP = "10 blocks without stochastic depth"
DEEP: dict[str, Recipe] = {
    NO_SKIP: (10, 0.0, "adamw"),
    "10 blocks with stochastic depth": (10, 0.15, "adamw"),
}


def pictures(size: Size) -> int:
    return 0


def run(laboratory: Laboratory, judge: object, folder: Path) -> Finding:
    measured = sorted(
        json.loads((paths.TRAINING / "siblings.json").read_text()),
        key=lambda each: (-each["blocks"], -each["width"], each["optimiser"], -each["skip"], each["seed"]),
    )
    threshold = laboratory.default("DetailGuidanceOptions", "massive_ratio")
    verdicts = {
        f"{name}, {effect}: Detail Guidance helps in every training": _in_every_training(_of(measured, name), effect)
        for name in DEEP
        for effect in EFFECTS
    }
    head = ["blocks × width", "stochastic depth", "optimiser", "seed", "steps", "loss", "massive channel"]
    head += ["D_m at block", "its error", "Δ log fine energy", "layout"]
    head += ["CFG: spectrum distance", "log energy", "chosen", "Δ with DG", "Δ in the last third"]
    head += ["no CFG: spectrum distance", "log energy", "chosen", "Δ with DG"]
    return Finding(
        TITLE,
        "on language models Adam makes massive activations and Muon does not (arXiv 2506.19697).",
        "once, by `lab/evidence/measure_training.py`, whose figures are committed in `siblings.json`: the "
        "siblings' weights are not. *Loss*: the training's own, in which stochastic depth passes blocks by. *Massive "
        "channel*: the largest over the median at the last block's input. *D_m*: with the massive channels zeroed at "
        "the default layer (the largest one, where none is massive), on noised real pictures at σ 0.7 and 0.5 as in "
        "section 3: squared error over the undisturbed prediction's, fine energy and layout. *Δ with DG*: at the block "
        f"and scale that {FULL.few} choosing pairs chose, on section 4's {FULL.primary} judging pairs, those "
        "channels listed. *Log energy*: mean over octaves of the same pictures' log energy minus real "
        "pictures', without Detail Guidance → with it. Whether it orders the effects was asked when the effects of all "
        "trainings but four had been seen, and their energies had not, but for the committed model's (section 4); "
        "whether D_m's error does, when the last one's alone, 10 blocks with Muon, had not been measured. That "
        f"three seeds are asked of {NO_SKIP} was fixed when seed 1 had been measured, and seeds 2 and 3 had not. Those "
        "with it are the committed model, which had it in its later part, and a narrower one.",
        {
            **verdicts,
            "Detail Guidance helps the more, the more energy a training's pictures lack": _in_order(
                measured, "log energy without Detail Guidance", lambda each, effect: each["effects"][effect]["energy"]
            ),
            "Detail Guidance helps the less, the more wrong a training's D_m is": _in_order(
                measured, "D_m's error", lambda each, effect: each["disrupted"]["error"][0]
            ),
            **_disrupted(measured),
            "AdamW makes massive activations and Muon does not": _by_optimiser(measured, threshold),
            "What stochastic depth does": _by_stochastic_depth(measured),
        },
        [table(head, [_row(each) for each in measured])],
        [_draw(measured, folder)],
    )


def _of(measured: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [each for each in measured if (each["blocks"], each["skip"], each["optimiser"]) == DEEP[name]]


def _change(sibling: dict[str, Any], effect: str) -> Estimate:
    return Estimate(*sibling["effects"][effect]["change"])


def _in_every_training(deep: list[dict[str, Any]], effect: str) -> tuple[str, str]:
    """One that is certainly taken further away contradicts; to hold it takes several."""
    changes = [_change(each, effect) for each in deep]
    closer, further = (sum(c.below_zero for c in changes), sum(c.above_zero for c in changes))
    outcome = in_every([falls(change, 0.0) for change in changes])
    told = "; ".join(f"{_name(each)} {change.signed}" for each, change in zip(deep, changes, strict=True))
    return (
        outcome if len(deep) >= SEEDS or outcome == CONTRADICTED else INCONCLUSIVE,
        f"Δ spectrum distance: {told}. Of {len(deep)}, for certain closer {closer}, further away {further}; to hold, "
        f"{SEEDS} are needed.",
    )


def _in_order(
    measured: list[dict[str, Any]], name: str, value: Callable[[dict[str, Any], str], float]
) -> tuple[str, str]:
    """Whether a value of a training, which may be another in each setting, orders its effects: a larger one, less."""
    outcomes, told = [], []
    for effect in EFFECTS:
        values = [value(each, effect) for each in measured]
        changes = [_change(each, effect).mean for each in measured]
        order = scipy.stats.kendalltau(values, changes)  # exact for as few
        certain = order.pvalue < SIGNIFICANT / len(EFFECTS)
        outcomes.append(INCONCLUSIVE if not certain else HOLDS if order.statistic > 0 else CONTRADICTED)
        told.append(f"{effect} {order.statistic:+.2f} (p {order.pvalue:.2g})")
    return (
        all_of(*outcomes),
        f"Rank correlation (Kendall's τ) over {len(measured)} trainings of {name} and Δ, two-sided: {'; '.join(told)} "
        f"(holds: positive, p below {SIGNIFICANT:g} over the number of settings).",
    )


def _disrupted(measured: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    """Section 3's claims, by its rules."""
    of = {name: [Estimate(*each["disrupted"][name]) for each in measured] for name in ("error", "energy", "layout")}
    return {
        "In every training D_m is the worse prediction": (
            in_every([above(each, 1.0) for each in of["error"]]),
            f"{_between([each.mean for each in of['error']])} times the undisturbed one's squared error (holds: "
            "certainly more than 1).",
        ),
        "In every training D_m has less fine detail": (
            in_every([falls(each, LEAST) for each in of["energy"]]),
            f"Log ratio of fine energy {_between([each.mean for each in of['energy']])} (holds: −{LEAST:g} or less).",
        ),
        "In every training D_m keeps the layout": (
            in_every([above(each, KEPT) for each in of["layout"]]),
            f"Correlation {_between([each.mean for each in of['layout']])} (holds: certainly above {KEPT:g}).",
        ),
    }


def _between(values: list[float]) -> str:
    return f"{min(values):.3g} to {max(values):.3g}"


def _name(sibling: dict[str, Any]) -> str:
    return "width {width}, seed {seed}, {steps} steps".format(**sibling)


def _alike(measured: list[dict[str, Any]], but: str) -> list[list[dict[str, Any]]]:
    """Trainings that differ in one thing only."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for each in measured:
        key = tuple(each[name] for name in ("blocks", "width", "skip", "optimiser", "seed", "steps") if name != but)
        groups.setdefault(key, []).append(each)
    return [group for group in groups.values() if len(group) > 1]


def _by_optimiser(measured: list[dict[str, Any]], threshold: float) -> tuple[str, str]:
    pairs = [{each["optimiser"]: each for each in group} for group in _alike(measured, "optimiser")]
    told = "; ".join(
        f"{pair['adamw']['blocks']} × {pair['adamw']['width']}, stochastic depth {pair['adamw']['skip']:g}: AdamW "
        f"{pair['adamw']['ratio']:.1f}×, Muon {pair['muon']['ratio']:.1f}×"
        for pair in pairs
    )
    holds = [pair["adamw"]["ratio"] > threshold > pair["muon"]["ratio"] for pair in pairs]
    return (
        verdict(*holds) if pairs else INCONCLUSIVE,
        f"The largest channel of the last block's input, by the same recipe and seed: {told} (holds: above and below "
        f"{threshold:g}×, in every pair).",
    )


def _by_stochastic_depth(measured: list[dict[str, Any]]) -> tuple[str, str]:
    told = []
    pairs = [pair for group in _alike(measured, "skip") for pair in pairwise(sorted(group, key=itemgetter("skip")))]
    for without, with_it in pairs:
        told.append(
            f"{without['blocks']} × {without['width']}, {without['optimiser']}: the massive channel "
            f"{without['ratio']:.1f}× → {with_it['ratio']:.1f}×, D_m's error {without['disrupted']['error'][0]:.2f} → "
            f"{with_it['disrupted']['error'][0]:.2f}, its layout {without['disrupted']['layout'][0]:.3f} → "
            f"{with_it['disrupted']['layout'][0]:.3f}, "
            + ", ".join(f"Δ ({e}) {_change(without, e).signed} → {_change(with_it, e).signed}" for e in EFFECTS)
        )
    if not told:
        return INCONCLUSIVE, "No two trainings differ in it alone."
    seeds = _of(measured, NO_SKIP)
    return (
        MEASURED,
        f"From less of it to more: {'; '.join(told)}. One seed; over the seeds of {NO_SKIP} alone the channel is "
        f"{_between([each['ratio'] for each in seeds])}×, D_m's error "
        f"{_between([each['disrupted']['error'][0] for each in seeds])}, Δ (CFG) "
        f"{_between([_change(each, WITH_CFG).mean for each in seeds])}.",
    )


def _row(each: dict[str, Any]) -> list[Any]:
    disrupted = each["disrupted"]
    with_cfg, without = each["effects"][WITH_CFG], each["effects"][WITHOUT]
    return [
        f"{each['blocks']} × {each['width']}",
        each["skip"],
        each["optimiser"],
        each["seed"],
        each["steps"],
        each["loss"] or "not recorded",
        f"{each['ratio']:.1f}×",
        disrupted["block"],
        f"{Estimate(*disrupted['error'])}",
        Estimate(*disrupted["energy"]).signed,
        f"{Estimate(*disrupted['layout'])}",
        f"{with_cfg['distance']:.3f}",
        _energy(with_cfg),
        "block {block}, w {w:g}".format(**with_cfg),
        _change(each, WITH_CFG).signed,
        _change(each, LATE).signed,
        f"{without['distance']:.3f}",
        _energy(without),
        "block {block}, w {w:g}".format(**without),
        _change(each, WITHOUT).signed,
    ]


def _energy(effect: dict[str, Any]) -> str:
    return f"{effect['energy']:+.2f} → {effect['energy with it']:+.2f}"


def _draw(measured: list[dict[str, Any]], folder: Path) -> str:
    figure, (axes,) = plots(1, height=2.6)
    for number, (colour, effect) in enumerate(zip(COLOURS, EFFECTS, strict=False)):
        changes = [_change(each, effect) for each in measured]
        middles = np.array([each.mean for each in changes])
        errors = np.abs(np.array([[each.low for each in changes], [each.high for each in changes]]) - middles)
        places = np.arange(len(measured)) + 0.15 * (number - 1)
        axes[0].errorbar(places, middles, errors, color=colour, marker="o", linestyle="", capsize=3, label=effect)
    labels = [f"{e['blocks']} × {e['width']}\n{e['optimiser']}\nskip {e['skip']:g}\nseed {e['seed']}" for e in measured]
    axes[0].set_xticks(range(len(measured)), labels, fontsize=8)
    axes[0].axhline(0, color="black", linewidth=0.8)
    axes[0].set_ylabel("Δ spectrum distance with DG")
    axes[0].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return save(figure, folder, "10-siblings.png")
