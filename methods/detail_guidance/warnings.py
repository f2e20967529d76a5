"""What a user should know after a sampling run, in full sentences: each names the cause and what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

from ...dit.family import Family
from .settings import Settings

# Relative strength from which on the reference models lose the layout and move away from real pictures
# (docs/DEFAULTS.md).
TOO_STRONG = 0.6


@dataclass(frozen=True)
class RunFacts:
    """What happened in a sampling run, as far as warnings depend on it.

    Attributes:
        guider: class name of the guider.
        replaces: whether the model carried another Detail Guidance.
        whole_schedule: whether the run went from noise to picture: a stage of several may well lie outside the window,
            and its node's other stages not.
        planned: steps of the run's schedule.
        steps, inside, guided: predictions; those inside the window; those of them that predicted the positive.
        computed, cached, without: guided steps by where their D − D_m is from.
        strength: mean relative strength, of the pictures where it is finite.
        not_finite: pictures of the batch whose predictions were not finite in some step.
        conditions: number of the guider's conditions on the path; None where it calls them otherwise.
        uncompiled: whether torch.compile around the whole model was set aside.
        sequential: whether the last steps ran by the sequential plan.
        layers: number of the layers.
        channels: block → channels that were disrupted in any step.
        most_of_negative: the dg_scale with which the negative's own prediction is perturbed altogether; None on the
            positive's path.
        of_masks: warnings of the mask provider.
    """

    settings: Settings
    family: Family
    guider: str
    replaces: bool
    whole_schedule: bool
    planned: int
    steps: int
    inside: int
    guided: int
    computed: int
    cached: int
    without: int
    strength: float
    not_finite: int
    conditions: int | None
    uncompiled: bool
    sequential: bool
    layers: int
    channels: dict[int, list[int]]
    most_of_negative: float | None
    of_masks: Sequence[str]


def warnings_of(run: RunFacts) -> Iterator[str]:
    """The warnings for a run."""
    yield from _of_steps(run)
    yield from _of_strength(run)
    yield from _of_plans(run)
    yield from run.of_masks
    yield from _of_channels(run)


def _of_steps(run: RunFacts) -> Iterator[str]:
    if run.replaces:
        yield "this model already carries one; the later node has replaced it. Remove one of the two."
    if run.steps and not run.inside and run.whole_schedule:
        curve = run.settings.options.curve
        above = "" if curve is None else f" where the curve {curve} is above 0"
        yield (
            f"no step lies between start_percent {run.settings.start_percent:g} and end_percent "
            f"{run.settings.end_percent:g}{above}: nothing was guided. Widen them, or take more steps."
        )
    path = run.settings.options.path
    if run.conditions == 0:
        yield f"nothing was guided: the {path} is empty. Connect a text encoder's conditioning to it."
    elif run.planned == 0:
        yield (
            "nothing was sampled: this stage of the schedule has no steps. Look at its start and end steps, or at the "
            "node that splits the noise levels."
        )
    elif run.steps == 0:
        yield f"nothing was guided: {run.guider} does not predict through the host's guider, which this pack extends."
    elif run.inside > run.guided:
        yield (
            f"{run.inside - run.guided} steps were not guided: {run.guider} did not ask for a prediction of its "
            f"{path} conditioning. Use a guider that does, or remove the cache that answers in its place."
        )
    if run.cached:
        yield (
            f"{run.cached} of {run.guided} guided steps took the detail of an earlier step: another node's cache "
            "answered in the model's place."
        )
    if run.without:
        yield (
            f"{run.without} of {run.guided} guided steps added nothing: no {path} "
            "condition was active then, or another node's cache answered in the model's place."
        )


def _of_strength(run: RunFacts) -> Iterator[str]:
    if run.not_finite:
        yield (
            f"predictions of {run.not_finite} of the pictures are not finite numbers (NaN or infinite). Try other "
            "weights, or more precision."
        )
    if isfinite(run.strength) and run.strength > TOO_STRONG:
        yield (
            f"the added detail is {run.strength:.0%} of the step that the model itself takes: pictures come apart at "
            "such strengths. Lower dg_scale, or set limit in the options."
        )

    if run.most_of_negative is not None and run.settings.highest_scale > run.most_of_negative:
        yield (
            f"dg_scale {run.settings.highest_scale:g} is more than the negative's path can take at this cfg, "
            f"{run.most_of_negative:g}: raising it further changes nothing. Lower it, raise cfg, or set path to "
            "positive."
        )


def _of_plans(run: RunFacts) -> Iterator[str]:
    if run.family.prompt_cache and run.computed:
        yield (
            "this model keeps what it has computed of the prompt from step to step, but not under block patches: "
            "steps that compute the detail compute it again."
        )
    if run.uncompiled:
        yield (
            "steps that compute the detail ran without torch.compile around the whole model. Compile its blocks "
            "instead."
        )
    if run.settings.options.batching == "together" and run.computed and run.sequential:
        yield "batching: together was not possible here; the detail rows ran in a forward of their own (in turn)."


def _of_channels(run: RunFacts) -> Iterator[str]:
    if run.settings.options.perturbation == "random blocks" and run.layers == 1:
        yield (
            "random blocks: layer_start and layer_end name one block, which was skipped in every step. Widen them, or "
            "choose skipped block."
        )
    if not run.settings.options.of_channels:
        return
    nothing = ", ".join(str(block) for block, found in run.channels.items() if not found)
    if not run.computed or not nothing:
        return
    if run.settings.options.profile:
        yield f"the profile has no channel for block {nothing}. Choose layers that it has, or unplug it."
    else:
        yield (
            f"no massive channel at block {nothing}: no channel exceeds "
            f"{run.settings.options.massive_ratio:g} times the median. Choose other layers, lower "
            "massive_ratio, or list the channels."
        )
