"""Every perturbation on models of three kinds, in both plans and on the negative's path, against plain forwards.

SD3 has joint attention of two streams, Flux also blocks of one stream, Wan attends to itself and then to the prompt.
"""

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, inf, prod

import models
import pytest
import torch
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT, SkipLayerGuidanceDiTSimple
from comparison import PLANS
from family_models import CASES, load
from models import conditioning, model
from plain import PlainDetailGuider, above_median, hooked, relative_error
from sampling import STEPS, detail_guider, reported, sample, stock_guider

CFG, SCALE, BLOCK = 4.0, 1.5, 2
# On the negative's path dg_scale says how much is kept: 1 − 1.5 / (4 − 1).
EVERYWHERE = pytest.mark.parametrize(
    "plan, keep", [("together", 0.0), ("together", 0.5), ("in turn", 0.0), ("in turn", 0.5), ("in place", 0.5)]
)


@dataclass(frozen=True)
class Kind:
    """A model of four blocks.

    Attributes:
        module: of the host's, whose `optimized_attention` its blocks call.
        grid: rows and columns of its tokens; of a video behind the frames.
        text: tokens of the prompt, which stand before the picture's in a joint attention; 0 where there is none.
        calls: attentions of a block.
    """

    name: str
    module: str
    grid: tuple[int, ...]
    text: int
    calls: int = 1

    @property
    def joint(self):
        return self.text > 0

    def __str__(self):
        return self.name

    @property
    def tokens(self):
        return prod(self.grid)

    def setting(self):
        """Model, its blocks and streams, noise of two pictures, and the two prompts."""
        if self.name in ("SD3", "Flux"):
            subject = models.subject(self.name)
            noise = models.latent(2, 16, seed=5)["samples"]
            prompts = {"positive": conditioning(1), "negative": conditioning(2)}
            streams = subject.streams
            return subject.model, subject.blocks, streams, subject.embedder, noise, prompts
        case = CASES[self.name]
        prompts = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
        return load(self.name), case.blocks, case.streams, None, case.noise(2), prompts


KINDS = [
    Kind("SD3", "comfy.ldm.modules.diffusionmodules.mmdit", (8, 8), 7),
    Kind("Flux", "comfy.ldm.flux.math", (8, 8), 7),
    Kind("Wan text to video", "comfy.ldm.wan.model", (3, 4, 4), 0, calls=2),
]
OF_KINDS = pytest.mark.parametrize("kind", KINDS, ids=str)


# What is done to image tokens (rows, tokens, channels) at the block's input


def scaled(factor):
    def change(z, channels, keep):
        out = z.clone()
        out[..., channels] *= factor(keep)
        return out

    return change


def averaged(z, channels, keep):
    out = z.clone()
    for row in out:
        for channel in channels:
            row[:, channel] = keep * row[:, channel] + (1 - keep) * row[:, channel].mean()
    return out


def moved(z):
    order = torch.randperm(z.shape[1], generator=torch.Generator().manual_seed(0))
    return torch.stack([torch.stack([row[place] for place in order]) for row in z])


def channels_moved(z, channels, keep):
    out = z.clone()
    out[..., channels] = keep * z[..., channels] + (1 - keep) * moved(z)[..., channels]
    return out


def all_moved(z, channels, keep):
    return keep * z + (1 - keep) * moved(z)


def gaussian(grid, sigma):
    """The matrix (tokens, tokens) that blurs a picture's tokens, frame by frame."""
    *frames, height, width = grid
    reach = ceil(2 * sigma) if sigma != inf else 0
    matrix = torch.zeros(height * width, height * width)
    for row in range(height):
        for column in range(width):
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    source = min(max(row + down, 0), height - 1) * width + min(max(column + right, 0), width - 1)
                    weight = torch.exp(torch.tensor(-(down**2 + right**2) / (2 * sigma**2)))
                    matrix[row * width + column, source] += weight
    if sigma == inf:
        matrix = torch.ones_like(matrix)
    return torch.block_diag(*[matrix / matrix.sum(dim=1, keepdim=True)] * prod(frames))


def blurred(kind):
    def change(z, channels, keep):
        return keep * z + (1 - keep) * gaussian(kind.grid, 1.0) @ z

    return change


INPUTS = {
    "massive channels": lambda kind: scaled(lambda keep: keep),
    "massive channels amplified": lambda kind: scaled(lambda keep: 2 - keep),
    "massive channels averaged": lambda kind: averaged,
    "massive channels shuffled": lambda kind: channels_moved,
    "blurred tokens": blurred,
    "shuffled tokens": lambda kind: all_moved,
}


@contextmanager
def input_changed(guider, kind, name, keep, rows):
    change, stream = INPUTS[name](kind), guider.streams[BLOCK]

    def hook(block, args, kwargs):
        args, kwargs = list(args), dict(kwargs)
        arguments, key = stream.find(block, args, kwargs)
        arguments[key] = arguments[key].clone()
        z = stream.picture(arguments[key], kind.tokens)
        for start in range(0, len(z), rows):
            part = z[start : start + rows]
            part.copy_(change(part, above_median(part.numpy(), ratio=1.0, at_most=2), keep))
        return tuple(args), kwargs

    with hooked(guider.blocks(guider.inner_model.diffusion_model), {BLOCK: hook}):
        yield


@contextmanager
def block_skipped(guider, kind, name, keep, rows):
    inputs = []

    def before(block, args, kwargs):  # copies, because Flux' single blocks add to what they are given
        given = args[:2] if kind.name == "SD3" else [kwargs["x"] if "x" in kwargs else args[0]]
        inputs[:] = [each.clone() for each in given]

    def after(block, args, kwargs, out):
        given = inputs if isinstance(out, tuple) else inputs[0]
        if isinstance(out, tuple):
            return tuple(o if o is None else keep * o + (1 - keep) * i for i, o in zip(given, out, strict=True))
        return keep * out + (1 - keep) * given

    block = guider.blocks(guider.inner_model.diffusion_model)[BLOCK]
    handles = [
        block.register_forward_pre_hook(before, with_kwargs=True),
        block.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# What is done in attention, written out as matrices


def plain_attention(q, k, v, name, kind, call):
    """Attention of (rows, heads, tokens, d) by its matrix, and the perturbed one of the image tokens."""
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    own, image = weights @ v, slice(kind.text, None)
    out = own.clone()
    if name == "identity attention" and call == 0:
        out[:, :, image] = v[:, :, image]
    if name == "blurred attention" and call == 0:
        smooth = q.clone()
        smooth[:, :, image] = gaussian(kind.grid, inf) @ q[:, :, image]
        out[:, :, image] = ((smooth @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v)[:, :, image]
    if name == "blurred word attention" and call == (0 if kind.joint else 1):
        prompt = slice(0, kind.text) if kind.joint else slice(None)
        weights[:, :, image, prompt] = gaussian(kind.grid, 2.0) @ weights[:, :, image, prompt]
        out = weights @ v
    return own, out


@contextmanager
def attention_changed(guider, kind, name, keep, rows):
    module = sys.modules[kind.module]
    original, calls = module.optimized_attention, []

    def attention(q, k, v, heads, *rest, skip_reshape=False, mask=None, **more):
        if not calls:
            return original(q, k, v, heads, *rest, skip_reshape=skip_reshape, mask=mask, **more)
        calls.append(1)
        by_head = [x if skip_reshape else x.reshape(*x.shape[:2], heads, -1).transpose(1, 2) for x in (q, k, v)]
        own, out = plain_attention(*by_head, name, kind, len(calls) - 2)
        return (keep * own + (1 - keep) * out).transpose(1, 2).flatten(2)

    def enter(*_):
        calls.append(0)

    def leave(*_):
        assert len(calls) == 1 + kind.calls
        calls.clear()

    block = guider.blocks(guider.inner_model.diffusion_model)[BLOCK]
    handles = [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]
    module.optimized_attention = attention
    try:
        yield
    finally:
        module.optimized_attention = original
        for handle in handles:
            handle.remove()


ATTENTION = ("identity attention", "blurred attention", "blurred word attention")
CHANGED = (
    dict.fromkeys(INPUTS, input_changed)
    | dict.fromkeys(ATTENTION, attention_changed)
    | {"skipped block": block_skipped, "random blocks": block_skipped}
)
PERTURBATIONS = pytest.mark.parametrize("name", [*CHANGED])


class PlainPerturbed(PlainDetailGuider):
    """c + (cfg − 1)(c − u) + w(c − d), or c + (cfg − 1)(c − d) with d in the negative's place; full forwards."""

    def __init__(self, kind, name, keep, negative_path, **more):
        patcher, blocks, streams, embedder, _, prompts = kind.setting()
        view = {"blocks": blocks, "streams": streams, "embedder": embedder}
        super().__init__(patcher, **prompts, cfg=CFG, w=SCALE, **view)
        self.kind, self.name, self.ratio, self.negative_path = kind, name, keep, negative_path

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        c = self.predict(self.conds["positive"], x, timestep, model_options)
        group = "negative" if self.negative_path else "positive"
        with CHANGED[self.name](self, self.kind, self.name, self.ratio, len(x)):
            d = self.predict(self.conds[group], x, timestep, model_options)
        if self.negative_path:
            return c + (self.cfg - 1) * (c - d)
        u = self.predict(self.conds["negative"], x, timestep, model_options)
        return c + (self.cfg - 1) * (c - u) + self.w * (c - d)


def guided(pack, kind, plan, **options):
    patcher, *_, prompts = kind.setting()
    options |= {"massive_ratio": 1.0, "max_channels": 2}
    options |= {"path": "negative"} if plan == "in place" else {"batching": plan}
    bounds = dict.fromkeys(("layer_start", "layer_end"), (BLOCK + 0.5) / 4)
    return detail_guider(pack, patcher, options, dg_scale=SCALE, cfg=CFG, **prompts, **bounds)


@EVERYWHERE
@OF_KINDS
@PERTURBATIONS
def test_equals_plain_forwards(pack, kind, name, plan, keep):
    *_, noise, prompts = kind.setting()
    options = {} if plan == "in place" else {"keep_start": keep, "keep_end": keep}
    actual, report = reported(pack, guided(pack, kind, plan, perturbation=name, **options), noise=noise)
    expected = sample(PlainPerturbed(kind, name, keep, plan == "in place"), noise=noise)
    assert relative_error(actual, expected) <= 1e-5
    unguided = sample(stock_guider(kind.setting()[0], **prompts), noise=noise)
    assert relative_error(unguided, expected) > 1e-4, "the detail must be large enough to compare"
    assert (report.steps_guided, report.steps_fired, report.plan) == (STEPS, STEPS, plan)
    assert [warning.split(":")[0] for warning in report.warnings] == [name] * (name == "random blocks")


@PLANS
@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_a_skipped_block_is_the_hosts_skip_layer_guidance(pack, kind, batching):
    """SD3 and Flux, whose blocks the host's node knows."""
    patcher, *_, noise, prompts = kind.setting()
    layers = models.subject(kind.name).layers(BLOCK)
    skipping = SkipLayerGuidanceDiT.execute(patcher, SCALE, 0.0, 1.0, **layers)[0]
    actual = sample(guided(pack, kind, batching, perturbation="skipped block"), noise=noise)
    assert relative_error(actual, sample(stock_guider(skipping, **prompts), noise=noise)) <= 1e-5


def test_a_block_that_the_negative_skips_is_the_hosts_simple_node(pack):
    skipping = SkipLayerGuidanceDiTSimple.execute(model(), 0.0, 1.0, str(BLOCK), "")[0]
    options = {"path": "negative", "perturbation": "skipped block"}
    actual = sample(detail_guider(pack, model(), options, dg_scale=CFG - 1, cfg=CFG))
    assert relative_error(actual, sample(stock_guider(skipping, cfg=CFG))) <= 1e-5


def test_random_blocks_are_others_in_each_step_and_the_same_in_equal_runs(pack):
    blocks_of_step = pack.module("methods.detail_guidance.perturbation").blocks_of_step
    options = pack.module("methods.detail_guidance.settings").Options(perturbation="random blocks")
    steps = [tuple(blocks_of_step(options, range(24), step)) for step in range(40)]
    assert all(len(blocks) == 2 for blocks in steps) and len(set(steps)) > 20
    assert set().union(*steps) == set(range(1, 24)), "never the first block"
    assert blocks_of_step(options, range(0, 1), 3) == [0], "but where there is no other"
    whole = {"layer_start": 0.0, "layer_end": 1.0}
    guider = detail_guider(pack, model(), {"perturbation": "random blocks"}, **whole)
    samples, report = reported(pack, guider, steps=4)
    assert torch.equal(sample(guider, steps=4), samples) and report.steps_fired == 4 and report.warnings == []


def test_random_blocks_of_one_layer_are_told(pack):
    _, report = reported(pack, detail_guider(pack, model(), {"perturbation": "random blocks"}))
    assert [warning.split(":")[0] for warning in report.warnings] == ["random blocks"]


@pytest.mark.parametrize("name, value", [("channels", "17"), ("profile", object())])
def test_channels_that_would_do_nothing_are_refused(pack, name, value):
    with pytest.raises(ValueError, match=rf"^{name}: it does nothing with perturbation skipped block"):
        pack.run("DetailGuidanceOptions", perturbation="skipped block", **{name: value})


def test_attention_that_cannot_be_told_is_refused_by_name(pack):
    """Its blocks are not told whose rows they have."""
    name = "PixArt"
    case, patcher = CASES[name], load(name)
    prompts = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    guider = detail_guider(pack, patcher, {"perturbation": "identity attention"}, **prompts)
    with pytest.raises(ValueError, match=r"perturbation: identity attention is not possible at .* of PixArt"):
        sample(guider, noise=case.noise(1))
    assert torch.isfinite(sample(stock_guider(patcher, **prompts), noise=case.noise(1))).all(), "the next run works"


# A perturbation that this pack does not have


class MeanToken:
    """Every token of a picture towards the mean of them all."""

    def observe(self, z):
        return z.mean(dim=1, keepdim=True)

    def apply(self, z, statistics, keep):
        z.sub_(statistics).mul_(keep).add_(statistics)

    def channels(self, statistics):
        return None


class PlainMeanToken(PlainDetailGuider):
    def both(self, x, timestep, model_options):
        def hook(block, args, kwargs):
            context, z, *rest = args
            mean = z.mean(dim=1, keepdim=True)
            return (context, mean + self.keep * (z - mean), *rest), kwargs

        c = self.predict(self.conds["positive"], x, timestep, model_options)
        with hooked(self.inner_model.diffusion_model.joint_blocks, {self.layers[0]: hook}):
            d = self.predict(self.conds["positive"], x, timestep, model_options)
        return c, d


@PLANS
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_one_of_anothers(pack, monkeypatch, batching, keep):
    run = pack.module("methods.detail_guidance.run")
    monkeypatch.setattr(run, "perturbation_at", lambda options, block: MeanToken())
    options = {"batching": batching, "keep_start": keep, "keep_end": keep}
    actual, report = reported(pack, detail_guider(pack, model(), options), batch=2)
    plain = PlainMeanToken(model(), conditioning(1), conditioning(2), 4.0, w=1.5, keep=keep)
    assert relative_error(actual, sample(plain, batch=2)) <= 1e-5
    assert relative_error(actual, sample(stock_guider(model()), batch=2)) > 1e-3
    assert report.steps_fired == 2 and report.channels == {2: []}
    assert torch.isfinite(actual).all()
