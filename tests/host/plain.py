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
    """Where a block gets its picture: the argument's name or position, the tokens in it (None: the last ones, as many
    as the picture has), the dimension of its rows."""

    name: str | int
    tokens: slice | None = field(default_factory=lambda: slice(None))
    rows: int = 0

    def find(self, block, args, kwargs):
        """The whole argument, and the arguments' container and its key there."""
        place = self.name if isinstance(self.name, int) else list(signature(block.forward).parameters).index(self.name)
        return (kwargs, self.name) if self.name in kwargs else (args, place)

    def picture(self, stream, length):
        """A view of the picture's tokens: (rows, tokens, …, channels)."""
        tokens = slice(stream.shape[1] - length, None) if self.tokens is None else self.tokens
        return stream.movedim(self.rows, 0)[:, tokens]


class PlainDetailGuider(CFGGuider):
    """denoised = c + (cfg − 1)(c − u) + w(c − d), one full forward for each of c, u and d.

    `host_cfg` leaves the CFG part to the host, with whatever functions other packs have put there. `blocks` and
    `streams` say where another family than SD3's has its blocks, and these their picture; `embedder` which module makes
    the picture's tokens, where their number has to be seen; `rows` how many pictures a forward has, where the host
    cuts the batch; `picture` which of a latent's numbers are the picture's, where the others are sound.
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
        embedder=None,
        rows=None,
        picture=slice(None),
    ):
        super().__init__(model)
        self.inner_set_conds({"positive": positive, **({} if negative is None else {"negative": negative})})
        self.set_cfg(cfg)
        self.w, self.layers, self.keep, self.host_cfg = w, layers, keep, host_cfg
        self.find = find or above_median
        self.blocks, self.streams, self.embedder, self.rows = blocks, streams, embedder, rows
        self.picture = picture

    def predict(self, conditions, x, timestep, model_options):
        (out,) = calc_cond_batch(self.inner_model, [conditions], x, timestep, model_options)
        return out

    def both(self, x, timestep, model_options):
        """c and d."""
        model, positive = self.inner_model.diffusion_model, self.conds["positive"]
        blocks = self.blocks(model)
        seen, rows = Seen({layer: [] for layer in self.layers}), self.rows or len(x)
        observe = {layer: observing(self.streams[layer], seen, layer, self.find, rows) for layer in self.layers}
        disrupt = {layer: disrupting(self.streams[layer], seen, layer, self.keep, rows) for layer in self.layers}
        with counting_tokens(self.embedder and self.embedder(model), seen):
            with hooked(blocks, observe):
                c = self.predict(positive, x, timestep, model_options)
            with hooked(blocks, disrupt):
                d = self.predict(positive, x, timestep, model_options)
        return c, d

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        c, d = self.both(x, timestep, model_options)
        if self.host_cfg:
            base = super().predict_noise(x, timestep, model_options, seed)
        elif self.cfg == 1.0:
            base = c
        else:
            base = c + (self.cfg - 1) * (c - self.predict(self.conds["negative"], x, timestep, model_options))
        base[..., self.picture] += self.w * (c - d)[..., self.picture]
        return base


def above_median(z, ratio=8.0, at_most=4):
    magnitude = np.abs(z).mean(axis=tuple(range(z.ndim - 1)))
    ranked = np.argsort(-magnitude)[:at_most]
    return [k for k in ranked if magnitude[k] > ratio * np.median(magnitude)]


@dataclass
class Seen:
    """What the hooks of a step share: channels of each forward's conditions, per layer, and the picture's tokens."""

    channels: dict[int, list]
    tokens: int = 0


def observing(stream, seen, layer, find, batch):
    """Pre-hook of a block: notes the channels of each condition's rows, forward after forward."""

    def hook(block, args, kwargs):
        arguments, key = stream.find(block, args, kwargs)
        z = stream.picture(arguments[key], seen.tokens).numpy()
        seen.channels[layer].append([find(z[start : start + batch]) for start in range(0, len(z), batch)])

    return hook


def disrupting(stream, seen, layer, keep, batch):
    """Pre-hook of a block: disrupts what `observing` noted in the same forwards."""

    def hook(block, args, kwargs):
        args, kwargs = list(args), dict(kwargs)
        arguments, key = stream.find(block, args, kwargs)
        arguments[key] = arguments[key].clone()
        z = stream.picture(arguments[key], seen.tokens)
        for number, channels in enumerate(seen.channels[layer].pop(0)):
            z[number * batch : (number + 1) * batch, ..., channels] *= keep
        return tuple(args), kwargs

    return hook


@contextmanager
def counting_tokens(embedder, seen):
    if embedder is None:
        yield
        return

    def hook(_, inputs, output):
        seen.tokens = output.shape[1]

    handle = embedder.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


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
