"""An independent plain implementation of Detail Guidance: full forwards and ordinary PyTorch hooks, nothing shared.

Everything the pack computes is compared with this.
"""

from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature

import numpy as np
import torch
from comfy.samplers import CFGGuider, calc_cond_batch


@dataclass(frozen=True)
class Stream:
    """Where a block gets its picture: the argument's name or position, the tokens in it, the dimension of its rows."""

    name: str | int
    tokens: slice = field(default_factory=lambda: slice(None))
    rows: int = 0

    def find(self, block, args, kwargs):
        """The whole argument, and the arguments' container and its key there."""
        place = self.name if isinstance(self.name, int) else list(signature(block.forward).parameters).index(self.name)
        return (kwargs, self.name) if self.name in kwargs else (args, place)

    def picture(self, stream):
        """A view of the picture's tokens: (rows, tokens, …, channels)."""
        return stream.movedim(self.rows, 0)[:, self.tokens]


class PlainDetailGuider(CFGGuider):
    """denoised = c + (cfg − 1)(c − u) + w(c − d), one full forward for each of c, u and d.

    `host_cfg` leaves the CFG part to the host, with whatever functions other packs have put there. `blocks` and
    `streams` say where another family than SD3's has its blocks, and these their picture.
    """

    def __init__(
        self,
        model,
        positive,
        negative=None,
        cfg=1.0,
        w=1.0,
        layers=(2,),
        keep=0.0,
        find=None,
        host_cfg=False,
        blocks=lambda model: model.joint_blocks,
        streams=(Stream(1),) * 4,
    ):
        super().__init__(model)
        self.inner_set_conds({"positive": positive, **({} if negative is None else {"negative": negative})})
        self.set_cfg(cfg)
        self.w, self.layers, self.keep, self.host_cfg = w, layers, keep, host_cfg
        self.find = find or above_median
        self.blocks, self.streams = blocks, streams

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        def predict(conditions):
            (out,) = calc_cond_batch(self.inner_model, [conditions], x, timestep, model_options)
            return out

        blocks = self.blocks(self.inner_model.diffusion_model)
        channels = {layer: [] for layer in self.layers}
        observe = {n: observing(self.streams[n], channels[n], self.find, len(x)) for n in self.layers}
        with hooked(blocks, observe):
            c = predict(self.conds["positive"])
        disrupt = {n: disrupting(self.streams[n], channels[n], self.keep, len(x)) for n in self.layers}
        with hooked(blocks, disrupt):
            d = predict(self.conds["positive"])
        if self.host_cfg:
            base = super().predict_noise(x, timestep, model_options, seed)
        elif self.cfg == 1.0:
            base = c
        else:
            base = c + (self.cfg - 1) * (c - predict(self.conds["negative"]))
        return base + self.w * (c - d)


def above_median(z, ratio=8.0, at_most=4):
    magnitude = np.abs(z).mean(axis=tuple(range(z.ndim - 1)))
    ranked = np.argsort(-magnitude)[:at_most]
    return [k for k in ranked if magnitude[k] > ratio * np.median(magnitude)]


def observing(stream, seen, find, batch):
    """Pre-hook of a block: notes the channels of each condition's rows, forward after forward."""

    def hook(block, args, kwargs):
        arguments, key = stream.find(block, args, kwargs)
        z = stream.picture(arguments[key]).numpy()
        seen.append([find(z[start : start + batch]) for start in range(0, len(z), batch)])

    return hook


def disrupting(stream, seen, keep, batch):
    """Pre-hook of a block: disrupts what `observing` noted in the same forwards."""
    forwards = iter(seen)

    def hook(block, args, kwargs):
        args, kwargs = list(args), dict(kwargs)
        arguments, key = stream.find(block, args, kwargs)
        arguments[key] = arguments[key].clone()
        z = stream.picture(arguments[key])
        for number, channels in enumerate(next(forwards)):
            z[number * batch : (number + 1) * batch, ..., channels] *= keep
        return tuple(args), kwargs

    return hook


@contextmanager
def hooked(blocks, hooks):
    handles = [blocks[layer].register_forward_pre_hook(hook, with_kwargs=True) for layer, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()
