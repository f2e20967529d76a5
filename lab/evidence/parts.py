"""5. What the effect is made of: along CFG's direction and across it."""

from pathlib import Path

import numpy as np
from baseline import HEAD, SPECTRUM, baseline, cells, changes
from finding import Finding, above, falls, strips, table
from guidance import ROOM, detail_guided
from judge import Judge, Judged, estimate
from laboratory import CFG, Laboratory, Size, judging
from layer_and_scale import chosen
from massive_activations import channels
from weakened import across, along, disrupted, guided

TITLE = "5. What the effect is made of: along CFG's direction and across it"
LOWER = (1.5, 2.0, 2.5)


def pictures(size: Size) -> int:
    return 2 * size.primary + len(LOWER) * size.half


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    size, model = laboratory.size, laboratory.model()
    pairs = judging(size.primary)
    base = baseline(laboratory, judge, pairs)
    room = float((base.distance - judge.other_reals(pairs).distance).mean())
    block, scale = chosen(laboratory, judge, CFG)
    weaken = disrupted({block: channels(laboratory)[block]})
    whole, orthogonal, parallel = "the whole term", "its part across c − u alone", "its part along c − u alone"
    arms: dict[str, Judged] = {}
    strengths: dict[str, float] = {}
    arms[whole], strengths[whole] = detail_guided(laboratory, judge, CFG)  # as in section 4
    for name, part in ((orthogonal, across), (parallel, along)):
        reached: list[float] = []
        arms[name] = judge.sampled(guided(model, weaken, scale, reached, part), pairs)
        strengths[name] = float(np.mean(reached))
    lower = {f"no DG, cfg {cfg:g}": judge.sampled(model, judging(size.half), cfg=cfg) for cfg in LOWER}
    compared_arms = {name: changes(judge, each, base.first(len(each.pairs))) for name, each in (arms | lower).items()}
    behind = estimate(arms[orthogonal].distance - arms[whole].distance)
    best = min(lower, key=lambda name: compared_arms[name][SPECTRUM].mean)
    better = estimate(lower[best].distance - arms[whole].first(size.half).distance)
    verdicts = {
        "The part across CFG's direction alone brings pictures closer to real": (
            falls(compared_arms[orthogonal][SPECTRUM], ROOM * room),
            f"{SPECTRUM} {compared_arms[orthogonal][SPECTRUM].signed} (worth reporting: −{ROOM * room:.3f}); the part "
            f"along it {compared_arms[parallel][SPECTRUM].signed}, the whole {compared_arms[whole][SPECTRUM].signed}.",
        ),
        "It is at least as good as the whole": (
            above(estimate(arms[whole].distance - arms[orthogonal].distance), -ROOM * room / 2),
            f"From the whole term to this part: {behind.signed} (holds: certainly less than +{ROOM * room / 2:.3f}, "
            "half of what is worth reporting).",
        ),
        "Less CFG does not do the same": (
            above(better, 0.0),
            f"The best of {', '.join(f'{cfg:g}' for cfg in LOWER)} without Detail Guidance is {best}: {SPECTRUM} "
            f"{compared_arms[best][SPECTRUM].signed}; from the whole term to it {better.signed}.",
        ),
    }
    return Finding(
        TITLE,
        "open. CFG's own term can be taken apart like that (APG, arXiv 2410.02416).",
        f"{size.primary} pairs ({size.half} without DG) at cfg {CFG:g}, block {block}, w {scale:g}: w(c − d) is split "
        "at each step and picture into its projection on c − u and the rest; each alone is added to CFG's prediction. "
        "*Strength* is the share of what was added in the model's own update.",
        verdicts,
        [
            table(
                ["added", "strength", *HEAD],
                [
                    [name, f"{strengths[name]:.3g}" if name in strengths else "", *cells(change)]
                    for name, change in compared_arms.items()
                ],
            )
        ],
        [strips({"CFG alone": base.pictures} | {n: j.pictures for n, j in arms.items()}, folder, "5-parts.png")],
    )
