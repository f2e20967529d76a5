"""11. Computing the disrupted prediction at some steps only."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baseline import SPECTRUM, UNLIKE, baseline, conditional_alone
from finding import NOT_TESTABLE, Finding, above, all_of, falls, strips, table
from guidance import detail_guided
from judge import Estimate, Judge, Judged, estimate, ratio
from laboratory import CFG, Laboratory, Size, judging
from layer_and_scale import chosen
from massive_activations import channels
from torch import Tensor
from weakened import Moment, Weakening, disrupted, guided

TITLE = "11. Computing the disrupted prediction at every k-th step only"
EVERY = (2, 3, 4, 6, 8)
MEANT = 3  # what the verdicts are about
ALIKE = 1 / 5  # of the perceptual distance between CFG and full Detail Guidance
KEPT = 0.8  # of the effect
SPACINGS = {"evenly": 1.0, "denser early": 1.5, "denser late": 2 / 3}  # step i of n: (i / n)^p of the schedule
GATE = 0.12  # change of c since the last computed step: extrapolated from 0.15 and 0.2 on 16 choosing pairs
AT_LEAST = 8  # a gate computes every so many
ALWAYS = 2  # steps at the beginning, as the node does
PAIRS = 64
HEAD = [f"{UNLIKE} to full", "of that of none", "the same in pixels", SPECTRUM, "of that of full"]


def pictures(size: Size) -> int:
    return (2 * len(EVERY) + len(SPACINGS) + 5) * min(PAIRS, size.primary)


Due = Callable[[int, Tensor, Tensor], Tensor]  # step, change of c and age since the last computed one → (pictures,)
SPACES: dict[str, Callable[[float], float]] = {  # what a difference of denoised predictions is divided by
    "denoised": lambda sigma: 1.0,
    "velocity": lambda sigma: sigma,
    "noise": lambda sigma: sigma / max(1 - sigma, 1e-3),  # x = (1 − σ) x₀ + σ ε
}


def at(steps: Collection[int]) -> Due:
    return lambda step, change, age: torch.full(age.shape, step in steps)


def gate(step: int, change: Tensor, age: Tensor) -> Tensor:
    return (change > GATE) | (age >= AT_LEAST) | (step < ALWAYS)


class Reusing:
    """A weakening that is computed in due steps only: in between the last difference, c − weaker in a space, holds."""

    def __init__(self, weaken: Weakening, due: Due, space: str = "velocity"):
        self.weaken, self.due, self.divisor = weaken, due, SPACES[space]
        self.sigma = -1.0
        self.computed: list[Tensor] = []

    def __call__(self, moment: Moment) -> Tensor:
        c, sigma = moment.denoised, float(moment.sigma.max())
        if sigma > self.sigma:  # another batch begins
            self.step, self.before, self.change, self.age = 0, c, torch.zeros(len(c)), torch.full((len(c),), 10**6)
            self.difference = torch.zeros_like(c)
        due = self.due(self.step, self.change, self.age)
        fresh = (c - self.weaken(moment)) / self.divisor(sigma)
        self.difference = torch.where(due.view(-1, 1, 1, 1), fresh, self.difference)
        # The next step's decision knows c up to this one.
        change = self.change + _norm(c - self.before) / _norm(c)
        self.change, self.age = torch.where(due, 0, change), torch.where(due, 1, self.age + 1)
        self.sigma, self.before = sigma, c
        self.step += 1
        self.computed.append(due.float())
        return c - self.divisor(sigma) * self.difference


@dataclass(frozen=True)
class Arm:
    """
    Attributes:
        computed: mean number of steps that computed the disrupted prediction.
    """

    judged: Judged
    computed: float


@dataclass(frozen=True)
class Comparison:
    """Of an arm with full Detail Guidance and with none.

    Attributes:
        unlike: perceptual distance to full Detail Guidance, of each picture.
        alike: its mean over the mean of that between none and full.
        pixels: the same of the mean difference of pixels.
        effect: change of the spectrum distance against none; `share`: over that of full Detail Guidance.
    """

    unlike: np.ndarray
    alike: Estimate
    pixels: Estimate
    effect: Estimate
    share: Estimate


def compared(arm: Judged, full: Judged, none: Judged, way: np.ndarray) -> Comparison:
    """`way`: the perceptual distance between none and full, of each picture."""
    unlike = arm.unlike(full)
    return Comparison(
        unlike,
        ratio(unlike, way),
        ratio(_apart(arm, full), _apart(none, full)),
        estimate(arm.distance - none.distance),
        ratio(arm.distance - none.distance, full.distance - none.distance),
    )


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    size = laboratory.size
    pairs = judging(min(PAIRS, size.primary))
    block, scale = chosen(laboratory, judge, CFG)
    weaken = disrupted({block: channels(laboratory)[block]})
    every_third = {0, *range(1, size.steps, MEANT)}  # as the node does
    count = len(every_third)

    def by_node(cfg: float, every: int) -> Arm:
        model = laboratory.at(*chosen(laboratory, judge, cfg), {"every": every})
        with laboratory.pack.reports() as published:
            judged = judge.sampled(model, pairs, cfg=cfg)
        return Arm(judged, float(np.mean([report.steps_fired for report in published])))

    def by_hooks(due: Due, space: str = "velocity") -> Arm:
        reusing = Reusing(weaken, due, space)
        judged = judge.sampled(guided(laboratory.model(), reusing, scale), pairs)
        return Arm(judged, size.steps * float(torch.cat(reusing.computed).mean()))

    full = {cfg: detail_guided(laboratory, judge, cfg)[0].first(len(pairs)) for cfg in (CFG, 1.0)}
    none = {
        cfg: sampled(laboratory, judge, judging(size.primary)).first(len(pairs))
        for cfg, sampled in ((CFG, baseline), (1.0, conditional_alone))
    }
    nodes = {(cfg, every): by_node(cfg, every) for cfg in full for every in EVERY}
    by_spacing = {
        f"{count} steps, {name}": at({round(size.steps * (i / count) ** power) for i in range(count)})
        for name, power in SPACINGS.items()
    }
    by_spacing[f"the first {count} steps, then the last of them"] = at(range(count))
    kept_as = {f"every {MEANT}, kept as {space}": space for space in ("denoised", "noise")}
    even_name, gate_name = f"every {MEANT}, by hooks", f"when c has changed by {GATE:.0%}"
    others = {
        even_name: by_hooks(at(every_third)),
        **{name: by_hooks(due) for name, due in by_spacing.items()},
        **{name: by_hooks(at(every_third), space) for name, space in kept_as.items()},
        gate_name: by_hooks(gate),
    }

    ways = {cfg: none[cfg].unlike(full[cfg]) for cfg in full}
    of_nodes = {(cfg, k): compared(arm.judged, full[cfg], none[cfg], ways[cfg]) for (cfg, k), arm in nodes.items()}
    of_others = {name: compared(arm.judged, full[CFG], none[CFG], ways[CFG]) for name, arm in others.items()}
    even = of_others[even_name]
    behind = {name: estimate(each.unlike - even.unlike) for name, each in of_others.items() if each is not even}
    effects = {cfg: estimate(full[cfg].distance - none[cfg].distance) for cfg in full}
    verdicts = {
        f"Every {MEANT}: within a fifth of the way from full Detail Guidance to none": (
            all_of(*(falls_below(of_nodes[cfg, MEANT].alike, ALIKE) for cfg in full)),
            "; ".join(f"cfg {cfg:g}: {of_nodes[cfg, MEANT].alike.percent}" for cfg in full)
            + f" of the perceptual distance between none and full (holds: certainly below {ALIKE:.0%}).",
        ),
        f"Every {MEANT} keeps {KEPT:.0%} of the effect": (
            all_kept({cfg: (effects[cfg], of_nodes[cfg, MEANT].share) for cfg in full}),
            "; ".join(
                f"cfg {cfg:g}: {of_nodes[cfg, MEANT].effect.signed} of {effects[cfg].signed}, "
                f"{of_nodes[cfg, MEANT].share.percent}"
                for cfg in full
            )
            + f" (holds: certainly more than {KEPT:.0%}; a setting counts where full Detail Guidance has an effect for "
            "certain).",
        ),
        "The first two and then every third is the best way to spend as many steps": (
            all_of(*(above(behind[name], 0.0) for name in by_spacing)),
            f"Further from full Detail Guidance than every {MEANT} by (perceptual distance): "
            + "; ".join(f"{name} {behind[name].signed}" for name in by_spacing)
            + ".",
        ),
        "A difference changes least as a velocity": (
            all_of(*(above(behind[name], 0.0) for name in kept_as)),
            "; ".join(f"{name} {behind[name].signed}" for name in kept_as) + ".",
        ),
        "A gate on the change of c is better at equal cost": (
            falls(behind[gate_name], 0.0),
            f"{others[gate_name].computed:.1f} computed steps against {others[even_name].computed:.1f}: "
            f"{behind[gate_name].signed} in perceptual distance.",
        ),
    }
    rows = [
        [f"cfg {cfg:g}, every {every}", f"{nodes[cfg, every].computed:g}", *cells(each, effects[cfg].below_zero)]
        for (cfg, every), each in of_nodes.items()
    ]
    rows += [
        [name, f"{others[name].computed:.1f}", *cells(each, effects[CFG].below_zero)]
        for name, each in of_others.items()
    ]
    rows += [[f"cfg {cfg:g}, none", "0", f"{estimate(ways[cfg])}", "100%", "100%", "", ""] for cfg in full]
    shown = {"full": full[CFG].pictures} | {f"every {every}": nodes[CFG, every].judged.pictures for every in EVERY}
    return Finding(
        TITLE,
        "open for this method. A guidance difference of other methods can be reused late, but not in the first steps "
        "(FasterCache, arXiv 2410.19355).",
        f"{len(pairs)} pairs a setting on {size.steps} steps, at the block and scale chosen for each cfg. In steps "
        "that do not compute it, D − D_m is the last computed one's, kept as a velocity. *Every k* by this pack's "
        f"node, which computes the first {ALWAYS} steps in any case; other ways to spend {count} steps by hooks, at "
        f"cfg {CFG:g}. The gate computes, picture by picture, where the change of c, summed since the last computed "
        f"step, exceeds a threshold chosen on other pairs, and every {AT_LEAST} steps at the latest; the nodes have "
        "none.",
        verdicts,
        [table(["setting", "computed", *HEAD], rows)],
        [strips(shown | {"none": none[CFG].pictures}, folder, "11-reuse.png")],
    )


def falls_below(found: Estimate, threshold: float) -> str:
    """Of a claim that something is less than a threshold."""
    return above(Estimate(-found.mean, -found.high, -found.low), -threshold)


def all_kept(settings: dict[float, tuple[Estimate, Estimate]]) -> str:
    """Of the claim that an effect is kept, by its share, in the settings in which there is one."""
    outcomes = [above(share, KEPT) for effect, share in settings.values() if effect.below_zero]
    return all_of(*outcomes) if outcomes else NOT_TESTABLE


def cells(each: Comparison, certain: bool) -> list[str]:
    """`certain`: whether full Detail Guidance has an effect; a share of one that may be none says nothing."""
    share = each.share.percent if certain else ""
    return [f"{estimate(each.unlike)}", each.alike.percent, each.pixels.percent, each.effect.signed, share]


def _apart(arm: Judged, other: Judged) -> np.ndarray:
    return np.abs(arm.pictures - other.pictures).mean(axis=(1, 2, 3))


def _norm(x: Tensor) -> Any:
    return x.flatten(1).norm(dim=1)
