"""9. Whether anything that needs no sampling says which layer and which scale will help."""

import math
from pathlib import Path

import numpy as np
import scipy.stats
from disrupted_model import SIGMAS, places, teacher_forced
from finding import BLUE, HOLDS, INCONCLUSIVE, NOT_TESTABLE, ORANGE, Finding, plots, save, table
from judge import DRAWS, Estimate, Judge
from laboratory import CFG, Laboratory, Size
from layer_and_scale import grid

CHANCE = 0.05
TITLE = "9. What predicts the effect without sampling"
# Fixed before anything was measured. Each is a figure of section 3, a mean over its noise levels; the sampled effect
# of a layer is that of the scale that suits it best.
CANDIDATES = {
    "error": "error of the disrupted prediction over the undisturbed one's",
    "energy": "fine energy of the disrupted prediction over the undisturbed one's",
    "layout": "correlation of their coarse parts",
    "cosine": "cosine of their difference with what CFG's prediction lacks",
    "strength": "‖c − d‖ / ‖x − c‖",
}


def pictures(size: Size) -> int:
    return 0


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    forced = teacher_forced(laboratory, laboratory.deep, places(laboratory, laboratory.deep))
    effects = {cfg: _effects(laboratory, judge, cfg) for cfg in (CFG, 1.0)}
    blocks = sorted(effects[CFG])
    values = {
        name: [
            float(np.mean([getattr(each, name).mean() for ((b, _), _), each in forced.items() if b == block]))
            for block in blocks
        ]
        for name in CANDIDATES
    }
    found = {
        (name, cfg): correlation(values[name], np.array([effects[cfg][block] for block in blocks]))
        for name in CANDIDATES
        for cfg in effects
    }
    # Of a perfect order, by chance, in either direction, among so many candidates (Bonferroni's).
    perfect = min(1.0, len(found) * 2 / math.factorial(len(blocks)))
    likely = [
        f"{CANDIDATES[name]}, cfg {cfg:g}" for (name, cfg), each in found.items() if math.isclose(abs(each.mean), 1.0)
    ]
    rows = [[text, *(found[name, cfg].signed for cfg in effects)] for name, text in CANDIDATES.items()]
    return Finding(
        TITLE,
        "open; guidance papers choose layers by sampling.",
        f"Rank correlation over the {len(blocks)} blocks of section 7 of each candidate, by noised real pictures at σ "
        f"{', '.join(f'{sigma:g}' for sigma in SIGMAS)}, with the sampled change of the spectrum distance (the best of "
        "the scales; negative is better). The intervals are a bootstrap over pairs of the sampled change.",
        {
            "Some figure orders the layers as sampling does": (
                NOT_TESTABLE if perfect > CHANCE else HOLDS if likely else INCONCLUSIVE,
                f"In perfect order are {'; '.join(likely) or 'none'}. With {len(blocks)} blocks and {len(found)} "
                f"correlations one would be in perfect order by chance with a probability of up to {perfect:.2f}.",
            )
        },
        [table(["candidate", *(f"cfg {cfg:g}" for cfg in effects)], rows)],
        [_draw(values, effects, blocks, folder)],
    )


def _effects(laboratory: Laboratory, judge: Judge, cfg: float) -> dict[int, np.ndarray]:
    """Block → change of the spectrum distance at the scale that suits it best, (pairs,)."""
    base, settings = grid(laboratory, judge, cfg)
    changes = {key: each.distance - base.distance for key, each in settings.items()}
    blocks = dict.fromkeys(block for block, _ in changes)
    return {b: min((change for (block, _), change in changes.items() if block == b), key=np.mean) for b in blocks}


def correlation(values: list[float], effects: np.ndarray) -> Estimate:
    """Spearman's, of a value for each setting with the mean of its effects (settings, pairs)."""
    numbers = np.random.default_rng(0)
    pairs = effects.shape[1]
    drawn = [effects[:, numbers.integers(pairs, size=pairs)].mean(axis=1) for _ in range(DRAWS)]
    found = [float(scipy.stats.spearmanr(values, each).statistic) for each in (effects.mean(axis=1), *drawn)]
    return Estimate(found[0], *np.percentile(found[1:], [2.5, 97.5]))


def _draw(
    values: dict[str, list[float]], effects: dict[float, dict[int, np.ndarray]], blocks: list[int], folder: Path
) -> str:
    figure, (axes,) = plots(len(values), height=2.4)
    for axis, (name, each) in zip(axes, values.items(), strict=True):
        for (cfg, effect), colour in zip(effects.items(), (BLUE, ORANGE), strict=True):
            means = [effect[block].mean() for block in blocks]
            axis.scatter(each, means, s=16, color=colour, label=f"cfg {cfg:g}")
            for x, y, block in zip(each, means, blocks, strict=True):
                axis.annotate(f" {block}", (x, y), fontsize=7)
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xlabel(name, fontsize=9)
    axes[0].set_ylabel("Δ spectrum distance")
    axes[0].legend(fontsize=8, frameon=False)
    return save(figure, folder, "9-forecasts.png")
