"""3. What disrupting them at one layer does to the pictures."""

from pathlib import Path

import numpy as np
import torch
from baseline import HEAD, baseline, cells, changes
from finding import Finding, strips, table, verdict
from judge import Judge, estimate
from laboratory import Laboratory, Size
from massive_activations import channels, seen
from weakened import disrupting

TITLE = "3. Disrupting them at a layer removes local detail and keeps semantics"
LAYERS = range(4)


def pictures(size: Size) -> int:
    return 2 * len(LAYERS) * size.half


def control(laboratory: Laboratory, block: int, seed: int) -> list[int]:
    """Ordinary channels at random that hold together as much energy as the massive ones."""
    energy, massive = seen(laboratory, 4)[block].energy, channels(laboratory)[block]
    wanted, chosen, held = float(energy[massive].sum()), [], 0.0
    for channel in torch.randperm(len(energy), generator=torch.Generator().manual_seed(seed)).tolist():
        if channel not in massive and held < wanted:
            chosen.append(channel)
            held += float(energy[channel])
    return chosen


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    model, count = laboratory.model(), laboratory.size.half
    base = baseline(laboratory, judge).first(count)
    rows = [["none", "", "", f"{estimate(base.distance)}", "", "", "", _right(base), "", judge_frechet(judge, base)]]
    shown = {"undisturbed": base.pictures}
    detail, semantics, fair = [], [], []
    for layer in LAYERS:
        by_kind = {}
        for kind, chosen in (("massive", channels(laboratory)[layer]), ("control", control(laboratory, layer, layer))):
            with disrupting(model.model.diffusion_model, {layer: chosen}):
                judged = judge(laboratory.pictures(model, count))
            change = by_kind[kind] = changes(judged, base)
            energy = seen(laboratory, 4)[layer].energy
            share = float(energy[chosen].sum() / energy.sum())
            distance, *rest = cells(change)
            text = rest[-2:]
            rows.append(
                [layer, f"{kind}, {len(chosen)}", f"{share:.0%}", distance, *rest[:3], _right(judged), " / ".join(text)]
            )
            rows[-1].append(f"{judge.frechet_change(judged, base).signed}")
            shown[f"block {layer}: {kind}"] = judged.pictures
        massive, ordinary = by_kind["massive"], by_kind["control"]
        high = HEAD[2]
        detail.append(massive[high].below_zero and massive[HEAD[0]].above_zero)
        semantics.append(massive[HEAD[4]].high > -0.1 and massive[HEAD[5]].high > -0.1)
        fair.append(abs(ordinary[high].mean) < abs(massive[high].mean) / 3)
    names = [f"block {layer}" for layer in LAYERS]

    def where(flags: list[bool]) -> str:
        return ", ".join(name for name, flag in zip(names, flags, strict=True) if flag) or "no block"

    verdicts = {
        "Detail goes": (
            verdict(*detail[1:]),
            f"The energy between 1/4 and 1/2 cycle/px falls and the spectrum moves away from real pictures' at "
            f"{where(detail)}.",
        ),
        "Semantics stay": (
            verdict(*semantics[1:]),
            f"The probe's log probabilities of texture and object do not fall by more than 0.1 (interval) at "
            f"{where(semantics)}.",
        ),
        "Ordinary channels of equal energy do not do that": (
            verdict(*fair[1:]),
            f"They change the energy between 1/4 and 1/2 cycle/px by less than a third of what the massive ones do at "
            f"{where(fair)}. They are many channels, each a little; the massive are one.",
        ),
    }
    head = ["block", "channels zeroed", "energy removed", *HEAD[:4], "right: texture, object"]
    return Finding(
        TITLE,
        "with the massive activations zeroed at layer m semantics survive (CLIPScore win rate 0.512 : 0.488) and "
        "detail does not (HPSv2.1 win rate 0.028); reviewers asked for a control that removes equal energy "
        "([DG], figure 5 and open reviews).",
        "The model with these channels zeroed at one block's input on image tokens, in every forward, sampled at "
        f"cfg 3; {count} prompt–seed pairs, against the same pairs undisturbed (means and 95 % by bootstrap over "
        "pairs). The first block has no massive channel: there, the one of the others is zeroed.",
        verdicts,
        [table([*head, "texture / object, change of log p", "Fréchet distance, change"], rows)],
        [strips(shown, folder, "3-layers.png")],
    )


def _right(judged) -> str:
    return ", ".join(f"{np.nanmean(each):.0%}" for each in (judged.texture_right, judged.object_right))


def judge_frechet(judge: Judge, judged) -> str:
    return f"{judge.frechet(judged):.0f}"
