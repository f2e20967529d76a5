"""Everything a user can set. Constructors validate: a settings object that exists is valid."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from torch import Tensor

from ..common.numbers import parse_numbers, require
from ..massive_activations.channels import amplify_, average_, disrupt_, shuffle_
from ..massive_activations.perturbations import (
    ListedChannels,
    MassiveActivations,
    ProfiledChannels,
    ReportedPerturbation,
)
from ..massive_activations.profile import Profile
from ..regions.masks import Region
from .curve import Curve
from .formula import MOST_W

Batching = Literal["auto", "together", "in turn"]
ScaleIs = Literal["w", "strength"]
Path = Literal["positive", "negative"]
Direction = Literal["whole", "across CFG"]
PerturbationKind = Literal[
    "massive channels",
    "massive channels amplified",
    "massive channels averaged",
    "massive channels shuffled",
    "skipped block",
    "random blocks",
    "blurred tokens",
    "shuffled tokens",
    "identity attention",
    "blurred attention",
    "blurred word attention",
]
AUTO = "auto"
Choice = TypeVar("Choice", bound=str)

# Perturbations of the massive channels, and what they do to them.
CHANGES: Mapping[PerturbationKind, Callable[[Tensor, Tensor, float], None]] = {
    "massive channels": disrupt_,
    "massive channels amplified": amplify_,
    "massive channels averaged": average_,
    "massive channels shuffled": shuffle_,
}

# The values that the sources leave open; docs/DEFAULTS.md says why these.
DG_SCALE = 0.25
LAYER = 0.7
MASSIVE_RATIO = 8.0
MAX_CHANNELS = 4
WORDS_SOFT = 0.2

ROUNDING = 1e-4  # by which a mask may pass 0 or 1: blurring and resizing do


@dataclass(frozen=True, eq=False)
class Options:
    """What few users change.

    Attributes:
        channels: channel numbers to disrupt; None finds them afresh at each step.
        massive_ratio: ≥ 1, the threshold over the median channel, when channels are found.
        max_channels: ≥ 1, at most so many are taken.
        keep_start, keep_end: ρ, 0 to 1, at the window's start and end; 0 zeroes.
        rescale: 0 to 1, how much of the contrast that the detail term adds is taken back.
        limit: 0 to 10, the greatest ‖w(c − d)‖ / ‖x − c‖; 0 is off.
        mask: (pictures, height, width), 0 to 1, where detail is added; None is everywhere.
        batching: one call with the detail rows in it, or a call of their own.
        every: 1 to 8: D_m is computed at the first two guided steps and at every so many after them; those between
            take the last difference.
        scale_is: the meaning of `dg_scale`: w, or the relative strength, for which w is solved in each step.
        profile: channels per block, in place of `channels`.
        words: detail is added where they are in the picture; None is everywhere.
        words_soft: 0 to 1, the width of their masks' edge.
        path: whose prediction is disrupted: a second one of the positive, as in the paper; or the negative's own, which
            costs nothing: D̂ = D + λ(D − D_∅,m).
        direction: the whole detail term, or only its part across CFG's direction D − D_∅.
        perturbation: what makes the second prediction a poorer one; the paper's are the massive channels.
        curve: how `dg_scale` goes over the guided part; None is the same throughout.
    """

    channels: tuple[int, ...] | None = None
    massive_ratio: float = MASSIVE_RATIO
    max_channels: int = MAX_CHANNELS
    keep_start: float = 0.0
    keep_end: float = 0.0
    rescale: float = 0.0
    limit: float = 0.0
    mask: Tensor | None = None
    batching: Batching = "auto"
    every: int = 1
    scale_is: ScaleIs = "w"
    profile: Profile | None = None
    words: Region | None = None
    words_soft: float = WORDS_SOFT
    path: Path = "positive"
    direction: Direction = "whole"
    perturbation: PerturbationKind = "massive channels"
    curve: Curve | None = None

    def __post_init__(self):
        require("massive_ratio", self.massive_ratio, 1.0, 1000.0)
        require("max_channels", self.max_channels, 1, 64)
        require("keep_start", self.keep_start, 0.0, 1.0)
        require("keep_end", self.keep_end, 0.0, 1.0)
        require("rescale", self.rescale, 0.0, 1.0)
        require("limit", self.limit, 0.0, 10.0)
        require("every", self.every, 1, 8)
        require("words_soft", self.words_soft, 0.0, 1.0)
        _require_one_of("batching", self.batching, get_args(Batching))
        _require_one_of("scale_is", self.scale_is, get_args(ScaleIs))
        _require_one_of("path", self.path, get_args(Path))
        _require_one_of("direction", self.direction, get_args(Direction))
        _require_one_of("perturbation", self.perturbation, get_args(PerturbationKind))
        if self.mask is not None:
            if self.mask.ndim != 3 or self.mask.numel() == 0:
                raise ValueError(f"mask: its shape is {tuple(self.mask.shape)}, it must be (pictures, height, width).")
            low, high = self.mask.min().item(), self.mask.max().item()
            if not 0 <= low <= high <= 1:
                raise ValueError(
                    f"mask: its values go from {low:g} to {high:g}, 0 to 1 is allowed. Add masks with Mask Composite, "
                    "which keeps to that, or make it one of an image."
                )

        if not self.of_channels:
            for name, unset in (("channels", 'Set it to "auto"'), ("profile", "Unplug it")):
                if vars(self)[name] is not None:
                    raise ValueError(
                        f"{name}: it does nothing with perturbation {self.perturbation}, which is not about channels. "
                        f"{unset}, or set perturbation to massive channels."
                    )
        if self.path == "negative":
            self._require_nothing_of_a_second_prediction()

    def _require_nothing_of_a_second_prediction(self) -> None:
        """Refuse what works on the detail term, or says how often it is computed: this path has none."""
        plain = Options()
        for name in ("keep_start", "keep_end", "rescale", "limit", "every", "scale_is", "direction"):
            value, default = vars(self)[name], vars(plain)[name]
            if value != default:
                raise ValueError(
                    f"{name}: {value} has no meaning with path negative, which computes no second prediction and keeps "
                    f"what dg_scale leaves. Set {name} to {default}, or path to positive."
                )
        for name in ("mask", "words"):
            if vars(self)[name] is not None:
                raise ValueError(
                    f"{name}: with path negative there is no second prediction, so detail cannot be added in places. "
                    f"Unplug {name}, or set path to positive."
                )

    def channels_at(self, block: int) -> ReportedPerturbation:
        """What finds the massive channels at a block's input, and perturbs them."""
        change = CHANGES.get(self.perturbation, disrupt_)
        if self.profile is not None:
            return ProfiledChannels(self.profile, block, change=change)
        if self.channels is not None:
            return ListedChannels(self.channels, change=change)
        return MassiveActivations(self.massive_ratio, self.max_channels, change=change)

    @property
    def of_channels(self) -> bool:
        """Whether it is channels that are perturbed."""
        return self.perturbation in CHANGES


@dataclass(frozen=True, eq=False)
class Settings:
    """One Detail Guidance.

    Attributes:
        dg_scale: w, or as `options.scale_is` says; 0 to 20; 0 is off.
        layer_start, layer_end: 0 to 1, fractions of the depth; massive channels are disrupted at the input of every
            block from the one's to the other's.
        start_percent, end_percent: 0 to 1, the guided part of the sampling schedule.
    """

    dg_scale: float = DG_SCALE
    layer_start: float = LAYER
    layer_end: float = LAYER
    start_percent: float = 0.0
    end_percent: float = 1.0
    options: Options = field(default_factory=Options)

    def __post_init__(self):
        require("dg_scale", self.dg_scale, 0.0, MOST_W)
        require("layer_start", self.layer_start, 0.0, 1.0)
        require("layer_end", self.layer_end, 0.0, 1.0)
        require("start_percent", self.start_percent, 0.0, 1.0)
        require("end_percent", self.end_percent, 0.0, 1.0)
        _require_order("layer_start", self.layer_start, "layer_end", self.layer_end)
        _require_order("start_percent", self.start_percent, "end_percent", self.end_percent)

    @property
    def numbers(self) -> dict[str, float]:
        """The inputs that are numbers, by name."""
        names = ("dg_scale", "layer_start", "layer_end", "start_percent", "end_percent")
        return {name: value for name, value in vars(self).items() if name in names}

    @property
    def highest_scale(self) -> float:
        """dg_scale at the curve's highest point."""
        curve = self.options.curve
        return self.dg_scale if curve is None else self.dg_scale * max(share for _, share in curve.points)

    @property
    def in_all_steps(self) -> bool:
        """Whether D_m is computed in every step of the schedule."""
        plain = (self.start_percent, self.end_percent, self.options.every) == (0.0, 1.0, 1)
        return plain and (self.options.curve is None or all(share for _, share in self.options.curve.points))

    @property
    def off(self) -> bool:
        return self.dg_scale == 0


def without_rounding(mask: Tensor) -> Tensor:
    """A mask whose values pass 0 or 1 by rounding alone, within 0 to 1; others stay as they are."""
    beyond = max(-mask.min().item(), mask.max().item() - 1) if mask.numel() else 0.0
    return mask.clamp(0, 1) if 0 < beyond <= ROUNDING else mask


def parse_channels(text: str) -> tuple[int, ...] | None:
    """'auto' → None; '154, 1446' → (154, 1446).

    Raises:
        ValueError: anything else.
    """
    if text.strip().lower() == AUTO:
        return None
    if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", text):
        raise ValueError(f'channels: {text!r} is neither "auto" nor a list of channel numbers such as "154, 1446".')
    return tuple(sorted({int(number) for number in text.split(",")}))


def parse_choices(name: str, text: str, allowed: tuple[Choice, ...]) -> list[Choice]:
    """'skipped block, massive channels' → these, in order, each once.

    Raises:
        ValueError: one is not allowed, or there is none.
    """
    given = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for choice in given or [""]:
        _require_one_of(name, choice, allowed)
    return [each for choice in given for each in allowed if each == choice]


def parse_scales(text: str) -> list[float]:
    """'0.1, 0.25' → these values of `dg_scale`, in order.

    Raises:
        ValueError: anything else.
    """
    scales = parse_numbers("scales", text, 0.0, MOST_W, "numbers such as 0.1, 0.25, 0.5")
    if 0 in scales:
        raise ValueError("scales: 0 is Detail Guidance off, which is sampled in any case. Leave it out.")
    return sorted(set(scales))


def _require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(allowed)}.")


def _require_order(first: str, low: float, second: str, high: float) -> None:
    if low > high:
        raise ValueError(f"{first}: {low} is above {second}, {high}. Set {first} to at most {second}.")
