"""One sampling run under Detail Guidance."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import inf, isfinite
from typing import Any
from uuid import UUID

import torch
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key
from comfy.samplers import CFGGuider
from comfy.utils import repeat_to_batch_size
from torch import Tensor

from ...dit.branch.plans import KEY, asking
from ...dit.branch.request import Outcome, Source, Task
from ...dit.branch.windows import DetailedWindows
from ...dit.families import Anatomy, anatomy
from ...dit.token_layout import Order
from ..calibration.presets import fingerprint
from ..common.layers import block_range
from ..regions.provider import WordMasks
from .formula import detail_guidance
from .report import Report, small
from .reuse import ALWAYS_COMPUTED, Kept
from .settings import Batching, Settings
from .window import Window, keep_factor

# Relative strength from which on the reference models lose the layout and move away from real pictures
# (docs/DEFAULTS.md).
TOO_STRONG = 0.6


class Run:
    """Made when a sampling run starts, gone when it ends: two runs share nothing.

    Args:
        settings: valid settings that are not off.
        guider: the host's guider, inside its `sample`.
        replaces: whether the model carried another Detail Guidance, which this one has replaced.
    """

    def __init__(self, settings: Settings, guider: CFGGuider, replaces: bool):
        self.settings = settings
        self.replaces = replaces
        self.guider = guider
        self.anatomy = anatomy(guider.model_patcher)
        self.fingerprint = fingerprint(guider.model_patcher)
        self.layers = block_range(settings.layer_start, settings.layer_end, len(self.anatomy.blocks))
        self.rules = {block: settings.options.rule(block) for block in self.layers}
        sampling = self.sampling = guider.model_patcher.get_model_object("model_sampling")
        self.window = Window(
            start=float(sampling.percent_to_sigma(settings.start_percent)) if settings.start_percent > 0 else inf,
            end=float(sampling.percent_to_sigma(settings.end_percent)),
            noisiest=float(sampling.sigma_max),
        )
        self.batching: Batching = settings.options.batching  # in turn, once a step had to
        self.kept: Kept | None = None  # of the last step that computed D_m
        options = settings.options
        self.words = None
        if options.words is not None:
            self.words = WordMasks(options.words, options.words_soft, self.anatomy)

        self.orders: dict[str, Order] = {}
        self.fingerprints: dict[tuple[UUID, int], Tensor | None] = {}

        self.schedule = torch.zeros(1)  # the run's noise levels
        self.steps = self.inside = self.guided = self.pictures = 0
        self.sources: Counter[Source] = Counter()  # of the guided steps' D − D_m
        self.uncompiled = False
        self.strengths: list[Tensor] = []
        self.channels: dict[int, list[Tensor]] = defaultdict(list)
        self.peak_ratios: dict[int, Tensor] = {}

    def install(self) -> None:
        """Hook into this run's steps: the guider's model options are a copy that the host drops after the run."""
        add_wrapper_with_key(
            WrappersMP.PREDICT_NOISE, KEY, self.predict_noise, self.guider.model_options, is_model_options=True
        )
        if self.words is not None:
            self.words.watch.install(self.guider.model_options)

    def predict_noise(
        self, executor: Any, x: Tensor, timestep: Tensor, model_options: dict[str, Any] = {}, seed: Any = None
    ) -> Tensor:
        """D̂ for one step: the guider's own prediction plus the detail term."""
        self.steps += 1
        self.pictures = len(x)
        self.schedule = model_options["transformer_options"].get("sample_sigmas", self.schedule)
        sigma = float(timestep.max())
        if sigma not in self.window:
            return executor(x, timestep, model_options, seed)
        self.inside += 1
        if self.kept is not None and self.kept.difference.shape != x.shape:
            self.kept = None  # some samplers change the latent's size
        outcomes: list[Outcome] = []
        task = self._task(x, sigma)
        shape = self._picture_shape(x)
        with self._reading(task, shape), asking_in_windows(model_options, task, outcomes):
            base = executor(x, timestep, model_options, seed)
        if not outcomes:
            return base  # the report says so
        (outcome,) = outcomes
        self._note(outcome, sigma, task.answer_scale)
        options = self.settings.options
        if self.words is not None:
            self.words.end(self._active_at(sigma), outcome.account.source == "computed", x.device)
        x, picture, cond, disrupted = (_picture(each, shape) for each in (x, base, outcome.cond, outcome.disrupted))
        guided, strength = detail_guidance(
            x,
            picture,
            cond,
            disrupted,
            self.settings.dg_scale,
            mask=self._mask(picture),
            limit=options.limit,
            rescale=options.rescale,
            as_strength=options.scale_is == "strength",
        )
        self.strengths.append(strength)
        if picture is base:
            return guided
        return torch.cat([guided.flatten(1), base.flatten(1)[:, guided[0].numel() :]], dim=1).view_as(base)

    def _reading(self, task: Task, latent: torch.Size) -> AbstractContextManager[None]:
        """Where the words are is read in steps that compute D_m: one that reuses costs nothing."""
        if self.words is None or task.reuse is not None:
            return nullcontext()
        return self.words.watch.reading(self.guider.conds.get("positive", []), latent)

    def _mask(self, picture: Tensor) -> Tensor | None:
        """Where detail is added; None is everywhere."""
        mask = self.settings.options.mask
        mask = None if mask is None else _mask_like(mask, picture)
        if self.words is None:
            return mask
        words = self.words.over(picture)
        return words if mask is None else mask * words

    def _picture_shape(self, x: Tensor) -> torch.Size:
        """Of the pictures' part in x. Models of pictures and sound take both as one row of numbers, the picture first;
        the sound is left as it is."""
        conds = self.guider.conds.get("positive") or [{}]
        shapes = conds[0].get("model_conds", {}).get("latent_shapes")
        return x.shape if shapes is None else torch.Size([len(x), *shapes.cond[0][1:]])

    def _task(self, x: Tensor, sigma: float) -> Task:
        options = self.settings.options
        return Task(
            self.anatomy,
            self.rules,
            keep=keep_factor(options.keep_start, options.keep_end, self.window.progress(sigma)),
            shape=x.shape,
            positive=[cond["uuid"] for cond in self.guider.conds.get("positive", [])],
            batching=self.batching,
            always_computed=self.settings.in_all_steps,
            measure=not self.computed,  # once a run is enough to see where they are
            orders=self.orders,
            window=0,
            fingerprints=self.fingerprints,
            answer_scale=self._answer_scale(sigma),
            kept=self.kept,
            reuse=self.kept if self._may_reuse(sigma) else None,
        )

    @property
    def computed(self) -> int:
        """Steps so far that computed D_m."""
        return self.sources["computed"]

    def _may_reuse(self, sigma: float) -> bool:
        if self.kept is None or self.computed < ALWAYS_COMPUTED:
            return False
        return self.kept.may_serve(self.settings.options.every, self._active_at(sigma))

    def _active_at(self, sigma: float) -> tuple[UUID, ...]:
        """The positive conditions that the host predicts at a noise level: each may have a part of the schedule."""
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

    def _note(self, outcome: Outcome, sigma: float, scale: float) -> None:
        account = outcome.account
        self.guided += 1
        self.sources[account.source] += 1
        self.uncompiled |= account.uncompiled
        self.orders.update(account.orders)
        if account.source == "computed":
            self.fingerprints.update(account.fingerprints)
            # At b = 0 nothing can be kept: D is x whatever the network answers.
            whole = scale != 0 and not account.partly
            self.kept = Kept.of(outcome.cond, outcome.disrupted, scale, self._active_at(sigma)) if whole else None
        elif self.kept is not None:
            self.kept = self.kept.older()
        if account.plan == "in turn":
            self.batching = "in turn"
        for block, found in account.channels.items():
            self.channels[block] += found
        self.peak_ratios = {**account.peak_ratios, **self.peak_ratios}

    def report(self, node_id: str | None) -> Report:
        channels = {block: _true_indices(self.channels[block]) for block in self.layers}
        peak_ratios = {block: ratio.item() for block, ratio in sorted(self.peak_ratios.items())}
        peak_ratios = {block: ratio for block, ratio in peak_ratios.items() if isfinite(ratio)}  # the page reads JSON
        strength = torch.cat(self.strengths).nanmean().item() if self.strengths else 0.0
        masks = {} if self.words is None else self.words.by_name()
        return Report(
            node=node_id,
            fingerprint=self.fingerprint,
            family=self.anatomy.family.name,
            block_count=len(self.anatomy.blocks),
            block_names=[block.name for block in self.anatomy.blocks],
            first_block=self.layers.start,
            last_block=self.layers.stop - 1,
            channels=channels,
            peak_ratios=peak_ratios,
            steps=self.steps,
            steps_guided=self.guided,
            steps_fired=self.computed,
            steps_reused=self.sources["reused"],
            plan="in turn" if self.batching == "in turn" else "together",
            relative_strength=strength if isfinite(strength) else 0.0,
            made_with=self.settings.numbers,
            covered={name: mask.mean().item() for name, mask in masks.items()},
            mask=small(torch.stack([*masks.values()]).amax(dim=0)) if masks else None,
            warnings=list(self._warnings(channels, strength)),
        )

    def _warnings(self, channels: dict[int, list[int]], strength: float) -> Iterator[str]:
        guider = type(self.guider).__name__
        if self.replaces:
            yield "this model already carries one; the later node has replaced it. Remove one of the two."
        # A stage of several may well lie outside; its node's other stages may not.
        from_noise_to_picture = float(self.schedule[0]) >= 0.99 * self.window.noisiest and float(self.schedule[-1]) == 0
        if self.steps and not self.inside and from_noise_to_picture:
            yield (
                f"no step lies between start_percent {self.settings.start_percent:g} and end_percent "
                f"{self.settings.end_percent:g}: nothing was guided. Widen them, or take more steps."
            )
        if self.steps == 0:
            yield f"nothing was guided: {guider} does not predict through the host's guider, which this pack extends."
        elif self.inside > self.guided:
            yield (
                f"{self.inside - self.guided} steps were not guided: {guider} did not ask for a prediction of its "
                "positive conditioning. Use a guider that does, or remove the cache that answers in its place."
            )
        if cached := self.sources["cached"]:
            yield (
                f"{cached} of {self.guided} guided steps took the detail of an earlier step: another node's cache "
                "answered in the model's place."
            )
        if without := self.sources["nothing"]:
            yield (
                f"{without} of {self.guided} guided steps added nothing: no positive "
                "condition was active then, or another node's cache answered in the model's place."
            )
        if isfinite(strength) and strength > TOO_STRONG:
            yield (
                f"the added detail is {strength:.0%} of the step that the model itself takes: pictures come apart at "
                "such strengths. Lower dg_scale, or set limit in the options."
            )
        if not isfinite(strength):
            yield "predictions are not finite numbers (NaN or infinite). Try other weights, or more precision."
        if self.anatomy.family.prompt_cache and self.computed:
            yield (
                "this model keeps what it has computed of the prompt from step to step, but not under block patches: "
                "steps that compute the detail compute it again."
            )
        if self.uncompiled:
            yield (
                "steps that compute the detail ran without torch.compile around the whole model. Compile its blocks "
                "instead."
            )
        if self.settings.options.batching == "together" and self.computed and self.batching == "in turn":
            yield "batching: together was not possible here; the detail rows ran in a forward of their own (in turn)."
        mask = self.settings.options.mask
        if mask is not None and self.guided:
            if len(mask) not in (1, self.pictures):
                yield (
                    f"mask: there are {len(mask)}, for a batch of {self.pictures}: its pictures take them in turn, a "
                    "video one for all its frames. Give one, or one for each."
                )
            if not mask[: self.pictures].any():
                yield "mask: it is black everywhere, so no detail was added. Paint where it shall be, or unplug it."
        if self.words is not None and self.guided:
            yield from self.words.warnings()
        nothing = ", ".join(str(block) for block, found in channels.items() if not found)
        if self.computed and nothing:
            if self.settings.options.profile:
                yield f"the profile has no channel for block {nothing}. Choose layers that it has, or unplug it."
            else:
                yield (
                    f"no massive channel at block {nothing}: no channel exceeds "
                    f"{self.settings.options.massive_ratio:g} times the median. Choose other layers, lower "
                    "massive_ratio, or list the channels."
                )


def unasked(of_model: Anatomy, settings: Settings, node_id: str | None) -> Report:
    """Of a run that loads the model, but does not predict the positive with it."""
    layers = block_range(settings.layer_start, settings.layer_end, len(of_model.blocks))
    return Report(
        node=node_id,
        fingerprint="",
        family=of_model.family.name,
        block_count=len(of_model.blocks),
        block_names=[block.name for block in of_model.blocks],
        first_block=layers.start,
        last_block=layers.stop - 1,
        channels={},
        peak_ratios={},
        steps=0,
        steps_guided=0,
        steps_fired=0,
        steps_reused=0,
        plan="together",
        relative_strength=0.0,
        made_with=settings.numbers,
        warnings=[
            "nothing was guided: the guider loads this model, but does not ask it for the positive in a way that this "
            "pack extends. If it has two models, as DualModelGuider, put the node on the positive's."
        ],
    )


@contextmanager
def asking_in_windows(model_options: dict[str, Any], task: Task, outcomes: list[Outcome]) -> Iterator[None]:
    windows = model_options.get("context_handler")
    if windows is not None:
        options = create_model_options_clone(model_options)
        model_options["context_handler"] = DetailedWindows(windows, task, options, outcomes)
    try:
        with asking(model_options, task, outcomes):
            yield
    finally:
        if windows is not None:
            model_options["context_handler"] = windows


def _picture(packed: Tensor, shape: torch.Size) -> Tensor:
    if packed.shape == shape:
        return packed
    return packed.flatten(1)[:, : shape[1:].numel()].unflatten(1, shape[1:])


def _mask_like(mask: Tensor, x: Tensor) -> Tensor:
    """A mask (pictures, height, width) for latents (pictures, channels, …, height, width)."""
    resized = torch.nn.functional.interpolate(mask.unsqueeze(1), x.shape[-2:], mode="bilinear").to(x)
    return repeat_to_batch_size(resized, len(x)).view(len(x), *[1] * (x.ndim - 3), *x.shape[-2:])


def _true_indices(masks: list[Tensor]) -> list[int]:
    """Channels that any of the masks holds; asked once, after the run, because it waits for the device."""
    if not masks:
        return []
    return torch.stack([mask.cpu() for mask in masks]).any(dim=0).nonzero().flatten().tolist()
