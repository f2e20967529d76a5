"""5. How much of the effect is the lost channel, and how much the gain of the LayerNorms behind it."""

from pathlib import Path

import torch
from baseline import HEAD, baseline, cells, changes
from finding import Finding, strips, table, verdict
from judge import Estimate, Judge, estimate
from laboratory import Laboratory, Size
from massive_activations import channels
from torch import Tensor
from weakened import Moment, disrupted, guided, watched, with_layer_norm_alone, with_layer_norm_held

TITLE = "5. The LayerNorm confound"
ZEROED = "zeroed"


def pictures(size: Size) -> int:
    return size.few + 4 * size.half


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    model, count = laboratory.model(), laboratory.size.half
    scale = laboratory.default("DetailGuidance", "dg_scale")
    layer = int(laboratory.default("DetailGuidance", "layer_start") * len(laboratory.blocks()))
    massive = {layer: channels(laboratory)[layer]}
    weakenings = {
        ZEROED: disrupted(massive),
        "zeroed, LayerNorm's scale held": with_layer_norm_held(massive),
        "LayerNorm's scale alone": with_layer_norm_alone(massive),
    }
    _, held, alone = weakenings
    terms: dict[str, list[Tensor]] = {name: [] for name in weakenings}
    sizes: dict[str, list[Tensor]] = {name: [] for name in weakenings}
    cosines: dict[str, list[Tensor]] = {name: [] for name in weakenings}

    def look(moment: Moment, c: Tensor) -> None:
        each = {name: (c - weaken(moment)).flatten(1) for name, weaken in weakenings.items()}
        whole = each[ZEROED]
        for name, term in each.items():
            sizes[name].append(term.norm(dim=1) / c.flatten(1).norm(dim=1))
            terms[name].append((term * whole).sum(dim=1) / whole.square().sum(dim=1))
            cosines[name].append(torch.cosine_similarity(term, whole, dim=1))

    laboratory.latents(watched(model, look), laboratory.size.few)  # one batch
    strengths = {name: _over_pictures(each) for name, each in sizes.items()}
    equal = scale * strengths[ZEROED].mean / strengths[held].mean
    base = baseline(laboratory, judge).first(count)
    shares = {name: _over_pictures(each) for name, each in terms.items()}
    shown, rows, effects = {"CFG alone": base.pictures}, [], {}
    for name, w in [*((name, scale) for name in weakenings), (held, equal)]:
        judged = judge(laboratory.pictures(guided(model, weakenings[name], w), count))
        change = changes(judged, base)
        effects.setdefault(name, change)
        shown[f"{name}, w {w:.2g}"] = judged.pictures
        direction = [strengths[name], shares[name], _over_pictures(cosines[name])]
        rows.append([name, f"{w:.2g}", *direction, *cells(change), judge.frechet_change(judged, base).signed])
    at_equal = change[HEAD[0]]
    verdicts = {
        "How much is which": (
            "measured",
            "Of the detail term, the part along its own direction that remains with LayerNorm's scale held is "
            f"{shares[held].percent}; the scale alone makes {shares[alone].percent}. In the pictures, the energy "
            f"between 1/4 and 1/2 cycle/px changes by {effects[ZEROED][HEAD[2]].signed} (log) with both, "
            f"{effects[held][HEAD[2]].signed} with the scale held, {effects[alone][HEAD[2]].signed} with the scale "
            "alone.",
        ),
        "The lost channel alone would be the better guidance": (
            verdict(at_equal.below_zero),
            f"With the scale held, at the strength that plain zeroing has (w = {equal:.2g}), the spectrum distance "
            f"changes by {at_equal.signed}; with plain zeroing by {effects[ZEROED][HEAD[0]].signed}.",
        ),
    }
    head = ["weaker prediction", "scale w", "‖c − d‖ / ‖c‖", "part of the term", "cosine with it"]
    return Finding(
        TITLE,
        "open. A massive channel dominates the LayerNorms' variance; zeroing it multiplies all others behind them. How "
        "much of DG is that gain is not known.",
        f"At block {layer}, cfg 3. The scale held: the channel is zeroed, but every later LayerNorm of the image "
        "stream divides by the standard deviation it had in the undisturbed forward. The scale alone: nothing is "
        "zeroed, but they divide by what they have when it is. The part of the term is its projection on c − d of "
        f"plain zeroing, over all steps of {laboratory.size.few} pairs; the pictures are {count} pairs at w = "
        f"{scale:g}, against CFG alone.",
        verdicts,
        [table([*head, *HEAD, "Fréchet distance, change"], rows)],
        [strips(shown, folder, "5-layer-norm.png")],
    )


def _over_pictures(steps: list[Tensor]) -> Estimate:
    """Of the mean over the steps of each picture of one batch."""
    return estimate(torch.stack(steps).mean(dim=0).numpy())
