"""6. What each setting does, and the defaults."""

from pathlib import Path
from typing import Any

import numpy as np
from baseline import HEAD, baseline, cells, changes
from finding import Finding, plots, save, strips, table, verdict
from judge import Judge, Judged
from laboratory import Laboratory, Size
from massive_activations import channels
from weakened import disrupted, guided

TITLE = "6. Layer, scale, channels, window, keep factor, text tokens"
LAYERS = (0.25, 0.5, 0.75)
SCALES = (0.1, 0.25, 0.5, 1.0)
TOO_MUCH = 3.0
TEXT_TOO = "text tokens too"
BACKWARDS = (-0.1, -0.25)  # towards the disrupted prediction: which the node does not offer

Setting = tuple[dict[str, float], dict[str, Any]]  # of the node, of its options

VARIATIONS: dict[str, Setting] = {
    **{f"at most {n} above 2×": ({}, {"massive_ratio": 2.0, "max_channels": n}) for n in (1, 2, 4, 8)},
    "first third of the schedule": ({"end_percent": 0.33}, {}),
    "second third": ({"start_percent": 0.33, "end_percent": 0.67}, {}),
    "last third": ({"start_percent": 0.67}, {}),
    **{f"keep {keep:g}": ({}, {"keep_start": keep, "keep_end": keep}) for keep in (0.25, 0.5, 0.75)},
    "keep 0 to 1": ({}, {"keep_end": 1.0}),
    "layers 0.25 to 0.75": ({"layer_start": 0.25, "layer_end": 0.75}, {}),
    "rescale 1": ({}, {"rescale": 1.0}),
    f"scale {TOO_MUCH:g}": ({"dg_scale": TOO_MUCH}, {}),
}


def pictures(size: Size) -> int:
    return (len(LAYERS) * len(SCALES) + len(VARIATIONS) + 1 + len(BACKWARDS)) * size.few


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    count = laboratory.size.few
    base = baseline(laboratory, judge).first(count)
    grid: dict[tuple[float, float], Judged] = {}
    for layer in LAYERS:
        for scale in SCALES:
            model = laboratory.detail_guidance(layer_start=layer, layer_end=layer, dg_scale=scale)
            grid[layer, scale] = judge(laboratory.pictures(model, count))
    others: dict[str, Judged] = {}
    for name, (settings, options) in VARIATIONS.items():
        model = laboratory.detail_guidance(options=options, **settings)
        others[name] = judge(laboratory.pictures(model, count))
    scale = laboratory.default("DetailGuidance", "dg_scale")
    default_layer = laboratory.default("DetailGuidance", "layer_start")
    block = int(default_layer * len(laboratory.blocks()))
    massive = {block: channels(laboratory)[block]}
    plain = {TEXT_TOO: (disrupted(massive, text=True), scale)}
    plain |= {f"towards it, scale {w:g}": (disrupted(massive), w) for w in BACKWARDS}
    for name, (weaken, w) in plain.items():
        others[name] = judge(laboratory.pictures(guided(laboratory.model(), weaken, w), count))

    named = {f"layer {layer:g}, scale {w:g}": each for (layer, w), each in grid.items()} | others
    compared = {name: changes(each, base) for name, each in named.items()}
    distance = {name: change[HEAD[0]] for name, change in compared.items()}
    best = min(distance, key=lambda name: distance[name].mean)
    flat = [name for name, each in distance.items() if each.low <= distance[best].mean]
    rows = [[name, *cells(change), judge.frechet_change(named[name], base).signed] for name, change in compared.items()]
    at_default = distance[f"layer {default_layer:g}, scale {scale:g}"]
    verdicts = {
        "Some setting brings the spectrum closer to real pictures'": (
            verdict(distance[best].below_zero),
            f"The best of {len(named)} is {best}: {distance[best].signed}. The defaults: {at_default.signed}.",
        ),
        "The optimum is flat": (
            verdict(len(flat) > 1),
            f"{len(flat)} of {len(named)} settings cannot be told from the best (their intervals reach its mean): "
            f"{', '.join(flat)}.",
        ),
    }
    failures = {
        "CFG alone": base.pictures,
        **{f"scale {w:g}": grid[default_layer, w].pictures for w in SCALES},
        f"scale {TOO_MUCH:g}": others[f"scale {TOO_MUCH:g}"].pictures,
    }
    shown = {name: each.pictures for name, each in others.items() if not name.startswith("scale")}
    return Finding(
        TITLE,
        "open: no source publishes the layer, scale, window, number of channels or the keep factor's schedule. High "
        "scales over-sharpen and make textures inconsistent.",
        f"{count} prompt–seed pairs a setting at cfg 3, by this pack's node, against CFG alone; what a line does not "
        f"name is the default (layer {default_layer:g}, scale {scale:g}, keep 0, whole schedule). Channels: the "
        "massive ratio lowered to 2, so that there are more than one to choose. Negative scales go towards the "
        "disrupted prediction, by full forwards: they show whether the sign is the wrong way round here.",
        verdicts,
        [table(["setting", *HEAD, "Fréchet distance, change"], rows)],
        [
            _heat(grid, base, folder),
            strips(failures, folder, "6-scale.png"),
            strips(shown, folder, "6-settings.png"),
        ],
    )


def _heat(grid: dict[tuple[float, float], Judged], base: Judged, folder: Path) -> str:
    figure, (axes,) = plots(2, height=2.8)
    titles = ("spectrum distance, change", "object, change of log p")
    values = (lambda each: each.distance - base.distance, lambda each: each.object - base.object)
    for axis, title, value in zip(axes, titles, values, strict=True):
        means = np.array([[np.nanmean(value(grid[layer, scale])) for scale in SCALES] for layer in LAYERS])
        most = np.abs(means).max() or 1.0
        axis.imshow(means, cmap="PuOr", vmin=-most, vmax=most, aspect="auto")
        for (row, column), mean in np.ndenumerate(means):
            axis.text(column, row, f"{mean:+.2f}", ha="center", va="center", fontsize=9)
        axis.set_xticks(range(len(SCALES)), [f"{scale:g}" for scale in SCALES])
        axis.set_yticks(range(len(LAYERS)), [f"{layer:g}" for layer in LAYERS])
        axis.set(xlabel="scale w", ylabel="layer", title=title)
    return save(figure, folder, "6-layer-and-scale.png")
