"""4. Whether guidance away from the disrupted prediction makes pictures more like real ones."""

from pathlib import Path

import numpy as np
from baseline import HEAD, baseline, cells, changes
from finding import COLOURS, Finding, plain_numbers, plots, save, strips, table, verdict
from judge import Judge, Judged, estimate
from laboratory import CFG, Laboratory, Size
from massive_activations import channels
from mathematics import metrics
from weakened import Weakening, disrupted, guided, skipping, with_blurred_condition

TITLE = "4. Detail Guidance makes detail more like real pictures', with and without CFG"
MEASURED = 16  # pairs on which the strengths are made equal
HIGHER = CFG + 1
METHODS = ("skip", "blur")


def pictures(size: Size) -> int:
    return (1 + len(METHODS)) * min(MEASURED, size.few) + 6 * size.pairs


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    model, count, steps = laboratory.model(), laboratory.size.pairs, laboratory.size.steps
    scale = laboratory.default("DetailGuidance", "dg_scale")
    blocks = len(laboratory.blocks())
    layer = int(laboratory.default("DetailGuidance", "layer_start") * blocks)
    massive = {layer: channels(laboratory)[layer]}
    weakenings: dict[str, Weakening] = {"skip": skipping([layer]), "blur": with_blurred_condition}
    strength = _strength(laboratory, disrupted(massive), scale)
    scales = {name: scale * strength / _strength(laboratory, weakenings[name], scale) for name in METHODS}
    base = baseline(laboratory, judge)
    partial = (blocks - layer) / blocks

    def judged(each: object, **arguments: object) -> Judged:
        return judge(laboratory.pictures(each, count, **arguments))

    detail = laboratory.detail_guidance()
    dearer = round(steps * (2 + partial) / 2)  # as many forwards as CFG + DG takes
    arms = {
        "conditional alone": (1.0, judged(model, cfg=1.0)),
        f"DG, w {scale:g}": (1 + partial, judged(detail, cfg=1.0)),
        f"CFG {CFG:g}": (2.0, base),
        f"CFG {CFG:g} + DG, w {scale:g}": (2 + partial, judged(detail)),
        f"CFG {CFG:g} + skipped block {layer}, {scales['skip']:.2g}": (
            3 - 1 / blocks,
            judged(guided(model, weakenings["skip"], scales["skip"])),
        ),
        f"CFG {CFG:g} + blurred condition, {scales['blur']:.2g}": (
            3.0,
            judged(guided(model, weakenings["blur"], scales["blur"])),
        ),
        f"CFG {HIGHER:g}, {dearer} steps": (2 * dearer / steps, judged(model, cfg=HIGHER, steps=dearer)),
    }
    alone = arms["conditional alone"][1]
    rows = []
    compared = {}
    for name, (forwards, each) in arms.items():
        against = alone if name.startswith("DG") else base
        change = changes(each, against)
        compared[name] = change, judge.frechet_change(each, against)
        same = each is against or each is alone
        right = ", ".join(estimate(r).percent for r in (each.texture_right, each.object_right))
        rows.append([name, f"{forwards:.2g}", f"{estimate(each.distance)}", f"{judge.frechet(each):.0f}", right])
        rows[-1] += [""] * 7 if same else [*cells(change), compared[name][1].signed]

    def closer(name: str) -> tuple[str, str]:
        change, frechet = compared[name]
        figures = f"Spectrum distance {change[HEAD[0]].signed}, Fréchet distance {frechet.signed}."
        return verdict(change[HEAD[0]].below_zero, frechet.below_zero), figures

    names = list(arms)
    others = {name: compared[name][0][HEAD[0]].mean for name in names[4:]}
    best = min(others, key=others.__getitem__)
    ours = compared[names[3]][0][HEAD[0]].mean
    verdicts = {
        "Without CFG": closer(names[1]),
        "With CFG": closer(names[3]),
        "More than other guidance of equal strength or cost": (
            verdict(ours < others[best] and ours < 0),
            f"Of the others, {best} changes the spectrum distance least upwards or most downwards: "
            f"{others[best]:+.3f}, against {ours:+.3f}.",
        ),
    }
    head = ["setting", "forwards a step", "spectrum distance", "Fréchet distance", "right: texture, object"]
    some = {name: each.pictures for name, (_, each) in arms.items()}
    real = np.stack([judge.reals(prompt)[0] for prompt in laboratory.prompts[: min(count, 9)]])
    return Finding(
        TITLE,
        "DG raises SD3's HPSv2.1 from 21.84 to 28.65 without CFG and from 28.23 to 29.87 with it; on SD3, CFG + DG is "
        "ahead of CFG, CFG-Zero, FA-CFG and PAG ([DG], tables).",
        f"{count} prompt–seed pairs, {steps} Euler steps. DG is this pack's node at its defaults. The skipped block "
        "and the blurred condition (every word replaced by the prompt's mean word) get the scale at which their "
        f"term is as large as DG's, {strength:.3f} of the prediction. The higher CFG takes as many forwards as CFG + "
        "DG. Changes are against the same pairs with the same CFG and no other guidance; for the higher CFG, "
        f"against CFG {CFG:g}. Smaller distances are better; the Fréchet distance is that of {64} principal "
        "components of the features.",
        verdicts,
        [table([*head, *HEAD, "Fréchet distance, change"], rows)],
        [_bands(arms, folder), strips({**some, "real": real}, folder, "4-guidance.png")],
    )


def _strength(laboratory: Laboratory, weaken: Weakening, scale: float) -> float:
    strengths: list[float] = []
    model = guided(laboratory.model(), weaken, scale, strengths)
    laboratory.latents(model, min(MEASURED, laboratory.size.few))
    return float(np.mean(strengths))


def _bands(arms: dict[str, tuple[float, Judged]], folder: Path) -> str:
    figure, (axes,) = plots(1, height=4)
    middles = [np.sqrt(low * high) for low, high in metrics.OCTAVES]
    for colour, (name, (_, judged)) in zip(COLOURS, arms.items(), strict=False):
        bands = [estimate(band) for band in judged.bands.T]
        mean = np.array([band.mean for band in bands])
        errors = np.abs([[band.low for band in bands], [band.high for band in bands]] - mean)
        axes[0].errorbar(middles, mean, errors, color=colour, marker="o", markersize=4, capsize=2, label=name)
    axes[0].axhline(0, color="black", linewidth=1)
    axes[0].set(xscale="log", xlabel="cycles per pixel", ylabel="log energy, over real pictures'")
    plain_numbers(axes[0].xaxis)
    axes[0].legend(fontsize=8, frameon=False)
    return save(figure, folder, "4-bands.png")
