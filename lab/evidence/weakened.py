"""Weaker predictions than the model's, by full forwards and ordinary PyTorch hooks: the engine is not the pack's.

A rule, of the pack's own kind, says what is observed and how that is weakened; a place says where in the network. A
weakening is a function: a moment of sampling → the weaker prediction. `guided` pushes away from it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import comfy.conds
import comfy.samplers
import plain_modules  # noqa: F401
import torch
from pack.methods.massive_activations.channels import listed_channels
from torch import Tensor, nn

Channels = dict[int, Sequence[int]]  # block → channels


@dataclass(frozen=True)
class Moment:
    """One step of sampling, as the host shows it to functions that come after CFG.

    Attributes:
        cond, denoised: the positive conditions, and what the model predicts with them.
    """

    model: Any
    cond: list[Any]
    denoised: Tensor
    x: Tensor
    sigma: Tensor
    options: dict[str, Any]

    @property
    def network(self) -> nn.Module:
        return self.model.diffusion_model

    def predict(self, cond: list[Any] | None = None, options: dict[str, Any] | None = None) -> Tensor:
        conds = [self.cond if cond is None else cond]
        (denoised,) = comfy.samplers.calc_cond_batch(self.model, conds, self.x, self.sigma, options or self.options)
        return denoised


Weakening = Callable[[Moment], Tensor]


Window = tuple[float, float]  # start_percent and end_percent
WHOLE: Window = (0.0, 1.0)
Part = Callable[[Tensor, Tensor], Tensor]  # of a term, with regard to a direction: both (pictures, …)


def guided(
    model: Any,
    weaken: Weakening,
    scale: float,
    strengths: list[float] | None = None,
    part: Part | None = None,
    window: Window = WHOLE,
) -> Any:
    """A clone that adds scale · (c − weaker) to what CFG makes, in a part of the schedule. `strengths` is given the
    mean share of that in the model's own update x − c, step by step; `part` takes a part of it with regard to CFG's
    direction c − u."""
    sampling = model.get_model_object("model_sampling")
    first, last = (sampling.percent_to_sigma(percent) for percent in window)

    def add(args: dict[str, Any]) -> Tensor:
        if not last <= float(args["sigma"][0]) <= first:
            return args["denoised"]
        c = args["cond_denoised"]
        term = scale * (c - weaken(_moment(args)))
        if part is not None:
            term = part(term, c - args["uncond_denoised"])
        if strengths is not None:
            strengths.append(float(share(term, args["input"], c).mean()))
        return args["denoised"] + term

    clone = model.clone()
    clone.set_model_sampler_post_cfg_function(add)
    return clone


def along(term: Tensor, direction: Tensor) -> Tensor:
    """Each picture's projection on the direction."""
    flat, way = term.flatten(1), direction.flatten(1)
    return ((flat * way).sum(dim=1) / way.square().sum(dim=1)).view(-1, 1, 1, 1) * direction


def across(term: Tensor, direction: Tensor) -> Tensor:
    """What is orthogonal to the direction."""
    return term - along(term, direction)


def share(term: Tensor, x: Tensor, c: Tensor) -> Tensor:
    """‖term‖ / ‖x − c‖ of each picture."""
    return term.flatten(1).norm(dim=1) / (x - c).flatten(1).norm(dim=1)


def watched(model: Any, look: Callable[[Moment, Tensor], None]) -> Any:
    """A clone that shows each step and its conditional prediction, and samples what the model samples."""

    def show(args: dict[str, Any]) -> Tensor:
        look(_moment(args), args["cond_denoised"])
        return args["denoised"]

    clone = model.clone()
    clone.set_model_sampler_post_cfg_function(show)
    return clone


def _moment(args: dict[str, Any]) -> Moment:
    return Moment(
        args["model"], args["cond"], args["cond_denoised"], args["input"], args["sigma"], args["model_options"]
    )


# Rules: what is observed at a place, and how that perturbs the same place


class Rule(Protocol):
    """One way to perturb a tensor by what was observed in the unperturbed prediction."""

    def observe(self, z: Tensor) -> Tensor:
        """What `perturbed` has to know of the unperturbed tensor."""

    def perturbed(self, z: Tensor, observed: Tensor, keep: float) -> Tensor:
        """The perturbed form of z, of z's shape; `keep` is how much is kept of what is taken away."""


@dataclass(frozen=True)
class ListedChannels:
    """Channels by number, multiplied by the keep factor."""

    numbers: tuple[int, ...]

    def observe(self, z: Tensor) -> Tensor:
        return listed_channels(self.numbers, z)

    def perturbed(self, z: Tensor, observed: Tensor, keep: float) -> Tensor:
        return torch.where(observed, keep * z, z)


class Skipped:
    """A module that does nothing: what the host's SkipLayerGuidanceDiT moves away from, where it is a block."""

    def observe(self, z: Tensor) -> Tensor:
        return z.new_empty(0)

    def perturbed(self, z: Tensor, observed: Tensor, keep: float) -> Tensor:
        return z


@dataclass(frozen=True)
class HeldNorm:
    """A LayerNorm that divides by a standard deviation observed elsewhere, and subtracts a mean observed there too if
    asked. What is observed is both, (rows, tokens, 2)."""

    eps: float
    mean: bool = False

    def observe(self, z: Tensor) -> Tensor:
        deviation = (z.var(dim=-1, correction=0) + self.eps).sqrt()
        return torch.stack([z.mean(dim=-1), deviation], dim=-1)

    def perturbed(self, z: Tensor, observed: Tensor, keep: float) -> Tensor:
        mean = observed[..., :1] if self.mean else z.mean(dim=-1, keepdim=True)
        return (z - mean) / observed[..., 1:]


# Places


@dataclass(frozen=True)
class Place:
    """
    Attributes:
        streams: positions of the module's inputs that the rule is about.
        replaces: what the weaker form takes the place of: these inputs, or what the module makes of them.
    """

    module: nn.Module
    rule: Rule
    streams: tuple[int, ...] = (0,)
    replaces: Literal["input", "output"] = "output"


Found = dict[Place, list[Tensor]]  # what the rule observed in each of the place's streams
CONTEXT, IMAGE = 0, 1  # of a block's inputs


def at_channels(network: nn.Module, channels: Channels, text: bool = False) -> list[Place]:
    """Channels of blocks' inputs, on image tokens, and on text tokens too if asked."""
    streams = (CONTEXT, IMAGE) if text else (IMAGE,)
    return [
        Place(network.joint_blocks[block], ListedChannels(tuple(chosen)), streams, "input")
        for block, chosen in channels.items()
    ]


def at_norms(network: nn.Module, first: int = 0, mean: bool = False) -> list[Place]:
    """The LayerNorms of the image stream from a block's on, the last of them before the output."""
    blocks = [block.x_block for block in network.joint_blocks[first:]]
    norms = [norm for block in blocks for norm in (block.norm1, block.norm2)] + [network.final_layer.norm_final]
    return [Place(norm, HeldNorm(norm.eps, mean)) for norm in norms]


def observed(moment: Moment, places: Sequence[Place], under: Sequence[Place] = ()) -> Found:
    """What the rules observe in a forward, in one that is weakened at other places if asked."""
    found: Found = {}

    def hook_of(place: Place) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[place] = [place.rule.observe(inputs[stream]) for stream in place.streams]

        return hook

    with weakening(under), _removed([place.module.register_forward_pre_hook(hook_of(place)) for place in places]):
        moment.predict()
    return found


@contextmanager
def weakening(places: Sequence[Place], found: Found | None = None, keep: float = 0.0) -> Iterator[None]:
    """While it lasts, the network is weakened at these places, by what was found at them: in the same forward, where
    `found` does not say."""

    def weaker(place: Place, inputs: tuple[Tensor, ...]) -> dict[int, Tensor]:
        seen = (found or {}).get(place) or [place.rule.observe(inputs[stream]) for stream in place.streams]
        return {
            stream: place.rule.perturbed(inputs[stream], each, keep)
            for stream, each in zip(place.streams, seen, strict=True)
        }

    def hooked(place: Place) -> Any:
        if place.replaces == "input":

            def before(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                return tuple(weaker(place, inputs).get(number, each) for number, each in enumerate(inputs))

            return place.module.register_forward_pre_hook(before)

        def after(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
            outputs = tuple(weaker(place, inputs).values())
            return outputs if len(outputs) > 1 else outputs[0]

        return place.module.register_forward_hook(after)

    with _removed([hooked(place) for place in places]):
        yield


# Weakenings


def disrupted(channels: Channels, keep: float = 0.0, text: bool = False) -> Weakening:
    def weaken(moment: Moment) -> Tensor:
        with weakening(at_channels(moment.network, channels, text), keep=keep):
            return moment.predict()

    return weaken


def with_layer_norm_held(channels: Channels, mean: bool = False) -> Weakening:
    """The channels zeroed, every later LayerNorm divides by the standard deviation it had without that, and subtracts
    the mean it had if asked."""

    def weaken(moment: Moment) -> Tensor:
        norms = at_norms(moment.network, min(channels), mean)
        with weakening([*at_channels(moment.network, channels), *norms], observed(moment, norms)):
            return moment.predict()

    return weaken


def with_layer_norm_alone(channels: Channels) -> Weakening:
    """Nothing zeroed, but every later LayerNorm divides by the standard deviation that zeroing would give it."""

    def weaken(moment: Moment) -> Tensor:
        norms = at_norms(moment.network, first=min(channels))
        found = observed(moment, norms, under=at_channels(moment.network, channels))
        with weakening(norms, found):
            return moment.predict()

    return weaken


def skipping(blocks: Sequence[int]) -> Weakening:
    def weaken(moment: Moment) -> Tensor:
        skipped = [Place(moment.network.joint_blocks[block], Skipped(), (CONTEXT, IMAGE)) for block in blocks]
        with weakening(skipped):
            return moment.predict()

    return weaken


def skipping_at_random(share: float, seed: int) -> Weakening:
    """S²-Guidance (arXiv 2508.12880): other blocks at each step, never the first."""
    numbers = torch.Generator().manual_seed(seed)

    def weaken(moment: Moment) -> Tensor:
        count = len(moment.network.joint_blocks)
        drawn = 1 + torch.randperm(count - 1, generator=numbers)[: max(1, round(share * count))]
        return skipping(drawn.tolist())(moment)

    return weaken


def by(predict: Callable[[Tensor, Tensor, list[str]], Tensor]) -> Weakening:
    """Another model's prediction, which is given x, σ and the prompts."""
    return lambda moment: predict(moment.x, moment.sigma, moment.cond[0]["prompts"])


def with_blurred_condition(moment: Moment) -> Tensor:
    """Every word of a prompt replaced by the prompt's mean word. The pooled vector is that mean already."""
    cond = []
    for each in moment.cond:
        model_conds = dict(each["model_conds"])
        context = model_conds["c_crossattn"].cond
        model_conds["c_crossattn"] = comfy.conds.CONDCrossAttn(context.mean(dim=1, keepdim=True).expand_as(context))
        cond.append({**each, "model_conds": model_conds})
    return moment.predict(cond)


# Watching


@contextmanager
def observing(network: nn.Module, see: Callable[[int, Tensor, Tensor], None]) -> Iterator[None]:
    """Shows every block's number and input: text and image tokens, (rows, tokens, channels)."""

    def hook_of(number: int) -> Callable[..., None]:
        return lambda _, inputs: see(number, inputs[0], inputs[1])

    with _removed([b.register_forward_pre_hook(hook_of(number)) for number, b in enumerate(network.joint_blocks)]):
        yield


@contextmanager
def gates_of(network: nn.Module, see: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Shows every block's number and AdaLN's residual gates of its image stream, (rows, 2, channels): of attention and
    of the MLP."""

    def hook_of(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            parts = output.chunk(6, dim=1)  # of attention, then of the MLP: shift, scale, gate
            see(number, torch.stack([parts[2], parts[5]], dim=1))

        return hook

    modules = [block.x_block.adaLN_modulation for block in network.joint_blocks]
    with _removed([module.register_forward_hook(hook_of(number)) for number, module in enumerate(modules)]):
        yield


@contextmanager
def _removed(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
