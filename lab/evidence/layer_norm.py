"""6. How much of the effect is the lost channel, and how much the gain of the LayerNorms behind it."""

from collections import defaultdict
from pathlib import Path

import torch
from baseline import HEAD, HIGH, baseline, cells, changes
from finding import MEASURED, Finding, falls, strips, table
from judge import Estimate, Judge, estimate
from laboratory import BATCH, CFG, Laboratory, Size, choosing, judging
from layer_and_scale import chosen
from massive_activations import channels
from torch import Tensor
from weakened import Moment, disrupted, guided, share, watched, with_layer_norm_alone, with_layer_norm_held

TITLE = "6. The LayerNorm confound"
ZEROED, ALONE = "zeroed", "LayerNorm's scale alone"
HELD, BOTH = "zeroed, LayerNorm's scale held", "zeroed, LayerNorm's mean and scale held"


def pictures(size: Size) -> int:
    return min(size.few, BATCH) + 5 * size.few


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    model, pairs = laboratory.model(), judging(laboratory.size.few)
    block, scale = chosen(laboratory, judge, CFG)
    massive = {block: channels(laboratory)[block]}
    weakenings = {
        ZEROED: disrupted(massive),
        HELD: with_layer_norm_held(massive),
        BOTH: with_layer_norm_held(massive, mean=True),
        ALONE: with_layer_norm_alone(massive),
    }
    sizes, parts, cosines = (defaultdict[str, list[Tensor]](list) for _ in range(3))  # of a picture's term, each step

    def look(moment: Moment, c: Tensor) -> None:
        terms = {name: (c - weaken(moment)).flatten(1) for name, weaken in weakenings.items()}
        whole = terms[ZEROED]
        for name, term in terms.items():
            sizes[name].append(share(term, moment.x, c))
            parts[name].append((term * whole).sum(dim=1) / whole.square().sum(dim=1))
            cosines[name].append(torch.cosine_similarity(term, whole, dim=1))

    measured = min(laboratory.size.few, BATCH)  # one batch, so that every step shows the same pictures
    laboratory.latents(watched(model, look), choosing(measured))
    size, part, cosine = ({name: _over_steps(each[name]) for name in weakenings} for each in (sizes, parts, cosines))
    equal = scale * size[ZEROED].mean / size[HELD].mean
    base = baseline(laboratory, judge, judging(laboratory.size.primary)).first(len(pairs))

    def sampled(name: str, w: float):
        return judge.sampled(guided(model, weakenings[name], w), pairs)

    runs = {(name, scale): sampled(name, scale) for name in weakenings}
    runs[HELD, equal] = sampled(HELD, equal)
    compared = {key: changes(judge, judged, base) for key, judged in runs.items()}
    nearer = estimate(runs[HELD, equal].distance - runs[ZEROED, scale].distance)
    verdicts = {
        "How much is which": (
            MEASURED,
            "Of the detail term, the part along its own direction that remains with LayerNorm's scale held is "
            f"{part[HELD].percent} ({part[BOTH].percent} with its mean held too); the scale alone makes "
            f"{part[ALONE].percent}. In the pictures, at the same w, "
            f"{HIGH} is {compared[ZEROED, scale][HIGH].signed} with both, {compared[HELD, scale][HIGH].signed} with "
            f"the scale held, {compared[ALONE, scale][HIGH].signed} with the scale alone.",
        ),
        "Without the gain it would be better guidance": (
            falls(nearer, 0.0),
            f"With the scale held, at the strength that plain zeroing has (w = {equal:.2g}), the spectrum distance is "
            f"{nearer.signed} against plain zeroing's.",
        ),
    }
    rows = [
        [name, f"{w:.2g}", f"{size[name]}", part[name].percent, f"{cosine[name]}", *cells(change)]
        for (name, w), change in compared.items()
    ]
    head = ["weaker prediction", "w", "‖c − d‖ / ‖x − c‖", "part of the term", "cosine with it"]
    return Finding(
        TITLE,
        "open. A massive channel dominates the LayerNorms' variance; zeroing it multiplies all others behind them. How "
        "much of DG is that gain is not known.",
        f"At block {block}, cfg {CFG:g}. *Held*: the channel is zeroed, but every later LayerNorm of the image stream "
        "divides by the standard deviation it had in the undisturbed forward; with *mean and scale* it also subtracts "
        "the mean it had there. *Alone*: nothing is zeroed, but they "
        "divide by what they have when it is. The part of the term is its projection on the c − d of plain zeroing, "
        f"over all steps of {measured} pairs; the pictures are {len(pairs)} pairs, against CFG alone.",
        verdicts,
        [table([*head, *HEAD], rows)],
        [
            strips(
                {"CFG alone": base.pictures} | {f"{name}, w {w:.2g}": j.pictures for (name, w), j in runs.items()},
                folder,
                "6-layer-norm.png",
            )
        ],
    )


def _over_steps(steps: list[Tensor]) -> Estimate:
    """Over pictures, of each one's mean over the steps."""
    return estimate(torch.stack(steps).mean(dim=0).numpy())
