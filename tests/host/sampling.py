"""Runs through the host's own samplers, and counts of what the model did."""

from contextlib import contextmanager
from dataclasses import replace

import comfy.samplers
import comfy.utils
from in_process import Pack
from models import conditioning, latent
from plain import Stream

STEPS = 2
reports = Pack.reports
SD3_STREAMS = (Stream(1),) * 64


def sample(guider, batch=1, sampler="euler", steps=STEPS, size=16, noise=None, **arguments):
    """Latents after some steps of the host's own sampler."""
    noise = latent(batch, size, seed=5)["samples"] if noise is None else noise
    sampling = guider.model_patcher.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
    latents = arguments.pop("latent_image", noise * 0)
    samples = guider.sample(noise, latents, comfy.samplers.sampler_object(sampler), sigmas, seed=5, **arguments)
    return comfy.utils.pack_latents(samples.unbind())[0] if samples.is_nested else samples  # pictures and sound


def detail_guider(pack, patcher, options=None, **inputs):
    """A DetailGuider with w = 1.5 and cfg = 4 at the middle layer unless `inputs` says otherwise."""
    if options is not None:
        inputs["options"] = pack.run("DetailGuidanceOptions", **options)
    defaults = {"positive": conditioning(1), "negative": conditioning(2), "cfg": 4.0, "dg_scale": 1.5}
    return pack.run("DetailGuider", model=patcher, **{**defaults, "layer_start": 0.5, "layer_end": 0.5, **inputs})


def stock_guider(patcher, positive=None, negative=None, cfg=4.0):
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds(positive or conditioning(1), negative or conditioning(2))
    guider.set_cfg(cfg)
    return guider


@contextmanager
def counted(patcher, blocks=lambda model: model.joint_blocks, streams=SD3_STREAMS):
    """Counts, while it lasts, the rows that each block of the model computed; SD3's unless told otherwise."""
    blocks = blocks(patcher.model.diffusion_model)
    rows = [0] * len(blocks)

    def count(number):
        def hook(block, args, kwargs):
            arguments, key = streams[number].find(block, args, kwargs)
            rows[number] += arguments[key].shape[streams[number].rows]

        return hook

    handles = [block.register_forward_pre_hook(count(number), with_kwargs=True) for number, block in enumerate(blocks)]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()


def reported(pack, guider, **arguments):
    """Latents and the run's report, but for its word on the strength: random weights know no usual one."""
    with reports(pack) as published:
        samples = sample(guider, **arguments)
    (report,) = published
    return samples, replace(report, warnings=[each for each in report.warnings if "pictures come apart" not in each])


def counting_backend(runs):
    """A torch.compile backend that runs graphs as they are and adds each run to a list."""

    def backend(graph, _):
        def run(*args):
            runs.append(graph)
            return graph.forward(*args)

        return run

    return backend
