"""10. What depth, stochastic depth, the optimiser and luck do."""

import json
from pathlib import Path

from finding import HOLDS, INCONCLUSIVE, ORANGE, Finding, all_of, falls, plots, save, table
from in_process import REFERENCE_MODEL
from judge import Estimate
from laboratory import Laboratory, Size

TITLE = "10. Depth, stochastic depth, optimiser, seed"
SEEDS = 3


def pictures(size: Size) -> int:
    return 0


def run(laboratory: Laboratory, judge: object, folder: Path) -> Finding:
    measured = json.loads((REFERENCE_MODEL / "siblings.json").read_text())
    rows = []
    for each in measured:
        effect = Estimate(*each["effect"])
        rows.append(
            [
                each["blocks"],
                each["width"],
                each["skip"],
                each["optimiser"],
                each["seed"],
                each["steps"],
                each["loss"] or "not recorded",
                f"{each['ratio']:.1f}×",
                f"block {each['block']}, w {each['w']:g}",
                f"{each['distance']:.3f}",
                effect.signed,
            ]
        )
    head = ["blocks", "width", "stochastic depth", "optimiser", "seed", "steps", "loss", "massive channel"]
    recipe = (*map(int, laboratory.deep.split("x")), 0.15, "adamw")
    alike = [each for each in measured if tuple(each[k] for k in ("blocks", "width", "skip", "optimiser")) == recipe]
    outcomes = [falls(Estimate(*each["effect"]), 0.0) for each in alike]
    return Finding(
        TITLE,
        "on language models Adam makes massive activations and Muon does not (arXiv 2506.19697).",
        "Measured once by `tools/evidence/measure_training.py`, whose figures are committed in `siblings.json`: the "
        "siblings' weights are not. Largest channel over the median at the last block's input; CFG 3, and CFG 3 + DG "
        "at the block and scale that choosing pairs chose, on as many judging pairs.",
        {
            "Detail Guidance with CFG helps on every seed of the deep model": (
                all_of(*outcomes) if len(alike) >= SEEDS else INCONCLUSIVE,
                f"For certain on {outcomes.count(HOLDS)} of {len(alike)} trained so far; {SEEDS} are needed.",
            )
        },
        [table([*head, "chosen", "CFG: spectrum distance", "Δ with DG"], rows)],
        [_draw(measured, folder)],
    )


def _draw(measured: list[dict], folder: Path) -> str:
    figure, (axes,) = plots(1, height=2.6)
    for number, each in enumerate(measured):
        mean, low, high = each["effect"]
        axes[0].errorbar([number], [mean], [[mean - low], [high - mean]], color=ORANGE, marker="o", capsize=3)
    labels = [f"{e['blocks']} × {e['width']}\n{e['optimiser']}, skip {e['skip']:g}\nseed {e['seed']}" for e in measured]
    axes[0].set_xticks(range(len(measured)), labels, fontsize=8)
    axes[0].axhline(0, color="black", linewidth=0.8)
    axes[0].set_ylabel("Δ spectrum distance with DG")
    return save(figure, folder, "10-siblings.png")
