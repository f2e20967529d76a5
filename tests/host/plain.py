"""An independent plain implementation of Detail Guidance: full forwards and ordinary PyTorch hooks, nothing shared.

Everything the pack computes is compared with this.
"""

from contextlib import contextmanager

import numpy as np
import torch
from comfy.samplers import CFGGuider, calc_cond_batch


class PlainDetailGuider(CFGGuider):
    """denoised = c + (cfg − 1)(c − u) + w(c − d), one full forward for each of c, u and d.

    `host_cfg` leaves the CFG part to the host, with whatever functions other packs have put there.
    """

    def __init__(
        self, model, positive, negative=None, cfg=1.0, w=1.0, layers=(2,), keep=0.0, find=None, host_cfg=False
    ):
        super().__init__(model)
        self.inner_set_conds({"positive": positive, **({} if negative is None else {"negative": negative})})
        self.set_cfg(cfg)
        self.w, self.layers, self.keep, self.host_cfg = w, layers, keep, host_cfg
        self.find = find or above_median

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        def predict(conditions):
            (out,) = calc_cond_batch(self.inner_model, [conditions], x, timestep, model_options)
            return out

        blocks = self.inner_model.diffusion_model.joint_blocks
        channels = {layer: [] for layer in self.layers}
        with hooked(blocks, {layer: observing(channels[layer], self.find, len(x)) for layer in self.layers}):
            c = predict(self.conds["positive"])
        with hooked(blocks, {layer: disrupting(channels[layer], self.keep, len(x)) for layer in self.layers}):
            d = predict(self.conds["positive"])
        if self.host_cfg:
            base = super().predict_noise(x, timestep, model_options, seed)
        elif self.cfg == 1.0:
            base = c
        else:
            base = c + (self.cfg - 1) * (c - predict(self.conds["negative"]))
        return base + self.w * (c - d)


def above_median(z, ratio=8.0, at_most=4):
    magnitude = np.abs(z).mean(axis=(0, 1))
    ranked = np.argsort(-magnitude)[:at_most]
    return [k for k in ranked if magnitude[k] > ratio * np.median(magnitude)]


def observing(seen, find, batch):
    """Pre-hook of a block: notes the channels of each condition's rows, forward after forward."""

    def hook(_, inputs):
        z = inputs[1].numpy()
        seen.append([find(z[start : start + batch]) for start in range(0, len(z), batch)])

    return hook


def disrupting(seen, keep, batch):
    """Pre-hook of a block: disrupts what `observing` noted in the same forwards."""
    forwards = iter(seen)

    def hook(_, inputs):
        context, z = inputs
        z = z.clone()
        for number, channels in enumerate(next(forwards)):
            z[number * batch : (number + 1) * batch, :, channels] *= keep
        return context, z

    return hook


@contextmanager
def hooked(blocks, hooks):
    handles = [blocks[layer].register_forward_pre_hook(hook) for layer, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()
