"""An independent plain implementation of Detail Guidance: full forwards and ordinary PyTorch hooks, nothing shared.

Everything the pack computes is compared with this.
"""

from contextlib import contextmanager

import numpy as np
import torch
from comfy.samplers import CFGGuider, calc_cond_batch


class PlainDetailGuider(CFGGuider):
    """denoised = c + (cfg − 1)(c − u) + w(c − d), one full forward for each of c, u and d."""

    def __init__(self, model, positive, negative=None, cfg=1.0, w=1.0, layers=(2,), keep=0.0, ratio=5.0, at_most=4):
        super().__init__(model)
        self.inner_set_conds({"positive": positive, **({} if negative is None else {"negative": negative})})
        self.set_cfg(cfg)
        self.w, self.layers, self.keep, self.ratio, self.at_most = w, layers, keep, ratio, at_most

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        def predict(conditions):
            (out,) = calc_cond_batch(self.inner_model, [conditions], x, timestep, model_options)
            return out

        blocks = self.inner_model.diffusion_model.joint_blocks
        channels = {}
        with observing(blocks, self.layers, channels, self.ratio, self.at_most, len(x)):
            c = predict(self.conds["positive"])
        with disrupting(blocks, self.layers, channels, self.keep, len(x)):
            d = predict(self.conds["positive"])
        denoised = c + self.w * (c - d)
        if self.cfg != 1.0:
            u = predict(self.conds["negative"])
            denoised = denoised + (self.cfg - 1) * (c - u)
        return denoised


@contextmanager
def observing(blocks, layers, channels, ratio, at_most, batch):
    def observe(layer):
        def hook(_, inputs):
            z = inputs[1].numpy()
            for start in range(0, len(z), batch):
                magnitude = np.abs(z[start : start + batch]).mean(axis=(0, 1))
                ranked = np.argsort(-magnitude)[:at_most]
                channels[layer, start] = [k for k in ranked if magnitude[k] > ratio * np.median(magnitude)]

        return hook

    handles = [blocks[layer].register_forward_pre_hook(observe(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def disrupting(blocks, layers, channels, keep, batch):
    def disrupt(layer):
        def hook(_, inputs):
            context, z = inputs
            z = z.clone()
            for start in range(0, len(z), batch):
                z[start : start + batch, :, channels[layer, start]] *= keep
            return context, z

        return hook

    handles = [blocks[layer].register_forward_pre_hook(disrupt(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()
