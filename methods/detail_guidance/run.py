"""One sampling run under Detail Guidance: which steps are guided, the formula, and the report's figures."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from math import inf, nan
from typing import Any, Literal
from uuid import UUID

import torch
from comfy.patcher_extension import WrappersMP
from comfy.samplers import CFGGuider
from torch import Tensor

from ...dit import (
    BlockPerturbation,
    ForwardRequest,
    StepRequest,
    StepResult,
    StepStats,
    Wrappers,
    anatomy_of,
    model_fingerprint,
    perturbing_in_place,
    requesting_perturbed_in_windows,
)
from ...dit.branch.request import Batching
from ...dit.family import Order
from ..common.layers import block_range
from ..massive_activations.channels import peak_ratio
from ..regions.provider import mask_provider
from .formula import detail_guidance, disrupted_share
from .perturbation import blocks_of_step, perturbation_at
from .report import Report, small
from .reuse import ALWAYS_COMPUTED, CachedDifference
from .settings import Settings
from .warnings import RunFacts, warnings_of
from .window import Window, keep_factor

# The widget's words in the code's: saved workflows hold them.
PLANS: Mapping[str, Batching] = {"auto": "auto", "together": "batched", "in turn": "sequential"}

# Where a guided step's D − D_m is from: a perturbed prediction of this step; an earlier step, because `every` says so;
# an earlier step, because another node's cache answered in the model's place; or nowhere.
DifferenceSource = Literal["computed", "reused", "cached", "nothing"]


class Run:
    """Made when a sampling run starts, gone when it ends: two runs share nothing.

    Args:
        settings: valid settings that are not off.
        guider: the host's guider, inside its `sample`.
        replaces: whether the model carried another Detail Guidance, which this one has replaced.

    Attributes:
        wrappers: this run's wrappers by the host's kinds.

    Raises:
        ValueError: the negative's own prediction is to be disrupted, and the guider does not use it.
    """

    def __init__(self, settings: Settings, guider: CFGGuider, replaces: bool):
        self.settings = settings
        self.replaces = replaces
        self.guider = guider
        options = settings.options
        model = guider.model_patcher
        self.anatomy = anatomy_of(model)
        self.model_fingerprint = model_fingerprint(model)
        self.layers = block_range(settings.layer_start, settings.layer_end, len(self.anatomy.blocks))
        self.perturbations = {block: perturbation_at(options, block) for block in self.layers}
        self.sampling = model.get_model_object("model_sampling")
        self.window = Window.of(settings.start_percent, settings.end_percent, self.sampling)
        self.negative_cfg = negative_cfg(guider) if self.in_place else None
        self.masks = mask_provider(options.mask, options.words, options.words_soft, self.anatomy)
        self.wrappers: Wrappers = {
            **self.masks.wrappers,
            WrappersMP.SAMPLER_SAMPLE: self.sampler_sample,
            WrappersMP.PREDICT_NOISE: self.predict_noise,
        }

        self.batching = PLANS[options.batching]  # sequential, once a step had to be
        self.cached: CachedDifference | None = None  # of the last step that computed D_m
        self.orders: dict[str, Order] = {}
        self.token_sums: dict[tuple[UUID, int], Tensor | None] = {}

        self.schedule = torch.zeros(0)  # the run's noise levels
        self.steps = self.inside = self.guided = 0
        self.sources: Counter[DifferenceSource] = Counter()
        self.uncompiled = False
        self.strengths: list[Tensor] = []
        self.channels: dict[int, list[Tensor]] = defaultdict(list)
        self.peak_ratios: dict[int, Tensor] = {}

    def sampler_sample(self, executor: Any, guider: Any, sigmas: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Note the run's schedule."""
        self.schedule = sigmas
        return executor(guider, sigmas, *args, **kwargs)

    def predict_noise(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: Any = None
    ) -> Tensor:
        """D̂ of one step: the guider's own prediction plus the detail term."""
        self.steps += 1
        sigma = float(timestep.max())
        scale = self._scale_at(sigma)
        if not scale:
            if self.cached is not None and sigma in self.window:
                self.cached = self.cached.aged()  # in a gap of the curve, which may rise again
            return executor(x, timestep, model_options, seed)
        self.inside += 1
        if self.in_place:
            calls: list[StepStats] = []
            with perturbing_in_place(model_options, self._in_place(scale), self._ids("negative"), calls):
                denoised = executor(x, timestep, model_options, seed)
            self._note_in_place(calls)
            return denoised
        if self.cached is not None and self.cached.difference.shape != x.shape:
            self.cached = None  # some samplers change the latent's size
        request = self._request(x, sigma)
        results: list[StepResult] = []
        shape = self._picture_shape(x)
        positive = self.guider.conds.get("positive", [])
        reading = self.masks.reading(positive, shape) if request.compute else nullcontext()
        with reading, requesting_perturbed_in_windows(model_options, request, results):
            base = executor(x, timestep, model_options, seed)
        if not results:
            return base  # the report says so
        (result,) = results
        disrupted = self._take(result, sigma)
        self.masks.end_step(self._active_at(sigma), result.stats.source == "computed", x.device)
        x, picture, cond, disrupted = (_picture(each, shape) for each in (x, base, result.cond, disrupted))
        options = self.settings.options
        guided, strength = detail_guidance(
            x,
            picture,
            cond,
            disrupted,
            scale,
            mask=self.masks.mask(picture),
            limit=options.limit,
            rescale=options.rescale,
            as_strength=options.scale_is == "strength",
            across_cfg=options.direction == "across CFG",
        )
        self.strengths.append(strength)
        if picture is base:
            return guided
        return torch.cat([guided.flatten(1), base.flatten(1)[:, guided[0].numel() :]], dim=1).view_as(base)

    def _scale_at(self, sigma: float) -> float:
        """dg_scale at a noise level; 0 outside of the guided part."""
        if sigma not in self.window:
            return 0.0
        curve, scale = self.settings.options.curve, self.settings.dg_scale
        return scale if curve is None else scale * curve.share(self.window.progress(sigma))

    @property
    def in_place(self) -> bool:
        """Whether the negative's own prediction is disrupted, and no second one computed."""
        return self.settings.options.path == "negative"

    def _ids(self, group: str) -> list[UUID]:
        """Ids of a group of the guider's conditions."""
        return [cond["uuid"] for cond in self.guider.conds.get(group, [])]

    def _request(self, x: Tensor, sigma: float) -> StepRequest:
        options = self.settings.options
        return StepRequest(
            **self._of_forwards(),
            keep=keep_factor(options.keep_start, options.keep_end, self.window.progress(sigma)),
            computed_before=self.cached is not None,
            shape=x.shape,
            positive=self._ids("positive"),
            compute=not self._may_reuse(sigma),
            batching=self.batching,
            every_step=self.settings.in_all_steps,
        )

    @property
    def kept_of_negative(self) -> float | None:
        """ρ of the negative's own prediction, where that is disrupted, at the curve's highest."""
        return (
            None if self.negative_cfg is None else 1 - disrupted_share(self.settings.highest_scale, self.negative_cfg)
        )

    def _in_place(self, scale: float) -> ForwardRequest:
        assert self.negative_cfg is not None
        keep = 1 - disrupted_share(scale, self.negative_cfg)
        return ForwardRequest(**self._of_forwards(), keep=keep, computed_before=self.computed > 0)

    def _of_forwards(self) -> dict[str, Any]:
        """What every request of this run has."""
        first = not self.computed  # once a run is enough to measure and to compare with the table
        return {
            "anatomy": self.anatomy,
            "perturbations": {
                block: self.perturbations[block]
                for block in blocks_of_step(self.settings.options, self.layers, self.guided)
            },
            "measure": peak_ratio if first else None,
            "compare_layout": first,
            "orders": self.orders,
            "token_sums": self.token_sums,
        }

    def _note_in_place(self, calls: Sequence[StepStats]) -> None:
        """Note a step in whose calls the negative's own prediction was to be disrupted."""
        if not calls:
            return  # the report says so
        self.guided += 1
        self.sources["computed" if any(each.source == "computed" for each in calls) else "nothing"] += 1
        for stats in calls:
            self._note_forwards(stats)

    def _note_forwards(self, stats: StepStats) -> None:
        self.uncompiled |= stats.uncompiled
        self.orders.update(stats.orders)
        if stats.source == "computed":
            self.token_sums.update(stats.token_sums)
        self._note_channels(stats)

    def _take(self, result: StepResult, sigma: float) -> Tensor:
        """Note a step's result; returns its D_m, computed or by the difference of an earlier step."""
        stats, scale = result.stats, self._answer_scale(sigma)
        source, disrupted = self._disrupted(result, scale)
        self.guided += 1
        self.sources[source] += 1
        self._note_forwards(stats)
        if source == "computed":
            # At b = 0 nothing can be kept: D is x whatever the network answers.
            whole = scale != 0 and not stats.partly
            conditions = self._active_at(sigma)
            self.cached = CachedDifference.of(result.cond, disrupted, scale, conditions) if whole else None
        elif self.cached is not None:
            self.cached = self.cached.aged()
        if stats.plan == "sequential":
            self.batching = "sequential"
        return disrupted

    def _disrupted(self, result: StepResult, scale: float) -> tuple[DifferenceSource, Tensor]:
        if result.perturbed is not None:
            return "computed", result.perturbed
        source = result.stats.source
        # A cache keeps what the network last answered, a noise or velocity; so does this.
        if self.cached is not None and source in ("not requested", "cache"):
            return "reused" if source == "not requested" else "cached", self.cached.disrupted(result.cond, scale)
        return "nothing", result.cond

    def _note_channels(self, stats: StepStats) -> None:
        for block, observed in stats.statistics.items():
            perturbation = self.perturbations[block]
            if not isinstance(perturbation, BlockPerturbation):
                told = (perturbation.channels(each) for each in observed)
                self.channels[block] += [channels for channels in told if channels is not None]
        self.peak_ratios = {**stats.measured, **self.peak_ratios}

    @property
    def computed(self) -> int:
        """Steps so far that computed D_m."""
        return self.sources["computed"]

    def _may_reuse(self, sigma: float) -> bool:
        if self.cached is None or self.computed < ALWAYS_COMPUTED:
            return False
        return self.cached.is_fresh(self.settings.options.every, self._active_at(sigma))

    def _active_at(self, sigma: float) -> tuple[UUID, ...]:
        """Ids of the positive conditions that the host predicts at a noise level: each may have a part of the
        schedule."""
        level = torch.tensor(sigma)  # the host compares in float32, where doubles next to each other are equal
        return tuple(
            cond["uuid"]
            for cond in self.guider.conds.get("positive", [])
            if not (level > cond.get("timestep_start", inf) or level < cond.get("timestep_end", -inf))
        )

    def _answer_scale(self, sigma: float) -> float:
        """b of D = a x + b F, by the model's own parametrisation."""
        answer = torch.ones(1, 1)
        return float(self.sampling.calculate_denoised(torch.tensor([sigma]), answer, torch.zeros_like(answer)))

    def _picture_shape(self, x: Tensor) -> torch.Size:
        """Shape of the picture's part in x. Models of pictures and sound take both as one row of numbers, the picture
        first; the sound is left as it is."""
        conds = self.guider.conds.get("positive") or [{}]
        shapes = conds[0].get("model_conds", {}).get("latent_shapes")
        return x.shape if shapes is None else torch.Size([len(x), *shapes.cond[0][1:]])

    def report(self, node_id: str | None) -> Report:
        """What the run did, for the log and the page."""
        facts = self._facts()
        masks = self.masks.by_name()
        return Report(
            node=node_id,
            fingerprint=self.model_fingerprint,
            family=self.anatomy.family.name,
            block_count=len(self.anatomy.blocks),
            block_names=self.anatomy.block_names,
            first_block=self.layers.start,
            last_block=self.layers.stop - 1,
            channels=facts.channels,
            peak_ratios=_finite(self.peak_ratios),
            steps=self.steps,
            steps_guided=self.guided,
            steps_fired=self.computed,
            steps_reused=self.sources["reused"],
            plan="in place" if self.in_place else "in turn" if self.batching == "sequential" else "together",
            relative_strength=facts.strength if abs(facts.strength) < inf else 0.0,
            kept_of_negative=self.kept_of_negative,
            perturbation=self.settings.options.perturbation,
            made_with=self.settings.numbers,
            covered={name: mask.mean().item() for name, mask in masks.items()},
            mask=small(torch.stack([*masks.values()]).amax(dim=0)) if masks else None,
            warnings=[*warnings_of(facts)],
        )

    def _facts(self) -> RunFacts:
        schedule, conds, strength, not_finite = self.schedule, self.guider.conds, 0.0, 0
        asked = self.settings.options.path
        if self.strengths:
            each = torch.stack(self.strengths) if _alike(self.strengths) else torch.cat(self.strengths)[:, None]
            finite = each.isfinite()
            strength = each[finite].mean().item() if finite.any() else nan
            not_finite = int((~finite).any(dim=0).sum())
        levels = schedule.tolist()
        whole = len(levels) > 1 and levels[0] >= 0.99 * self.window.noisiest and levels[-1] == 0
        return RunFacts(
            settings=self.settings,
            family=self.anatomy.family,
            guider=type(self.guider).__name__,
            replaces=self.replaces,
            whole_schedule=whole,
            planned=max(len(levels) - 1, 0),
            steps=self.steps,
            inside=self.inside,
            guided=self.guided,
            computed=self.computed,
            cached=self.sources["cached"],
            without=self.sources["nothing"],
            strength=strength,
            not_finite=not_finite,
            conditions=len(conds[asked]) if asked in conds else None,
            uncompiled=self.uncompiled,
            sequential=self.batching == "sequential",
            channels={
                block: _true_indices(self.channels[block])
                for block in (self.layers if self.settings.options.of_channels else ())
            },
            most_of_negative=None if self.negative_cfg is None else self.negative_cfg - 1,
            layers=len(self.layers),
            of_masks=[*self.masks.warnings()] if self.guided else [],
        )


def negative_cfg(guider: CFGGuider) -> float:
    """The cfg with which a guider uses its negative: the negative's prediction has the factor 1 − cfg in D̂.

    Raises:
        ValueError: the guider does not use the negative.
    """
    attributes = vars(guider)
    cfg = attributes.get("cfg2", guider.cfg)  # of two positives, the negative is behind the second
    if "neg_scale" in attributes:  # PerpNeg: the negative's part across the positive's has the factor −cfg · neg_scale
        cfg = 1 + guider.cfg * attributes["neg_scale"]
    if cfg <= 1 or not guider.conds.get("negative"):
        reason = "its cfg (or neg_scale) gives it no weight" if guider.conds.get("negative") else "it has none"
        raise ValueError(
            f"path: negative disrupts the negative's prediction, and {type(guider).__name__} does not use one, because "
            f"{reason}. Set cfg above 1 (neg_scale above 0) with a negative connected, or path to positive."
        )
    return float(cfg)


def _finite(ratios: Mapping[int, Tensor]) -> dict[int, float]:
    """Numbers that JSON can hold, in the blocks' order."""
    numbers = {block: ratio.item() for block, ratio in sorted(ratios.items())}
    return {block: number for block, number in numbers.items() if abs(number) < inf}


def _alike(strengths: Sequence[Tensor]) -> bool:
    """Whether every step had the same number of pictures."""
    return len({len(each) for each in strengths}) == 1


def _picture(packed: Tensor, shape: torch.Size) -> Tensor:
    """The picture's part of a latent that may have sound behind it."""
    if packed.shape == shape:
        return packed
    return packed.flatten(1)[:, : shape[1:].numel()].unflatten(1, shape[1:])


def _true_indices(masks: list[Tensor]) -> list[int]:
    """Channels that any of the masks holds; asked once, after the run, because it waits for the device."""
    if not masks:
        return []
    return torch.stack([mask.cpu() for mask in masks]).any(dim=0).nonzero().flatten().tolist()
