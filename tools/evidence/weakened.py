"""Weaker predictions than the model's, by full forwards and ordinary PyTorch hooks: nothing is shared with the pack.

A weakening is a function: denoiser, its condition and input → the weaker prediction. `guided` pushes away from it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.model_patcher
import comfy.samplers
import torch
from torch import Tensor, nn

Channels = dict[int, Sequence[int]]  # block → channels


@dataclass(frozen=True)
class Moment:
    """One step of sampling, as the host shows it to functions that come after CFG."""

    model: Any
    cond: list[Any]
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


def guided(model: Any, weaken: Weakening, scale: float, strengths: list[float] | None = None) -> Any:
    """A clone that adds scale · (c − weaker) to what CFG makes. `strengths` is given the mean size of that
    relative to c, step by step."""

    def add(args: dict[str, Any]) -> Tensor:
        c = args["cond_denoised"]
        term = scale * (c - weaken(_moment(args)))
        if strengths is not None:
            strengths.append(float((term.flatten(1).norm(dim=1) / c.flatten(1).norm(dim=1)).mean()))
        return args["denoised"] + term

    clone = model.clone()
    clone.set_model_sampler_post_cfg_function(add)
    return clone


def watched(model: Any, look: Callable[[Moment, Tensor], None]) -> Any:
    """A clone that shows each step and its conditional prediction, and samples what the model samples."""

    def show(args: dict[str, Any]) -> Tensor:
        look(_moment(args), args["cond_denoised"])
        return args["denoised"]

    clone = model.clone()
    clone.set_model_sampler_post_cfg_function(show)
    return clone


def _moment(args: dict[str, Any]) -> Moment:
    return Moment(args["model"], args["cond"], args["input"], args["sigma"], args["model_options"])


# Weakenings


def disrupted(channels: Channels, keep: float = 0.0, text: bool = False) -> Weakening:
    def weaken(moment: Moment) -> Tensor:
        with disrupting(moment.network, channels, keep, text):
            return moment.predict()

    return weaken


def with_layer_norm_held(channels: Channels) -> Weakening:
    """The channels zeroed, every later LayerNorm divides by the standard deviation it had without that."""

    def weaken(moment: Moment) -> Tensor:
        with deviations_of(moment.network) as deviations:
            moment.predict()
        with dividing_by(moment.network, deviations, first=min(channels)), disrupting(moment.network, channels):
            return moment.predict()

    return weaken


def with_layer_norm_alone(channels: Channels) -> Weakening:
    """Nothing zeroed, but every later LayerNorm divides by the standard deviation that zeroing would give it."""

    def weaken(moment: Moment) -> Tensor:
        with deviations_of(moment.network) as deviations, disrupting(moment.network, channels):
            moment.predict()
        with dividing_by(moment.network, deviations, first=min(channels)):
            return moment.predict()

    return weaken


def skipping(blocks: Sequence[int]) -> Weakening:
    """What the host's SkipLayerGuidanceDiT moves away from."""

    def weaken(moment: Moment) -> Tensor:
        options = moment.options.copy()  # the host writes into it
        for block in blocks:
            options = comfy.model_patcher.set_model_options_patch_replace(
                options, lambda args, extra: args, "dit", "double_block", block
            )
        return moment.predict(options=options)

    return weaken


def with_blurred_condition(moment: Moment) -> Tensor:
    """Every word of a prompt replaced by the prompt's mean word. The pooled vector is that mean already."""
    cond = []
    for each in moment.cond:
        model_conds = dict(each["model_conds"])
        context = model_conds["c_crossattn"].cond
        model_conds["c_crossattn"] = comfy.conds.CONDCrossAttn(context.mean(dim=1, keepdim=True).expand_as(context))
        cond.append({**each, "model_conds": model_conds})
    return moment.predict(cond)


# Hooks


@contextmanager
def disrupting(network: nn.Module, channels: Channels, keep: float = 0.0, text: bool = False) -> Iterator[None]:
    """These channels multiplied by `keep` at the blocks' inputs, on image tokens, and on text tokens too if asked."""

    def hook_of(chosen: Sequence[int]) -> Callable[..., Any]:
        def hook(_: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
            context, x, *rest = inputs
            return (_kept(context, chosen, keep) if text else context, _kept(x, chosen, keep), *rest)

        return hook

    with _removed([network.joint_blocks[b].register_forward_pre_hook(hook_of(c)) for b, c in channels.items()]):
        yield


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
def deviations_of(network: nn.Module) -> Iterator[dict[nn.Module, Tensor]]:
    """The standard deviation that each LayerNorm of the image stream divides by, (rows, tokens, 1)."""
    seen: dict[nn.Module, Tensor] = {}

    def hook(norm: nn.LayerNorm, inputs: tuple[Tensor]) -> None:
        seen[norm] = (inputs[0].var(dim=-1, correction=0, keepdim=True) + norm.eps).sqrt()

    with _removed([norm.register_forward_pre_hook(hook) for norm in _norms(network, 0)]):
        yield seen


@contextmanager
def dividing_by(network: nn.Module, deviations: dict[nn.Module, Tensor], first: int) -> Iterator[None]:
    """The LayerNorms of the image stream from a block on centre their own input and divide it by these."""

    def hook(norm: nn.LayerNorm, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return (inputs[0] - inputs[0].mean(dim=-1, keepdim=True)) / deviations[norm]

    with _removed([norm.register_forward_hook(hook) for norm in _norms(network, first)]):
        yield


def _norms(network: nn.Module, first: int) -> list[nn.LayerNorm]:
    blocks = [block.x_block for block in network.joint_blocks[first:]]
    return [norm for block in blocks for norm in (block.norm1, block.norm2)] + [network.final_layer.norm_final]


def _kept(z: Tensor, channels: Sequence[int], keep: float) -> Tensor:
    z = z.clone()
    z[..., list(channels)] *= keep
    return z


@contextmanager
def _removed(handles: list[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
