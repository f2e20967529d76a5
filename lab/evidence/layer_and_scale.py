"""7. Which layer and scale, and the other settings: chosen here, judged in section 4."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from baseline import HEAD, SPECTRUM, cells, changes
from finding import MEASURED, Finding, plots, save, strips, table
from judge import Judge, Judged, estimate
from laboratory import CFG, Laboratory, Size, choosing
from massive_activations import channels
from weakened import Window, disrupted, guided

TITLE = "7. Layer, scale, channels, window, keep factor, text tokens"
LAYERS = (0.3, 0.5, 0.7, 0.8, 0.9)
SCALES = (0.1, 0.25, 0.5)
TOO_MUCH = 3.0
BACKWARDS = -0.25  # towards the disrupted prediction: the node does not offer that

Setting = tuple[dict[str, float], dict[str, Any]]  # of the node, of its options

WINDOWS: dict[str, Window] = {"first third": (0.0, 0.33), "second third": (0.33, 0.67), "last third": (0.67, 1.0)}
VARIATIONS: dict[str, Setting] = {
    **{f"at most {n} above 2×": ({}, {"massive_ratio": 2.0, "max_channels": n}) for n in (1, 4)},
    "keep 0.5": ({}, {"keep_start": 0.5, "keep_end": 0.5}),
    "keep 0 to 1": ({}, {"keep_end": 1.0}),
    "rescale 1": ({}, {"rescale": 1.0}),
}


def pictures(size: Size) -> int:
    return (2 * (len(LAYERS) * len(SCALES) + 1) + len(WINDOWS) + len(VARIATIONS) + 3) * size.few


@cache
def grid(laboratory: Laboratory, judge: Judge, cfg: float) -> tuple[Judged, dict[tuple[int, float], Judged]]:
    """No Detail Guidance, and each block with each scale, on pairs for choosing."""
    pairs = choosing(laboratory.size.few)
    blocks = [round(layer * laboratory.depth()) for layer in LAYERS]
    settings = {(b, w): judge.sampled(laboratory.at(b, w), pairs, cfg=cfg) for b in blocks for w in SCALES}
    return judge.sampled(laboratory.model(), pairs, cfg=cfg), settings


def chosen(laboratory: Laboratory, judge: Judge, cfg: float) -> tuple[int, float]:
    """The block and the scale with the smallest mean spectrum distance."""
    _, settings = grid(laboratory, judge, cfg)
    return min(settings, key=lambda key: settings[key].distance.mean())


@cache
def windows(laboratory: Laboratory, judge: Judge) -> dict[str, Judged]:
    """The chosen block and scale with CFG, in parts of the schedule."""
    block, scale = chosen(laboratory, judge, CFG)
    pairs = choosing(laboratory.size.few)
    return {name: judge.sampled(laboratory.at(block, scale, window=window), pairs) for name, window in WINDOWS.items()}


def chosen_window(laboratory: Laboratory, judge: Judge) -> str:
    """The third of the schedule with the smallest mean spectrum distance."""
    found = windows(laboratory, judge)
    return min(found, key=lambda name: found[name].distance.mean())


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    pairs = choosing(laboratory.size.few)
    base, settings = grid(laboratory, judge, CFG)
    block, scale = chosen(laboratory, judge, CFG)
    weaken = disrupted({block: channels(laboratory)[block]})

    def by_node(settings: dict[str, float], options: dict[str, Any]) -> Judged:
        layer = block / laboratory.depth()
        given = {"layer_start": layer, "layer_end": layer, "dg_scale": scale} | settings
        return judge.sampled(laboratory.detail_guidance(options=options, **given), pairs)

    in_windows = windows(laboratory, judge)
    variations = dict(in_windows) | {name: by_node(*setting) for name, setting in VARIATIONS.items()}
    text = disrupted({block: channels(laboratory)[block]}, text=True)
    variations["these channels of text tokens too"] = judge.sampled(guided(laboratory.model(), text, scale), pairs)
    variations[f"w {TOO_MUCH:g}"] = by_node({"dg_scale": TOO_MUCH}, {})
    variations[f"towards it, w {BACKWARDS:g}"] = judge.sampled(guided(laboratory.model(), weaken, BACKWARDS), pairs)

    of_grid = {key: changes(judge, each, base) for key, each in settings.items()}
    varied = {name: changes(judge, each, base) for name, each in variations.items()}
    best = settings[block, scale]
    alike = [key for key, each in settings.items() if not estimate(each.distance - best.distance).above_zero]
    back = varied[f"towards it, w {BACKWARDS:g}"][SPECTRUM]
    verdicts = {
        "Away from the disrupted prediction, and not towards it": (
            MEASURED,
            f"Towards it, w {BACKWARDS:g}: {SPECTRUM} {back.signed}; away from it, w {scale:g}: "
            f"{of_grid[block, scale][SPECTRUM].signed}, which was chosen on these pairs.",
        ),
        "The best layer and scale": (
            MEASURED,
            f"With CFG block {block} of {laboratory.depth()}, w {scale:g}; not worse for certain (paired) are "
            + ", ".join(f"({b}, {w:g})" for b, w in alike)
            + ". Without CFG block {}, w {:g}.".format(*chosen(laboratory, judge, 1.0)),
        ),
        "The best third of the schedule, with CFG": (
            MEASURED,
            "; ".join(f"{name} {varied[name][SPECTRUM].signed}" for name in in_windows)
            + f"; the whole {of_grid[block, scale][SPECTRUM].signed}. Section 4 judges the "
            f"{chosen_window(laboratory, judge)}.",
        ),
    }
    shown = {"CFG alone": base.pictures}
    shown |= {f"block {block}, w {w:g}": settings[block, w].pictures for w in SCALES}
    shown |= {name: each.pictures for name, each in variations.items()}
    rows = [[f"block {b}, w {w:g}", *cells(change)] for (b, w), change in of_grid.items()]
    rows += [[name, *cells(change)] for name, change in varied.items()]
    return Finding(
        TITLE,
        "open: no source publishes the layer, scale, window, number of channels or the keep factor's schedule. High "
        "scales over-sharpen and make textures inconsistent.",
        f"{len(pairs)} pairs a setting for choosing, at cfg {CFG:g} and without CFG, by this pack's node, against the "
        f"same pairs without it; what a line does not name is as chosen (block {block}, w {scale:g}, keep 0, whole "
        "schedule). A best of many looks better than it is, so nothing here is a verdict on whether it helps. Negative "
        "scales go towards the disrupted prediction, by full forwards.",
        verdicts,
        [table(["setting", *HEAD], rows)],
        [_heat(laboratory, judge, folder), strips(shown, folder, "7-settings.png")],
    )


def _heat(laboratory: Laboratory, judge: Judge, folder: Path) -> str:
    figure, axes = plots(2, height=2.8)
    for axis, cfg in zip(axes[0], (CFG, 1.0), strict=True):
        base, settings = grid(laboratory, judge, cfg)
        blocks = list(dict.fromkeys(block for block, _ in settings))
        means = np.array([[(settings[b, w].distance - base.distance).mean() for w in SCALES] for b in blocks])
        most = np.abs(means).max() or 1.0
        axis.imshow(means, cmap="PuOr", vmin=-most, vmax=most, aspect="auto", alpha=0.7)
        for (row, column), mean in np.ndenumerate(means):
            axis.text(column, row, f"{mean:+.2f}", ha="center", va="center", fontsize=9)
        axis.set_xticks(range(len(SCALES)), [f"{scale:g}" for scale in SCALES])
        axis.set_yticks(range(len(blocks)), [f"{block}" for block in blocks])
        axis.set(xlabel="scale w", ylabel="block", title=f"{SPECTRUM}, cfg {cfg:g}")
    return save(figure, folder, "7-layer-and-scale.png")
