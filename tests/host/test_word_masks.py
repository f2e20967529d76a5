"""Detail only where words, or the foreground, are: against the plain implementation, and what is said of it."""

import json
import re
from dataclasses import replace

import pytest
import torch
from comfy.model_patcher import create_model_options_clone
from comfy.patcher_extension import add_wrapper_with_key
from comfy_extras.nodes_easycache import EasyCacheNode
from comparison import PLANS, with_context_windows
from family_models import CASES, load
from models import conditioning, model
from plain import PlainDetailGuider, relative_error
from sampling import counted, detail_guider, reported, sample, stock_guider
from test_families import TOP, of_cases, plain, setting
from test_words import prompt_words, reference, words_of  # noqa: F401  a fixture

SOFT = 0.5
JOINT = [
    "Flux",
    "Flux.2",
    "Qwen-Image",
    "Wan text to video",
    "HunyuanVideo",
    "AuraFlow",
    "LTX-Video",
    "Cosmos Predict2",
]
CALIBRATION = {
    name: [value]
    for name, value in {
        "seed": 1,
        "steps": 2,
        "cfg": 3.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "layers": "0.5",
        "scales": "0.25",
        "save_preset": False,
        "start_percent": 0.0,
    }.items()
}
UNTOLD = ["PixArt", "HunyuanDiT", "Wan speech to video"]


def foreground(pack, **inputs):
    return pack.run("DetailForeground", **inputs)


def expected_masks(seen):
    """Of the maps that each step has shown: their mean so far, the words' share, an edge of the width SOFT, and the
    largest of the words."""
    masks = []
    for step in range(len(seen)):
        maps = torch.stack(seen[: step + 1]).mean(dim=0)
        share = maps[:, :-1] / (maps[:, :-1] + maps[:, -1:])
        masks.append(((share - 0.5) / SOFT + 0.5).clamp(0, 1).amax(dim=1, keepdim=True))
    return masks


def masked(pack, plain_guider, words):
    """A plain guider that first reads an undisturbed forward of the positive, and weights the detail term with it."""
    anatomy = pack.module("dit.anatomy").anatomy_of(plain_guider.model_patcher)
    plain_guider.model_patcher = plain_guider.model_patcher.clone()
    pack.module("dit.block_hooks").install(plain_guider.model_patcher, anatomy.family)
    reader, seen = pack.module("methods.regions.reader").RegionReader(words, anatomy), []

    class Masked(type(plain_guider)):
        def predict_noise(self, x, timestep, model_options={}, seed=None):
            watched = create_model_options_clone(model_options)
            for kind, wrapper in reader.wrappers.items():
                add_wrapper_with_key(kind, "test", wrapper, watched, is_model_options=True)
            with reader.reading(self.conds["positive"], x.shape):
                self.predict(self.conds["positive"], x, timestep, watched)
            seen.append(reader.taken())
            self.mask = expected_masks(seen)[-1]
            guided = super().predict_noise(x, timestep, model_options, seed)
            w, self.w = self.w, 0.0
            base = super().predict_noise(x, timestep, model_options, seed)
            self.w = w
            assert 0.01 < self.mask.mean() < 0.99, "it matters where"
            return base + self.mask * (guided - base)

    plain_guider.__class__ = Masked
    return plain_guider


def assert_equal(pack, case, patcher, inputs, batch, words, batching, steps=3):
    layer = 2.5 / case.depth
    options = {**TOP, "keep_start": 0.25, "keep_end": 0.25, "batching": batching, "words": words, "words_soft": SOFT}
    guider = detail_guider(pack, patcher, options, layer_start=layer, layer_end=layer, **inputs)
    actual = sample(guider, noise=case.noise(batch), steps=steps)
    guider = masked(pack, plain(case, patcher, **inputs, layers=(2,)), words)
    expected = sample(guider, noise=case.noise(batch), steps=steps)
    assert relative_error(actual, expected) <= 1e-5
    everywhere = sample(plain(case, patcher, **inputs, layers=(2,)), noise=case.noise(batch), steps=steps)
    assert relative_error(everywhere, expected) > 1e-3


@PLANS
@pytest.mark.parametrize("block", [1, 2])
@of_cases(*JOINT)
def test_words_against_the_plain_implementation(pack, name, block, batching):
    case, patcher, batch, inputs = setting(name)
    if name == "HunyuanVideo" and block > 1:
        pytest.skip("its single blocks do not tell where the prompt is")
    assert_equal(pack, case, patcher, inputs, batch, words_of(pack, case.text, (block + 0.5) / case.depth), batching)


@PLANS
@of_cases(*JOINT, "Chroma", "HiDream", "Lumina 2", "Z-Image", "OmniGen2", "Mochi", "Cosmos", "Flux Kontext")
def test_foreground_against_the_plain_implementation(pack, name, batching):
    """Read before the layer that is disrupted, at it, and behind it."""
    case, patcher, batch, inputs = setting(name)
    for block in (1, 2, 3):
        words = foreground(pack, layer=(block + 0.5) / case.depth, max_channels=4)
        assert_equal(pack, case, patcher, inputs, batch, words, batching)


@of_cases(*(name for name in CASES if name not in UNTOLD and "cached" not in name and not name.startswith("LTX-2")))
def test_largest_channels_by_an_ordinary_hook(pack, name):
    case, patcher, batch, inputs = setting(name)
    block, shown = 2, []
    anatomy = pack.module("dit.anatomy").anatomy_of(patcher)
    read = pack.module("methods.regions.reader").foreground_patches
    sought = foreground(pack, layer=(block + 0.5) / case.depth, max_channels=3)
    guider = stock_guider(patcher, inputs["positive"], inputs["negative"], cfg=inputs["cfg"])

    def patches_for(batch):
        layout = pack.module("dit").token_layout(anatomy.family, anatomy.network, batch.latent, batch.conditions, {})
        wanted = {cond["uuid"] for cond in guider.conds["positive"]}
        return read(sought, anatomy, layout, wanted, lambda *seen: shown.append(seen), compare_order=True)

    clone = patcher.clone()
    pack.module("dit.block_hooks").install(clone, anatomy.family)
    clone.add_wrapper_with_key("apply_model", "test", pack.module("dit.forward").patched(patches_for))
    guider.model_patcher = clone
    sample(guider, noise=case.noise(batch), steps=1)

    stream, seen = case.streams[block], []

    def hook(block, args, kwargs):
        arguments, key = stream.find(block, args, kwargs)
        seen.append(stream.picture(arguments[key], None).flatten(1, -2).clone())

    handle = case.blocks(patcher.model.diffusion_model)[block].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        alone = stock_guider(patcher, inputs["positive"], cfg=1.0)
        sample(alone, noise=case.noise(batch), steps=1)
    finally:
        handle.remove()
    ((_, _, values),) = shown
    (z,) = seen
    for found, tokens in zip(values, z, strict=True):
        largest = tokens.abs().mean(dim=0).argsort(descending=True)[:3]
        assert relative_error(found, tokens[:, largest].T) <= 1e-5


def test_with_a_mask_both_count(pack):
    patcher, words = model(), words_of(pack, 7, 0.4)
    half = torch.zeros(1, 16, 16)
    half[..., 8:] = 1
    one = {"steps": 1, "batch": 2}
    base = sample(stock_guider(patcher), **one)
    of_words = sample(detail_guider(pack, patcher, {"words": words, "words_soft": SOFT}), **one) - base
    of_both = sample(detail_guider(pack, patcher, {"words": words, "words_soft": SOFT, "mask": half}), **one) - base
    torch.testing.assert_close(of_both, half * of_words, rtol=1e-3, atol=1e-5)
    assert of_words[..., 8:].norm() > 1e-3


def test_a_step_that_reuses_reads_nothing(pack, monkeypatch):
    calls, read = [], pack.module("methods.regions.reader").word_attention
    monkeypatch.setattr(
        pack.module("methods.regions.reader"), "word_attention", lambda *args: calls.append(1) or read(*args)
    )
    guider = detail_guider(pack, model(), {"words": words_of(pack, 7, 0.4), "every": 3})
    _, report = reported(pack, guider, steps=8)
    assert 2 <= report.steps_fired < report.steps_guided == 8 and len(calls) == report.steps_fired


def test_steps_that_a_cache_answers_keep_the_mask(pack, monkeypatch):
    calls, read = [], pack.module("methods.regions.reader").word_attention
    monkeypatch.setattr(
        pack.module("methods.regions.reader"), "word_attention", lambda *args: calls.append(1) or read(*args)
    )
    case, patcher, _, inputs = setting("Flux")
    cached = EasyCacheNode.execute(patcher, 1e6, 0.15, 0.95, False)[0]
    guider = detail_guider(pack, cached, {**TOP, "words": words_of(pack, case.text, 0.4)}, **inputs)
    samples, report = reported(pack, guider, noise=case.noise(2), steps=8)
    assert 0 < report.steps_fired < report.steps_guided == 8 and len(calls) == report.steps_fired
    assert samples.isfinite().all() and report.mask is not None
    assert not [warning for warning in report.warnings if "added nothing" in warning]


def test_outside_the_window_and_off_nothing_is_read(pack, monkeypatch):
    def never(*_):
        raise AssertionError("it was read")

    monkeypatch.setattr(pack.module("methods.regions.reader"), "word_attention", never)
    patcher, options = model(), {"words": words_of(pack, 7, 0.4)}
    with counted(patcher) as stock_rows:
        expected = sample(stock_guider(patcher))
    for values in ({"start_percent": 0.6, "end_percent": 0.7}, {"dg_scale": 0.0}, {"enabled": False}):
        with counted(patcher) as rows:
            assert torch.equal(sample(detail_guider(pack, patcher, options, **values)), expected)
        assert rows == stock_rows


def test_not_one_block_more(pack):
    """Reading costs no row of a block."""
    patcher = model()
    with counted(patcher) as expected:
        sample(detail_guider(pack, patcher), batch=2)
    for words in (words_of(pack, 7, 0.4), foreground(pack)):
        with counted(patcher) as rows:
            sample(detail_guider(pack, patcher, {"words": words}), batch=2)
        assert rows == expected


# What is said


def test_the_report(pack, reference):  # noqa: F811
    words, positive = prompt_words(pack, reference, "wood planks", "wood, planks")
    inputs = {"positive": positive, "negative": conditioning_of(reference, "")}
    guider = detail_guider(pack, reference[0], {"words": words}, **inputs)
    _, report = reported(pack, guider, batch=2)
    assert list(report.covered) == ["wood", "planks"] and all(0 <= share <= 1 for share in report.covered.values())
    assert len(report.mask) == 16 and {len(row) for row in report.mask} == {16}
    assert all(0 <= cell <= 100 for row in report.mask for cell in row)
    assert f", wood {report.covered['wood']:.0%}, planks" in report.line() and "mask" not in report.summary()
    _, without = reported(pack, detail_guider(pack, reference[0], **inputs))
    assert (
        without.covered == {} and without.mask is None and without.line().endswith(f"{without.relative_strength:.3f}")
    )


def conditioning_of(reference, text):  # noqa: F811
    return reference[1].encode_from_tokens_scheduled(reference[1].tokenize(text))


@pytest.mark.parametrize(
    "share, message",
    [
        (0.1, r"words: 'one' was found nowhere in 1 of 2 pictures, .* Take another word"),
        (0.9, r"words: 'one' covers the whole of 1 of 2 pictures, so that detail was added everywhere"),
    ],
)
def test_found_nothing_and_covers_all(pack, share, message):
    patcher, words = model(), replace(words_of(pack, 7, 0.4), names=("one",), places=((1,), (0, 3)))
    masks = pack.module("methods.regions.provider").RegionMasks(
        words, 0.2, pack.module("dit.anatomy").anatomy_of(patcher)
    )
    masks._maps, masks._steps = torch.full((2, 2, 4, 4), 0.5), 1
    masks._maps[0] = torch.tensor([share, 1 - share]).view(2, 1, 1)
    masks._maps[1, 0, 0] = 0.9  # of the second picture a part
    masks._maps[1, 1, 0] = 0.1
    masks._maps[1, 0, 1:] = 0.1
    (warning,) = masks.warnings()
    assert pytest.approx(masks.by_name()["one"][1].mean().item(), abs=0.2) == 0.25
    assert re.search(message, warning)


def test_a_prompt_that_is_never_active(pack):
    """Its part of the schedule lies outside the guided one: nothing is added, and that is said."""
    patcher, words = model(), replace(words_of(pack, 7, 0.4), prompt="mine")
    ((prompt, options),) = conditioning(1)
    late = [prompt, {**options, "detail_guidance_words": "mine", "start_percent": 0.9, "end_percent": 1.0}]
    positive = [*conditioning(1), late]
    guider = detail_guider(pack, patcher, {"words": words}, positive=positive, end_percent=0.4)
    samples, report = reported(pack, guider)
    assert relative_error(samples, sample(stock_guider(patcher, positive))) <= 1e-5
    assert "words: 1 guided steps added nothing, because the model had not yet been asked for their prompt" in " ".join(
        report.warnings
    )
    assert report.mask is None


def test_words_of_another_prompt(pack):
    words = replace(words_of(pack, 7, 0.4), prompt="mine")
    with pytest.raises(
        ValueError, match=r"words: the positive is of another prompt\. Connect Detail Prompt Words' own"
    ):
        sample(detail_guider(pack, model(), {"words": words}))


def test_models_that_cannot_be_read_are_refused_at_the_node(pack):
    with pytest.raises(ValueError, match=r"words: PixArt does not tell its attention to the prompt. Use a mask"):
        detail_guider(pack, load("PixArt"), {"words": words_of(pack, 5, None)})


@of_cases(*UNTOLD)
def test_models_whose_blocks_are_not_told_whose_rows_they_have(pack, name):
    with pytest.raises(ValueError, match=r"does not tell its blocks whose rows they are given.* Use a mask"):
        detail_guider(pack, load(name), {"words": foreground(pack)})


@PLANS
@pytest.mark.parametrize("kind", ["words", "foreground"])
def test_areas_and_several_conditions(pack, kind, batching):
    """Of each condition in its area; the host gives the negative a copy of the area's, of which nothing is read."""
    patcher = model()
    words = words_of(pack, 7, 0.4) if kind == "words" else foreground(pack, layer=0.4, max_channels=4)
    ((prompt, options),) = conditioning(1)
    positive = [[prompt, {**options, "area": (8, 12, 0, 4), "strength": 1.0}], *conditioning(3)]
    inputs = {"positive": positive, "negative": conditioning(2)}
    options = {"batching": batching, "words": words, "words_soft": SOFT}
    actual = sample(detail_guider(pack, patcher, options, **inputs), batch=2, steps=3)
    plain_guider = PlainDetailGuider(patcher, **inputs, cfg=4.0, w=1.5, host_cfg=True)
    expected = sample(masked(pack, plain_guider, words), batch=2, steps=3)
    assert relative_error(actual, expected) <= 1e-5


def test_a_guider_whose_positive_is_not_the_first(pack):
    """As DualCFGGuider asks: the negative, a middle one, the positive."""
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG

    patcher, words, seen = model(), foreground(pack), {}
    for name, made in {"dual": Guider_DualCFG, "plain": None}.items():
        options = pack.run("DetailGuidanceOptions", words=words)
        guided = pack.run(
            "DetailGuidance", model=patcher, dg_scale=1.5, layer_start=0.5, layer_end=0.5, options=options
        )
        if made is None:
            guider = stock_guider(guided, conditioning(1), conditioning(2), cfg=4.0)
        else:
            guider = made(guided)
            guider.set_conds(conditioning(1), conditioning(2), conditioning(2))
            guider.set_cfg(4.0, 1.0)
        _, seen[name] = reported(pack, guider, steps=1)
    assert seen["dual"].covered == pytest.approx(seen["plain"].covered, abs=1e-4)


def test_the_first_answer_of_a_step_counts(pack):
    """Skip-layer guidance asks for the positive once more, with blocks left out."""
    from comfy_extras.nodes_slg import SkipLayerGuidanceDiT

    patcher, words, found = model(), words_of(pack, 7, 0.9), []
    skipping = SkipLayerGuidanceDiT.execute(patcher, 3.0, 0.0, 1.0, double_layers="1", single_layers="")[0]
    for each in (patcher, skipping):
        seen = []
        watched = pack.module("methods.regions.reader").read_each_step(each, words, seen.append)
        sample(stock_guider(watched), steps=1)
        found.append(seen)
    assert torch.equal(*(seen[0] for seen in found)) and [len(seen) for seen in found] == [1, 1]


def test_a_guider_without_a_positive(pack):
    """The report says that nothing was guided, as it does without words."""
    options = pack.run("DetailGuidanceOptions", words=foreground(pack))
    guided = pack.run("DetailGuidance", model=model(), options=options)
    guider = stock_guider(guided)
    guider.conds = guider.original_conds = {"other": guider.original_conds["positive"]}
    guider.predict_noise = lambda x, *args, **more: x
    _, report = reported(pack, guider)
    assert "did not ask for a prediction of its positive" in " ".join(report.warnings)


def test_what_is_read_of_a_guider_that_answers_itself_is_dropped(pack):
    patcher, words = model(), words_of(pack, 7, 0.4)
    guider = detail_guider(pack, patcher, {"words": words}, end_percent=0.3)
    asked = guider.predict_noise
    guider.predict_noise = lambda x, timestep, *args, **more: x if timestep > 0.7 else asked(x, timestep, *args, **more)
    expected = stock_guider(patcher)
    by_host = expected.predict_noise
    expected.predict_noise = lambda x, timestep, *args, **more: (
        x if timestep > 0.7 else by_host(x, timestep, *args, **more)
    )
    with counted(patcher) as rows:
        samples, report = reported(pack, guider, steps=8)
    with counted(patcher) as stock_rows:
        assert torch.equal(samples, sample(expected, steps=8))
    assert rows == stock_rows and report.mask is None and report.steps_guided == 0


def test_numbers_that_are_none(pack):
    """The page reads the report as JSON, which has no NaN."""
    guider = detail_guider(pack, model(), {"words": foreground(pack)})
    _, report = reported(pack, guider, noise=torch.full((1, 16, 16, 16), torch.nan))
    json.dumps([report.covered, report.mask], allow_nan=False)
    assert all(0 <= cell <= 100 for row in report.mask for cell in row)
    assert "predictions of 1 of the pictures are not finite numbers" in " ".join(report.warnings)


def test_calibrating_prompts_that_do_not_have_the_words(pack, reference):  # noqa: F811
    words, positive = prompt_words(pack, reference)
    options = pack.run("DetailGuidanceOptions", words=words)
    given = {"model": [reference[0]], "vae": [reference[2]], "options": [options]}
    given["latent_image"] = [{"samples": torch.zeros(1, 16, 16, 16)}]
    another = conditioning_of(reference, "rock")
    with pytest.raises(ValueError, match="options: their words are of another prompt than positive 2 of 2"):
        pack.outputs(
            "DetailGuidanceCalibrate", **given, positive=[positive, another], negative=[another], **CALIBRATION
        )


def test_context_windows_are_refused(pack):
    case, patcher = CASES["Wan text to video"], load("Wan text to video")
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    guider = detail_guider(pack, with_context_windows(patcher, 2), {"words": foreground(pack)}, **inputs)
    with pytest.raises(ValueError, match="words: they cannot be read in context windows"):
        sample(guider, noise=case.noise(1))
    whole = sample(detail_guider(pack, patcher, {"words": foreground(pack)}, **inputs), noise=case.noise(1))
    guider = detail_guider(pack, with_context_windows(patcher, 3), {"words": foreground(pack)}, **inputs)
    assert torch.equal(sample(guider, noise=case.noise(1)), whole), "three frames in windows of three"


def test_an_engine_that_keeps_its_attention_to_itself(pack, monkeypatch):
    """Nothing is read where the words are: an error at the first guided step, and not detail everywhere."""
    monkeypatch.setattr(pack.module("dit.attention"), "_slices", lambda *_: None)
    with pytest.raises(ValueError, match="words: nothing was read"):
        sample(detail_guider(pack, model(), {"words": words_of(pack, 7, 0.4)}))


def test_a_sampler_that_changes_the_latents_size(pack):
    anatomy = pack.module("dit.anatomy").anatomy_of(model())
    masks = pack.module("methods.regions.provider").RegionMasks(foreground(pack), 0.2, anatomy)
    for size in (8, 16):
        masks._reader.taken = lambda size=size: torch.rand(1, 2, size, size)
        masks.end_step([], True, torch.device("cpu"))
    assert masks._steps == 1 and masks.mask(torch.zeros(1, 16, 16, 16)).shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    "node, inputs, message",
    [
        ("DetailForeground", {"layer": 1.5}, "layer: 1.5 is outside"),
        ("DetailForeground", {"max_channels": 0}, "max_channels: 0 is outside"),
        ("DetailGuidanceOptions", {"words_soft": 2.0}, "words_soft: 2.0 is outside"),
    ],
)
def test_bad_input(pack, node, inputs, message):
    with pytest.raises(ValueError, match=message):
        pack.run(node, **inputs)


def test_reading_a_picture_is_no_run_of_detail_guidance(pack, reference):  # noqa: F811
    """It would be reported on the guidance node and beside saved pictures."""
    _, positive = prompt_words(pack, reference)
    given = {"vae": reference[2], "words": foreground(pack), "positive": positive, "image": torch.rand(1, 64, 64, 3)}
    guided = pack.run("DetailGuidance", model=reference[0])
    with pack.reports() as published:
        masks, *_ = pack.outputs("PromptWordMask", **given, model=guided).args
    plain, *_ = pack.outputs("PromptWordMask", **given, model=reference[0]).args
    assert published == [] and torch.equal(masks, plain)


def test_each_videos_frames_have_its_own_masks(pack):
    """Of two videos, two latent frames each, with five decoded frames each."""
    attention = torch.arange(4.0).view(2, 1, 2, 1, 1).expand(2, 3, 2, 2, 2)
    large = pack.module("methods.regions.word_masks")._as_large(attention, 10, (2, 2))
    assert large.shape == (10, 3, 2, 2) and large[:, 0, 0, 0].tolist() == [0, 1, 1, 1, 1, 2, 3, 3, 3, 3]


def test_the_foreground_as_masks_of_its_own(pack, reference):  # noqa: F811
    _, positive = prompt_words(pack, reference)
    image = torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(1))
    given = {"model": reference[0], "vae": reference[2], "words": foreground(pack), "positive": positive}
    for kind in ("soft", "divided"):
        masks, overlay, _ = pack.outputs("PromptWordMask", **given, image=image, masks=kind).args
        assert masks.shape == (1, 64, 96) and 0.02 < masks.mean() < 0.98 and overlay.shape == image.shape
