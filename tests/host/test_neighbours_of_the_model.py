"""What changes the model itself, its weights, its calls or their order, beside Detail Guidance."""

import threading

import comfy.hooks
import comfy.ops
import comfy.samplers
import comfy.sd
import models
import pytest
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.samplers import CFGGuider
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_cfg import CFGZeroStar
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_model_advanced import RescaleCFG
from comfy_extras.nodes_tcfg import TCFG
from comparison import PLANS, assert_equal, with_context_windows
from family_models import CASES, load, normal
from models import conditioning, latent
from plain import PlainDetailGuider, Stream, above_median, relative_error
from sampling import counting_backend, detail_guider, reported, reports, sample, stock_guider
from test_layouts import OnWan

# Weights


def lora_of(subject, seed=7):
    """A LoRA of rank 2 on the attention projections of every block, as files have them."""
    weights = {}
    for name, value in subject.model.model.diffusion_model.state_dict().items():
        if value.ndim == 2 and name.endswith((".qkv.weight", "linear1.weight")):
            generator = torch.Generator().manual_seed(seed + len(weights))
            key = f"diffusion_model.{name.removesuffix('.weight')}"
            weights[f"{key}.lora_down.weight"] = torch.randn(2, value.shape[1], generator=generator) * 0.2
            weights[f"{key}.lora_up.weight"] = torch.randn(value.shape[0], 2, generator=generator) * 0.2
    return weights


@PLANS
def test_lora(pack, subject, batching):
    patched, _ = comfy.sd.load_lora_for_models(subject.model, None, lora_of(subject), 1.0, 0.0)
    assert relative_error(sample(stock_guider(patched)), sample(stock_guider(subject.model))) > 1e-2
    assert_equal(pack, subject, patched, batching, layers=(1, 2))


@PLANS
def test_lora_hooked_to_one_condition(pack, subject, batching):
    hooks = comfy.hooks.create_hook_lora(lora_of(subject), 1.0, 0.0)
    left = torch.zeros(1, 16, 16)
    left[..., :8] = 1
    hooked = comfy.hooks.set_hooks_for_conditioning(conditioning(1, mask=left, mask_strength=1.0), hooks)
    positive = hooked + conditioning(3, mask=1 - left, mask_strength=1.0)
    without = conditioning(1, mask=left, mask_strength=1.0) + conditioning(3, mask=1 - left, mask_strength=1.0)
    patcher = subject.model.clone()

    def registered(positive):
        guider = detail_guider(pack, patcher, positive=positive)
        return sample(guider)

    assert relative_error(registered(positive), registered(without)) > 1e-2
    assert_equal(pack, subject, patcher, batching, positive, layers=(1, 2))


@PLANS
def test_fp8_weights(pack, subject, batching):
    """Stored in 8 bits, cast to float32 for each operation, as the host's weight_dtype option does."""
    model = subject.model.model
    patcher = models.built(type(model.model_config), model.model_config.unet_config, torch.float8_e4m3fn)
    small = patcher.model.diffusion_model
    small.load_state_dict(model.diffusion_model.state_dict())
    assert torch.float8_e4m3fn in {value.dtype for value in small.state_dict().values()}
    assert_equal(pack, subject, patcher, batching, layers=(1, 2))


@PLANS
def test_weights_that_are_streamed(pack, subject, batching, monkeypatch):
    """Weights that the host casts as they are used, as it does where memory is short: the same result, and in the
    detail rows' forward none of a block before the layers. In turn those from the layers on come once more."""
    expected = sample(detail_guider(pack, subject.model, {"batching": batching}))
    patcher = subject.model.clone()
    detail = detail_guider(pack, patcher, {"batching": batching})
    streamed = []
    forward_of = {module: name for name, module in patcher.model.diffusion_model.named_modules()}
    cast = comfy.ops.cast_bias_weight

    def counting(module, *args, **kwargs):
        streamed.append(forward_of.get(module, ""))
        return cast(module, *args, **kwargs)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", counting)
    modules = [module for module in forward_of if hasattr(module, "comfy_cast_weights")]
    for module in modules:
        module.comfy_cast_weights = True
    try:
        sample(stock_guider(patcher))
        of_stock = list(streamed)
        streamed.clear()
        result = sample(detail)
    finally:
        for module in modules:
            module.comfy_cast_weights = False
    assert relative_error(result, expected) <= 1e-5

    def before(names):
        return [name for name in names if is_before(subject, name, 2)]

    def behind(names):
        return [name for name in names if "_blocks." in name and not is_before(subject, name, 2)]

    assert before(of_stock) and before(streamed) == before(of_stock)
    assert behind(of_stock) and len(behind(streamed)) == len(behind(of_stock)) * (2 if batching == "in turn" else 1)


def is_before(subject, name, block):
    """Whether a module, by its name, lies in one of the blocks before this one."""
    prefix = "joint_blocks" if subject.name == "SD3" else "double_blocks"
    return name.startswith(tuple(f"{prefix}.{number}." for number in range(block)))


# CFG


@PLANS
@pytest.mark.parametrize("node", ["TCFG", "RescaleCFG", "CFGZeroStar"])
def test_cfg_nodes(pack, subject, batching, node):
    patched = {
        "TCFG": lambda: TCFG.execute(subject.model)[0],
        "RescaleCFG": lambda: RescaleCFG().patch(subject.model, 0.7)[0],
        "CFGZeroStar": lambda: CFGZeroStar.execute(subject.model)[0],
    }[node]()
    assert relative_error(sample(stock_guider(patched)), sample(stock_guider(subject.model))) > 1e-3
    assert_equal(pack, subject, patched, batching)


# Sampling


@PLANS
def test_differential_diffusion(pack, subject, batching):
    mask = torch.linspace(0, 1, 16).expand(1, 1, 16, 16).contiguous()
    patched = DifferentialDiffusion.execute(subject.model)[0]
    assert_equal(pack, subject, patched, batching, latent_image=latent(seed=9)["samples"], denoise_mask=mask, steps=3)


@PLANS
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "res_multistep", "lcm", "dpmpp_2m_sde"])
def test_ancestral_and_multistep_samplers(pack, subject, batching, sampler):
    assert_equal(pack, subject, subject.model, batching, sampler=sampler, steps=3)


@PLANS
@pytest.mark.parametrize("steps", [1, 4])
def test_few_steps_without_cfg(pack, subject, batching, steps):
    """As turbo and schnell models sample."""
    guider = detail_guider(pack, subject.model, {"batching": batching}, cfg=1.0)
    plain = subject.plain(subject.model, conditioning(1), w=1.5)
    assert relative_error(sample(guider, steps=steps), sample(plain, steps=steps)) <= 1e-5


@PLANS
def test_two_stages_with_split_sigmas(pack, subject, batching):
    """Detail Guidance in the second stage only: the first is the stock guider's, the second the plain one's."""

    def stages(second):
        sigmas = comfy.samplers.calculate_sigmas(subject.model.get_model_object("model_sampling"), "simple", 4)
        euler = comfy.samplers.sampler_object("euler")
        noise = latent(seed=5)["samples"]
        half = stock_guider(subject.model).sample(noise, noise * 0, euler, sigmas[:3], seed=5)
        return second.sample(noise * 0, half, euler, sigmas[2:], seed=5)

    guided = stages(detail_guider(pack, subject.model, {"batching": batching}))
    plain = stages(subject.plain(subject.model, conditioning(1), conditioning(2), 4.0, w=1.5))
    assert relative_error(guided, plain) <= 1e-5
    assert relative_error(stages(stock_guider(subject.model)), plain) > 1e-3


@PLANS
def test_context_windows(pack, batching):
    """Overlapping parts of a video's frames are blended; the detail prediction like the others."""
    case = CASES["Wan text to video"]
    patched = with_context_windows(load("Wan text to video"), frames=3)
    noise = normal(5, 1, 16, 7, 8, 8)
    positive, negative = case.conditioning(1), case.conditioning(2)
    options = {"batching": batching, "massive_ratio": 1.0}
    guider = detail_guider(pack, patched, options, positive=positive, negative=negative)
    guided, report = reported(pack, guider, noise=noise)
    assert report.steps_fired == report.steps == 2 and report.warnings == [] and report.plan == batching
    assert list(report.channels) == [2] and report.channels[2] and len(report.peak_ratios) == 4
    # Newer hosts put the frame before a window in front of it; nothing else stands in the stream.
    find, view = lambda z: above_median(z, ratio=1.0), {"blocks": case.blocks, "streams": [Stream("x")] * 4}
    plain = sample(PlainDetailGuider(patched, positive, negative, 4.0, w=1.5, find=find, **view), noise=noise)
    assert relative_error(guided, plain) <= 1e-5
    assert relative_error(sample(stock_guider(patched, positive, negative), noise=noise), plain) > 1e-3


# Caches


class PlainBesideCache(PlainDetailGuider):
    """The cache's own CFG prediction, and w(c − d) without the cache: of this step where the model was asked, otherwise
    the last such step's, kept as a velocity."""

    def predict_noise(self, x, timestep, model_options={}, seed=None):
        asked = []
        blocks = self.blocks(self.inner_model.diffusion_model)
        handle = blocks[0].register_forward_pre_hook(lambda *_: asked.append(True))
        base = CFGGuider.predict_noise(self, x, timestep, model_options, seed)
        handle.remove()
        if asked:
            options = create_model_options_clone(model_options)
            for wrappers in options["transformer_options"]["wrappers"].values():
                wrappers.pop("easycache", None)
            c, d = self.both(x, timestep, options)
            self.velocity = (c - d) / timestep[0]
        return base + self.w * self.velocity * timestep[0]


@PLANS
def test_easycache_keeps_the_detail_term(pack, subject, batching):
    patched = EasyCacheNode.execute(subject.model, 1e6, 0.15, 0.95, False)[0]
    view = {"blocks": subject.blocks, "streams": subject.streams, "embedder": subject.embedder}
    plain = PlainBesideCache(patched, conditioning(1), conditioning(2), 4.0, w=1.5, **view)
    guided, report = reported(pack, detail_guider(pack, patched, {"batching": batching}), steps=8)
    assert relative_error(guided, sample(plain, steps=8)) <= 1e-5
    assert relative_error(guided, sample(stock_guider(patched), steps=8)) > 1e-3
    cached = report.steps_guided - report.steps_fired
    assert report.steps_guided == 8 and (cached > 0) == (subject.name == "Flux")  # on SD3 the host's cache does nothing
    assert ("took the detail of an earlier step" in " ".join(report.warnings)) == (cached > 0)
    assert report.plan == "in turn"


@PLANS
def test_easycache_that_answers_before_the_first_guided_step(pack, batching):
    """Nothing is known then to add: those steps add nothing, and the report says so."""
    patched = EasyCacheNode.execute(models.subject("Flux").model, 1e6, 0.1, 0.95, False)[0]
    guider = detail_guider(pack, patched, {"batching": batching}, start_percent=0.4)
    samples, report = reported(pack, guider, steps=8)
    assert "guided steps added nothing" in " ".join(report.warnings)
    assert samples.isfinite().all()


@PLANS
def test_detail_rows_have_an_id_of_their_own_that_stays(pack, subject, batching):
    """Caches are keyed by it."""
    seen = []

    def noting(apply_model, args):
        seen.append(args["c"]["transformer_options"]["uuids"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    patched = subject.model.clone()
    patched.set_model_unet_function_wrapper(noting)
    sample(detail_guider(pack, patched, {"batching": batching}), steps=3)
    assert len({uuid for uuids in seen for uuid in uuids}) == 3, "positive, negative, detail"


def test_lazycache_keeps_the_detail_term(pack, subject):
    """It answers for whole steps, detail and all."""
    patched = LazyCacheNode.execute(subject.model, 5.0, 0.15, 0.95, False)[0]
    samples, report = reported(pack, detail_guider(pack, patched), steps=8)
    assert 1 < report.steps < 8 and report.steps_fired == report.steps and report.warnings == []
    assert relative_error(samples, sample(stock_guider(patched), steps=8)) > 1e-3


# Compilation


@PLANS
@pytest.mark.parametrize("filtered", [False, True])
def test_a_compiled_model(pack, subject, batching, filtered):
    """The host's node, here and as newer hosts have it: those keep a graph whatever transformer_options says. Guided
    steps run without it, the others with it."""
    patched = subject.model.clone()
    options = {"guard_filter_fn": lambda guards: ["transformer_options" not in guard.name for guard in guards]}
    runs = []
    set_torch_compile_wrapper(patched, backend=counting_backend(runs), options=options if filtered else None)
    inputs = {"start_percent": 0.4}
    expected = sample(detail_guider(pack, subject.model, {"batching": batching}, **inputs))
    try:
        sample(stock_guider(patched), steps=1)
        of_a_step = len(runs)
        runs.clear()
        guided, report = reported(pack, detail_guider(pack, patched, {"batching": batching}, **inputs))
    finally:
        torch.compiler.reset()
    assert relative_error(guided, expected) <= 1e-5
    assert report.steps == 2 and report.steps_fired == 1 and len(runs) == of_a_step > 0
    assert "without torch.compile" in " ".join(report.warnings)


def test_a_compiled_model_as_an_object_patch(pack, subject):
    """As other packs compile."""
    patched = subject.model.clone()
    compiled = torch.compile(patched.get_model_object("diffusion_model"), backend="eager")
    patched.add_object_patch("diffusion_model", compiled)
    expected = sample(detail_guider(pack, subject.model), steps=1)
    try:
        guided, report = reported(pack, detail_guider(pack, patched), steps=1)
    finally:
        torch.compiler.reset()
    assert relative_error(guided, expected) <= 1e-5
    assert "without torch.compile" in " ".join(report.warnings)


@PLANS
def test_compiled_blocks(pack, subject, batching):
    patched = subject.model.clone()
    kind, attribute = ("joint_blocks", 2) if subject.name == "SD3" else ("single_blocks", 0)
    runs = []
    set_torch_compile_wrapper(patched, backend=counting_backend(runs), keys=[f"diffusion_model.{kind}.{attribute}"])
    expected = sample(detail_guider(pack, subject.model, {"batching": batching}), steps=1)
    try:
        guided, report = reported(pack, detail_guider(pack, patched, {"batching": batching}), steps=1)
    finally:
        torch.compiler.reset()
    assert relative_error(guided, expected) <= 1e-5 and report.warnings == []
    # On a CPU the host's attention asks the system for free memory; with SD3's block dynamo gives up there.
    assert runs or subject.name == "SD3"


# Order, threads, queues


@PLANS
@pytest.mark.parametrize("first", ["detail guidance", "the other"])
def test_another_block_patch_in_both_orders(pack, subject, batching, first):
    def flip(args, extra):
        out = extra["original_block"](args)
        return {**out, "img": out["img"].flip(-1) * 0.5 + out["img"]}

    def other(patcher):
        patcher = patcher.clone()
        patcher.set_model_patch_replace(flip, "dit", *subject.block(2))
        return patcher

    def detail(patcher):
        options = pack.run("DetailGuidanceOptions", batching=batching)
        return pack.run("DetailGuidance", model=patcher, dg_scale=1.5, layer_start=0.5, layer_end=0.5, options=options)

    patched = other(detail(subject.model)) if first == "detail guidance" else detail(other(subject.model))
    plain = subject.plain(other(subject.model), conditioning(1), conditioning(2), 4.0, w=1.5)
    assert relative_error(sample(stock_guider(patched)), sample(plain)) <= 1e-5


def each_chunk_in_a_thread(apply_model, args):
    """As the host spreads the conditions of one call over several GPUs."""
    x, timestep, c, chunks = args["input"], args["timestep"], args["c"], len(args["cond_or_uncond"])
    options = c["transformer_options"]
    outputs = [None] * chunks

    def part(value, number):
        whole = torch.is_tensor(value) and value.shape[0] == x.shape[0]
        return value.chunk(chunks)[number] if whole else value

    def run(number):
        labels = {name: [options[name][number]] for name in ("cond_or_uncond", "uuids")}
        rest = {name: part(value, number) for name, value in c.items() if name != "transformer_options"}
        mine = {**options, **labels}
        inputs = part(x, number), part(timestep, number)
        with torch.inference_mode():
            outputs[number] = apply_model(*inputs, **rest, transformer_options=mine)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(chunks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return torch.cat(outputs)


@PLANS
@pytest.mark.parametrize("name", ["SD3", "Flux", "Lumina 2"])
def test_conditions_in_threads_of_their_own(pack, batching, name):
    """Lumina 2's hook is this pack's own."""
    if name == "Lumina 2":
        case = CASES[name]
        patcher, noise = load(name), normal(5, 2, *case.latent)
        positive, negative = case.conditioning(1), case.conditioning(2)
        another, options = case.conditioning(3), {"massive_ratio": 1.0}
    else:
        patcher, noise = models.subject(name).model, latent(2, seed=5)["samples"]
        positive, negative, another, options = conditioning(1), conditioning(2), conditioning(3), {}
    left = torch.zeros(1, *noise.shape[-2:])
    left[..., : noise.shape[-1] // 2] = 1
    positive = [[positive[0][0], {**positive[0][1], "mask": left, "mask_strength": 1.0}]]
    positive += [[another[0][0], {**another[0][1], "mask": 1 - left, "mask_strength": 1.0}]]
    inputs = {"positive": positive, "negative": negative, "layer_start": 0.5, "layer_end": 0.75}
    options = {**options, "batching": batching}
    expected = sample(detail_guider(pack, patcher, options, **inputs), noise=noise)
    threaded = patcher.clone()
    threaded.set_model_unet_function_wrapper(each_chunk_in_a_thread)
    actual, report = reported(pack, detail_guider(pack, threaded, options, **inputs), noise=noise)
    assert relative_error(actual, expected) <= 1e-5
    assert report.plan == "in turn" and report.steps_fired == report.steps_guided


def test_runs_queued_one_after_another_do_not_see_each_others_channels(pack):
    patcher = models.model_without_massive_channels()
    options = {"massive_ratio": 1.0, "max_channels": 1}

    def run(seed):
        samples, report = reported(pack, detail_guider(pack, patcher, options, positive=conditioning(seed)))
        return samples, report.channels

    (first, of_first), (second, of_second), (again, of_again) = run(1), run(3), run(1)
    assert of_first != of_second and of_first == of_again
    assert torch.equal(first, again) and not torch.equal(first, second)


# Small neighbours of a kind, where the packs themselves cannot be had


@PLANS
def test_guidance_that_keeps_its_state_in_the_model_options(pack, subject, batching):
    """As MomentumGuidance and SlidingModeControlCFG of sd-perturbed-attention do, from step to step."""

    def with_momentum(args):
        update = args["cond_denoised"] - args["uncond_denoised"]
        options = args["model_options"]
        options["momentum"] = update + 0.5 * options.get("momentum", 0)
        return args["denoised"] + 0.3 * options["momentum"]

    patched = subject.model.clone()
    patched.set_model_sampler_post_cfg_function(with_momentum)
    assert_equal(pack, subject, patched, batching, steps=3)


@PLANS
def test_a_forward_within_a_block_that_halves_the_batch(pack, batching):
    """As KJ's WanVideoNAG does: the first half of the rows is the positive's, where there is a second one."""
    case, patcher = CASES["Wan text to video"], load("Wan text to video").clone()
    halved = []
    for number in range(case.depth):
        name = f"diffusion_model.blocks.{number}.cross_attn.forward"
        original = patcher.get_model_object(name)

        def forward(x, context, *args, original=original, **kwargs):
            if len(x) == 1:
                return original(x, context, *args, **kwargs)
            (one, other), contexts = x.chunk(2), context.chunk(2)
            halved.append(len(x))
            parts = original(one, contexts[0], *args, **kwargs), original(other, contexts[1], *args, **kwargs)
            return torch.cat([1.5 * parts[0] - 0.5 * parts[1], parts[1]])

        patcher.add_object_patch(name, forward)
    noise = normal(5, 1, *case.latent)
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2), "cfg": 4.0}
    options = {"massive_ratio": 1.0, "max_channels": 4, "batching": batching}
    guider = detail_guider(pack, patcher, options, layer_start=0.6, layer_end=0.6, **inputs)
    actual, report = reported(pack, guider, noise=noise)
    expected = OnWan(patcher)
    expected.keep = 0.0
    expected.set_conds(inputs["positive"], inputs["negative"])
    expected.set_cfg(4.0)
    assert relative_error(actual, sample(expected, noise=noise)) <= 1e-5
    assert set(halved) == {2} and report.plan == "in turn"


@PLANS
def test_a_cache_that_keeps_a_state_for_each_of_two_conditions_is_refused(pack, subject, batching):
    """As TeaCache does in its wrapper around the model."""

    class TeaCache:
        def __call__(self, apply_model, args):
            return apply_model(args["input"], args["timestep"], **args["c"])

    patched = subject.model.clone()
    patched.set_model_unet_function_wrapper(TeaCache())
    guider = detail_guider(pack, patched, {"batching": batching})
    with pytest.raises(ValueError, match=r"cannot work beside .*TeaCache: it keeps a state"):
        sample(guider)
    assert sample(stock_guider(patched)).isfinite().all()


def test_a_wrapper_that_fails_is_named(pack, subject):
    states = {0: [], 1: []}

    def by_condition(apply_model, args):
        for condition in args["cond_or_uncond"]:
            states[condition].append(args["input"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    patched = subject.model.clone()
    patched.set_model_unet_function_wrapper(by_condition)
    with pytest.raises(
        RuntimeError, match=r"by_condition, another node's wrapper around the model, failed .*KeyError: 2"
    ):
        sample(detail_guider(pack, patched, {"batching": "together"}))


def test_a_wrapper_is_not_blamed_for_others_errors(pack, subject):
    def passing(apply_model, args):
        return apply_model(args["input"], args["timestep"], **args["c"])

    patched = subject.model.clone()
    patched.set_model_unet_function_wrapper(passing)
    wrong = [[torch.zeros(1, 7, 5), conditioning(1)[0][1]]]
    with pytest.raises(RuntimeError) as error:
        sample(detail_guider(pack, patched, positive=wrong, negative=wrong))
    assert "another node" not in str(error.value)


def test_off_over_an_earlier_node_says_nothing(pack, subject):
    guided = pack.run("DetailGuidance", model=subject.model)
    off = pack.run("DetailGuidance", model=guided, dg_scale=0.0)
    with reports(pack) as published:
        sample(stock_guider(off))
    assert published == []


def test_not_enabled_is_as_if_the_node_were_not_there(pack, subject):
    earlier = pack.run("DetailGuidance", model=subject.model)
    assert pack.run("DetailGuidance", model=earlier, enabled=False) is earlier
    assert pack.run("DetailGuidance", model=earlier, enabled=False, layer_start=0.9, layer_end=0.1) is earlier


def test_the_node_on_the_model_that_is_not_asked(pack, subject):
    """Of a guider that predicts the negative with a model of its own, as core's DualModelGuider does."""

    class TwoModels(CFGGuider):
        def outer_sample(self, *args, **kwargs):
            other.pre_run()
            return super().outer_sample(*args, **kwargs)

    other = pack.run("DetailGuidance", model=subject.model)
    guider = TwoModels(subject.model)
    guider.set_conds(conditioning(1), conditioning(2))
    with reports(pack) as published:
        sample(guider)
    (report,) = published
    assert report.steps == 0 and "If it has two models" in report.warnings[0]
    guider.model_patcher = pack.run("DetailGuidance", model=subject.model)
    with reports(pack) as published:
        sample(guider)
    assert [report.steps_fired for report in published] == [2]
