"""Features of every family against ordinary hooks; counted, saved, loaded; what is wrong with an input is said."""

import json
from functools import partial

import comfy.sample
import numpy as np
import pytest
import torch
from comfy.samplers import CFGGuider
from comfy.sd import load_diffusion_model_state_dict
from comparison import with_context_windows
from family_models import CASES, load
from models import MASSIVE, conditioning, latent, model, state_dict
from plain import Stream, above_median, relative_error
from safetensors.torch import save_file
from sampling import counted
from test_families import of_cases

LEVEL, DRAWS, SEED = 0.3, 2, 11
PIXELS = {"downscale_ratio_spacial": 8}  # of a latent, as newer hosts' empty ones say
SOUND = "LTX-2"  # its latents are pictures and sound, which no VAE makes of an image
STREAM = Stream(1)  # SD3's
FAMILIES = of_cases(*(name for name in CASES if not name.startswith(SOUND) and "cached" not in name))


def features(pack, patcher, samples, positive=None, **inputs):
    given = {
        "positive": conditioning(1) if positive is None else positive,
        "latent": {"samples": samples, **PIXELS},
        "massive_ratio": 5.0,
    }
    given |= {"noise_level": LEVEL, "draws": DRAWS, "seed": SEED}
    return pack.outputs("DiTFeatures", model=patcher, **{**given, **inputs})


class Stop(Exception):
    """Raised where nothing more is wanted of a forward."""


def plain_states(patcher, positive, samples, level, draws, block, stream, module=None):
    """What a block is given for each draw, by an ordinary hook: (draws, pictures, tokens, channels); then the same of a
    module in it.

    The noisy latent is made here: (1 − t)·x + t·ε where the model scales the picture down, else x + d·t/(1 − t)·ε:
    d is the deviation of the latents, one, and a half on Cosmos.
    """
    deviation = 0.5 if type(patcher.model).__name__ == "CosmosVideo" else 1.0
    seen, inside = [], []

    def hook(block, args, kwargs):
        arguments, key = stream.find(block, args, kwargs)
        seen.append(stream.picture(arguments[key], None).flatten(1, -2).clone())
        if module is None:
            raise Stop

    def inner(_, args):
        inside.append(stream.picture(args[0], None).flatten(1, -2).clone())
        raise Stop

    class Once(CFGGuider):
        def predict_noise(self, x, timestep, model_options={}, seed=None):
            sampling = self.inner_model.model_sampling
            clean, noise = self.inner_model.process_latent_in(samples), self.noise
            flow = "CONST" in [base.__name__ for base in type(sampling).__mro__]
            sigma = level if flow else deviation * level / (1 - level)
            noisy = (1 - level) * clean + level * noise if flow else clean + sigma * noise
            return super().predict_noise(noisy, torch.full_like(timestep, sigma), model_options, seed)

    handles = [block.register_forward_pre_hook(hook, with_kwargs=True)]
    if module is not None:
        handles.append(module.register_forward_pre_hook(inner))
    try:
        for draw in range(draws):
            guider = Once(patcher)
            guider.inner_set_conds({"positive": positive})
            guider.set_cfg(1.0)
            guider.noise = comfy.sample.prepare_noise(samples, SEED + draw)
            sampler = comfy.samplers.sampler_object("euler")
            with pytest.raises(Stop):
                guider.sample(guider.noise, samples, sampler, torch.tensor([0.5, 0.0]), seed=SEED)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(seen) if module is None else (torch.stack(seen), torch.stack(inside))


@FAMILIES
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_equal_to_ordinary_hooks(pack, name, share):
    """The hidden state with its channels zeroed, averaged over the draws; blocks from there on are not computed."""
    case, patcher = CASES[name], load(name)
    number = int(share * case.depth)
    batch = 1 if case.one_row else 2
    samples = case.noise(batch, seed=3)
    if name == "Flux, odd size":  # what does not fill a token is left out
        found, report = features(pack, patcher, samples, case.conditioning(1))
        assert (found.height, found.width) == (48, 64) and found.values.shape[2:] == (3, 4)
        samples = samples[..., :6, :8]
    blocks = case.blocks(patcher.model.diffusion_model)
    inputs = {"layer": (number + 0.5) / case.depth, "normalise": "raw", "massive_ratio": 1.0}
    with counted(patcher, case.blocks, case.streams) as rows:
        found, report = features(pack, patcher, samples, case.conditioning(1), **inputs)
    assert rows[number:] == [0] * (case.depth - number) and all(rows[:number])
    states = plain_states(patcher, case.conditioning(1), samples, LEVEL, DRAWS, blocks[number], case.streams[number])
    dropped = above_median(states[0, :1].numpy(), ratio=1.0)
    assert found.dropped == tuple(sorted(dropped)) and f"block {number} of {case.depth}" in report
    states[..., dropped] = 0
    expected = states.mean(dim=0)
    actual = found.values.movedim(1, -1).reshape(expected.shape)
    assert relative_error(actual, expected) <= 1e-5


def of_flux(block):
    return block.img_attn.qkv if hasattr(block, "img_attn") else block.linear1


def of_aura(block):
    return block.attn.w2q if hasattr(block, "modX") else block.attn.w1q


def layer_norm(z, eps=1e-6):
    return (z - z.mean(dim=-1, keepdim=True)) / (z.var(dim=-1, unbiased=False, keepdim=True) + eps).sqrt()


def rms_norm(z, eps=1e-6):
    return z / (z.square().mean(dim=-1, keepdim=True) + eps).sqrt()


# Where a block's attention takes its modulated input, and the norm before it.
MODULATED = {
    "Flux": (of_flux, layer_norm),
    "Flux Kontext": (of_flux, layer_norm),
    "Flux.2": (of_flux, layer_norm),
    "Chroma": (of_flux, layer_norm),
    "Chroma Radiance": (of_flux, layer_norm),
    "HunyuanVideo": (of_flux, layer_norm),
    "Qwen-Image": (lambda block: block.attn.to_q, layer_norm),
    "Qwen-Image Edit": (lambda block: block.attn.to_q, layer_norm),
    "Wan text to video": (lambda block: block.self_attn.q, layer_norm),
    "AuraFlow": (of_aura, partial(layer_norm, eps=1e-5)),
    "Cosmos Predict2": (lambda block: block.self_attn.q_proj, layer_norm),
    "PixArt": (lambda block: block.attn.qkv, layer_norm),
    "LTX-Video": (lambda block: block.attn1.to_q, rms_norm),
    "Lumina 2": (lambda block: block.attention.qkv, partial(rms_norm, eps=1e-5)),
    "Z-Image": (lambda block: block.attention.qkv, partial(rms_norm, eps=1e-5)),
}


@of_cases(*MODULATED)
@pytest.mark.parametrize("share", [0.25, 0.75])
def test_modulated_as_in_front_of_the_attention(pack, name, share):
    """Shift and scale are read off what the attention is given, channel by channel, and not from AdaLN's weights."""
    case, patcher = CASES[name], load(name)
    number, (module_of, norm) = int(share * case.depth), MODULATED[name]
    samples = case.noise(1 if case.one_row else 2, seed=3)
    block = case.blocks(patcher.model.diffusion_model)[number]
    found, report = features(
        pack, patcher, samples, case.conditioning(1), layer=(number + 0.5) / case.depth, massive_ratio=1.0, maps=True
    )
    states, given = plain_states(
        patcher, case.conditioning(1), samples, LEVEL, DRAWS, block, case.streams[number], module_of(block)
    )
    own_weight = block.attention_norm1.weight.detach() if hasattr(block, "attention_norm1") else 1.0
    shift, scale = line_through(norm(states), given / own_weight)
    dropped = above_median(states[0, :1].numpy(), ratio=1.0)
    massive = states[..., sorted(dropped)]
    maps = (massive - massive.mean(dim=2, keepdim=True)) / (
        massive.var(dim=2, unbiased=False, keepdim=True) + 1e-6
    ).sqrt()
    states[..., dropped] = 0
    expected = torch.cat([scale * layer_norm(states) + shift, maps], dim=-1).mean(dim=0)
    assert found.modulated and found.maps == len(dropped) and "modulated" in report
    actual = found.values.movedim(1, -1).reshape(expected.shape)
    assert relative_error(actual, expected) <= 1e-5


def line_through(x, y):
    """Of each channel over the tokens, in doubles: (shift, scale)."""
    x, y = x.double(), y.double()
    x0, y0 = x - x.mean(dim=2, keepdim=True), y - y.mean(dim=2, keepdim=True)
    scale = (x0 * y0).sum(dim=2, keepdim=True) / x0.square().sum(dim=2, keepdim=True)
    return (y.mean(dim=2, keepdim=True) - scale * x.mean(dim=2, keepdim=True)).float(), scale.float()


def test_sd3_is_modulated_and_where_there_is_no_adaln_it_is_said(pack):
    patcher, samples = model(), latent(1, 16, seed=4)["samples"]
    block = patcher.model.diffusion_model.joint_blocks[2]
    found, _ = features(pack, patcher, samples)
    states, given = plain_states(patcher, conditioning(1), samples, LEVEL, DRAWS, block, STREAM, block.x_block.attn.qkv)
    shift, scale = line_through(layer_norm(states), given)
    states[..., list(MASSIVE)] = 0
    expected = (scale * layer_norm(states) + shift).mean(dim=0)
    assert found.dropped == MASSIVE
    assert relative_error(found.values.movedim(1, -1).reshape(expected.shape), expected) <= 1e-5
    case = CASES["HunyuanDiT"]
    found, report = features(pack, load("HunyuanDiT"), case.noise(1), case.conditioning(1))
    assert not found.modulated and "this pack does not know HunyuanDiT's AdaLN" in report


# One call


def test_they_do_not_depend_on_how_many_rows_go_together(pack, monkeypatch):
    patcher, samples = model(), latent(3, 16, seed=4)["samples"]
    at_once, _ = features(pack, patcher, samples)
    monkeypatch.setattr(pack.module("dit.noised"), "rows_at_once", lambda *_: 2)
    by_twos, _ = features(pack, patcher, samples)
    assert relative_error(by_twos.values, at_once.values) <= 1e-5 and by_twos == at_once
    alone, _ = features(pack, patcher, samples[:1])
    assert relative_error(alone.values, at_once.values[:1]) <= 1e-5


def test_rows_go_together_while_the_device_holds_them(pack, monkeypatch):
    module, patcher = pack.module("dit.noised"), model()
    one = 1.5 * patcher.memory_required([1, 16, 16, 16])
    for fit in (0.5, 1.2, 3.7, 99):
        free = fit * one + module.model_management.minimum_inference_memory()
        monkeypatch.setattr(module.model_management, "get_free_memory", lambda _, free=free: free)
        assert module.rows_at_once(patcher, (9, 16, 16, 16), 8) == min(8, max(1, int(fit)))


def test_nothing_is_left_on_the_model(pack):
    patcher = model()
    before = comfy_sample(patcher)
    features(pack, patcher, latent(1, 16, seed=4)["samples"])
    assert torch.equal(comfy_sample(patcher), before)


def comfy_sample(patcher):
    noise = latent(1, 16, seed=5)["samples"]
    return comfy.sample.sample(
        patcher, noise, 2, 4.0, "euler", "simple", conditioning(1), conditioning(2), noise * 0, disable_pbar=True
    )


def test_with_detail_guidance_on_the_model_they_are_the_same(pack):
    samples = latent(1, 16, seed=4)["samples"]
    guided = pack.run("DetailGuidance", model=model(), dg_scale=2.0)
    assert torch.equal(features(pack, guided, samples)[0].values, features(pack, model(), samples)[0].values)


def test_an_image_is_encoded_by_the_vae(pack):
    reference = reference_parts()
    image = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(1))
    given = {"positive": conditioning_of(reference), "draws": 1}
    found = pack.run("DiTFeatures", model=reference[0], image=image, vae=reference[2], **given)
    again = pack.run(
        "DiTFeatures", model=reference[0], latent={"samples": reference[2].encode(image)}, vae=reference[2], **given
    )
    assert found.values.shape[2:] == (4, 6) and (found.height, found.width) == (64, 96)
    assert torch.equal(found.values, again.values) and found == again


def reference_parts():
    from in_process import reference_model

    package = reference_model()
    return package.load_model(), package.load_clip(), package.load_vae()


def conditioning_of(reference):
    clip = reference[1]
    return clip.encode_from_tokens_scheduled(clip.tokenize("brick wall"))


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"positive": []}, "positive: it has 0 conditions"),
        ({"positive": conditioning(1) + conditioning(2)}, "positive: it has 2 conditions"),
        ({"positive": [[conditioning(1)[0][0], {"area": (2, 2, 0, 0)}]]}, "positive: it has area"),
        ({"positive": [[conditioning(1)[0][0], {"mask": torch.ones(1, 8, 8)}]]}, "positive: it has mask"),
        ({"latent": None}, "image: there is none"),
        ({"latent": None, "image": torch.zeros(1, 32, 32, 3)}, "vae: there is none"),
        ({"image": torch.zeros(1, 32, 32, 3)}, "latent: there is an image too"),
        ({"latent": {"samples": torch.zeros(0, 16, 16, 16), **PIXELS}}, "latent: it is empty, or smaller than"),
        ({"latent": {"samples": torch.zeros(1, 16, 16, 16)}}, "vae: there is none, and the latent does not say"),
        ({"latent": {"samples": torch.full((1, 16, 16, 16), torch.nan), **PIXELS}}, "they are not finite numbers"),
        ({"noise_level": 1.0}, "noise_level: 1.0 is outside 0.01 to 0.99"),
        ({"draws": 0}, "draws: 0 is outside 1 to 64"),
        ({"channels": "most"}, "channels: 'most' is neither"),
        ({"channels": "9999"}, "channels: 9999 cannot be disrupted"),
    ],
)
def test_bad_input(pack, inputs, message):
    with pytest.raises(ValueError, match=message):
        features(pack, model(), latent(1, 16, seed=4)["samples"], **inputs)
    features(pack, model(), latent(1, 16, seed=4)["samples"])  # nothing is left behind


def test_an_engine_that_ignores_block_patches(pack):
    patcher = model().clone()
    patcher.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(
            args["input"], args["timestep"], **{**args["c"], "transformer_options": {}}
        )
    )
    with pytest.raises(ValueError, match="Nothing was recorded"):
        features(pack, patcher, latent(1, 16, seed=4)["samples"])


@pytest.mark.parametrize("channels, dropped", [("none", ()), ("5, 9", (5, 9))])
def test_listed_channels(pack, channels, dropped):
    found, report = features(pack, model(), latent(1, 16, seed=4)["samples"], channels=channels, normalise="raw")
    assert found.dropped == dropped and ("No channel was dropped" in report) == (not dropped)
    assert [int(each) for each in (found.values == 0).all(dim=(0, 2, 3)).nonzero()] == list(dropped)


# Matching and showing


@pytest.fixture(scope="module")
def made(pack):
    samples = latent(3, 16, seed=4)["samples"]
    return [features(pack, model(), samples[n : n + 1])[0] for n in range(3)] + [features(pack, model(), samples)[0]]


def test_match_points_and_mask(pack, made):
    source, *_, both = made
    mask = torch.zeros(1, 128, 128)
    mask[:, 32:64, 32:64] = 1
    points, moved, heat, lines, report = pack.outputs(
        "MatchFeatures", source=source, target=both, points="40, 40; 100, 20", mask=mask
    )
    rows = points.splitlines()
    assert len(rows) == 3 and moved.shape == (3, 128, 128) and heat.shape == (3, 128, 128, 3)
    assert lines.shape == (3, 128, 264, 3) and report.count("→") == 6
    # In itself everything is where it is.
    found = [[float(number) for number in point.split(",")] for point in rows[0].split(";")]
    np.testing.assert_allclose(found, [[40, 40], [100, 20]], atol=16)
    assert (moved[0] > 0.5).float().sub(mask[0]).abs().mean() < 0.02


def test_what_is_kept_is_mutual(pack, made):
    source, target, *_ = made
    points = "; ".join(f"{x}, {y}" for x in range(8, 128, 16) for y in range(8, 128, 16))
    given = {"source": source, "target": target, "points": points}
    everything, *_, report = pack.outputs("MatchFeatures", **given)
    kept, *_ = pack.outputs("MatchFeatures", **given, mutual=True)
    assert everything.count(";") == 63 and kept.count(";") + 1 == report.count(", mutual") < 64


def test_a_video_is_followed(pack, made):
    *_, video = made
    mask = torch.zeros(1, 128, 128)
    mask[:, 32:64, 32:64] = 1
    points, moved, *_, report = pack.outputs("MatchFeatures", source=video, points="40, 40", mask=mask, mutual=True)
    assert moved.shape == (3, 128, 128) and len(points.splitlines()) == 3
    assert "a mask that is followed is taken as it comes" in report


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"points": ""}, "points: there are none, and no mask"),
        ({"points": "40"}, "points: '40' is not a point"),
        ({"points": "40, 129"}, "points: 40, 129 lies outside the source, which is 128 × 128"),
        ({"mask": torch.zeros(1, 128, 128)}, "mask: it is empty"),
        ({"target": None}, "target: there is none, and the source is one picture"),
        ({"mask": torch.ones(1, 64, 64)}, "mask: it is 64 × 64 pixels, its features are of 128 × 128"),
        ({"mask": torch.ones(2, 128, 128)}, "mask: its shape is"),
        ({"source_image": torch.zeros(1, 64, 64, 3)}, "source_image: it is 64 × 64"),
        ({"target_image": torch.zeros(3, 128, 128, 3)}, "target_image: it has 3 pictures"),
        ({"earlier_frames": 99}, "earlier_frames: 99 is outside"),
    ],
)
def test_bad_matches(pack, made, inputs, message):
    source, target, *_ = made
    with pytest.raises(ValueError, match=message):
        pack.outputs("MatchFeatures", **{"source": source, "target": target, "points": "40, 40", **inputs})


def test_features_that_cannot_be_compared(pack, made):
    source, _, _, both = made
    samples = latent(1, 16, seed=4)["samples"]
    others = {
        "block": features(pack, model(), samples, layer=0.3)[0],
        "being modulated": features(pack, model(), samples, normalise="raw")[0],
        "noise_level": features(pack, model(), samples, noise_level=0.5)[0],
        "model's fingerprint": features(pack, load_diffusion_model_state_dict(state_dict(4, seed=1)), samples)[0],
        "number of maps": features(pack, model(), samples, maps=True)[0],
        "model": features(pack, load("Flux"), CASES["Flux"].noise(1), CASES["Flux"].conditioning(1), layer=0.5)[0],
    }
    for what, target in others.items():
        with pytest.raises(ValueError, match=f"target: its {what} is "):
            pack.outputs("MatchFeatures", source=source, target=target, points="40, 40")
    with pytest.raises(ValueError, match="source: it has 3 pictures, one is wanted"):
        pack.outputs("MatchFeatures", source=both, target=source, points="40, 40")


def test_show(pack, made):
    *_, three = made
    components, parts, masks, channel = pack.outputs("ShowFeatures", features=three, parts=5, channel=7)
    assert components.shape == parts.shape == channel.shape == (3, 128, 128, 3) and masks.shape == (15, 128, 128)
    assert torch.equal(masks.view(3, 5, 128, 128).sum(dim=1), torch.ones(3, 128, 128))
    assert len({tuple(colour) for colour in parts.flatten(0, 2).tolist()}) == 5
    for picture in (components, parts, channel):
        assert 0 <= picture.min() < picture.max() <= 1
    with pytest.raises(ValueError, match="channel: 999 is outside 0 to 255"):
        pack.outputs("ShowFeatures", features=three, channel=999)


# Files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    found = ([str(tmp_path / "dit_features")], set())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "dit_features", found)
    (tmp_path / "dit_features").mkdir()
    return tmp_path / "dit_features"


def test_saved_and_loaded(pack, made, folder):
    pack.outputs("SaveDiTFeatures", features=made[0], filename_prefix="mine")
    (file,) = folder.glob("mine*.safetensors")
    again = pack.run("LoadDiTFeatures", features_name=file.name)
    assert again == made[0] and torch.equal(again.values, made[0].values)


def test_where_none_is_saved_yet(pack, folder):
    with pytest.raises(ValueError, match=r"features_name: there is no file of features in .* yet\. Run DiT Features"):
        pack.run("LoadDiTFeatures", features_name=pack.module("nodes.saved_files").NONE_YET)


def test_files_that_hold_no_features(pack, made, folder):
    pack.outputs("SaveDiTFeatures", features=made[0], filename_prefix="mine")
    (file,) = folder.glob("mine*.safetensors")
    whole = file.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    metadata = json.loads(whole[8:header])["__metadata__"]
    damaged = {
        "cut.safetensors": whole[: len(whole) // 2],
        "empty.safetensors": b"",
        "block.safetensors": whole[:header].replace(b'"block":"2"', b'"block":"9"') + whole[header:],
        "json.safetensors": whole[:header].replace(b'"dropped":"[17, 130]"', b'"dropped":"[17; 130]"') + whole[header:],
        "number.safetensors": whole[:header] + b"\xff" * 4 + whole[header + 4 :],  # not a number
    }
    assert metadata["block"] == "2" and metadata["dropped"] == "[17, 130]"
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"features: {name} is damaged"):
            pack.run("LoadDiTFeatures", features_name=name)
    save_file({"x": torch.zeros(1)}, folder / "lora.safetensors")
    with pytest.raises(ValueError, match=r"lora\.safetensors is a safetensors file, but holds no features"):
        pack.run("LoadDiTFeatures", features_name="lora.safetensors")


# Beside other things on the model and in the prompt


def test_what_a_condition_has_for_each_picture_stays_with_it(pack, monkeypatch):
    """The host takes a batch's conditions from the first row on: rows are split at whole draws."""
    patcher, samples = model(), latent(3, 16, seed=4)["samples"]
    parts = [conditioning(seed)[0] for seed in (1, 2, 3)]
    pooled = torch.cat([options["pooled_output"] for _, options in parts])
    each = [[torch.cat([prompt for prompt, _ in parts]), {"pooled_output": pooled}]]
    monkeypatch.setattr(pack.module("dit.noised"), "rows_at_once", lambda *_: 2)
    together, _ = features(pack, patcher, samples, each, channels="none")
    for number, part in enumerate(parts):
        alone, _ = features(pack, patcher, samples[number : number + 1], [part], channels="none", draws=1)
        whole, _ = features(pack, patcher, samples, each, channels="none", draws=1)
        if number == 0:  # the noise of a batch's first picture is that of one alone
            assert relative_error(whole.values[:1], alone.values) <= 1e-5
    blocks = patcher.model.diffusion_model.joint_blocks
    states = plain_states(patcher, each, samples, LEVEL, DRAWS, blocks[2], STREAM)
    assert together.modulated
    raw, _ = features(pack, patcher, samples, each, channels="none", normalise="raw")
    assert relative_error(raw.values.movedim(1, -1).flatten(1, 2), states.mean(dim=0)) <= 1e-5


def test_a_lora_counts(pack):
    """Patched weights are those of the features; the model's own stay as they are."""
    patcher, samples = model(), latent(1, 16, seed=4)["samples"]
    name = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
    change = torch.randn(patcher.model.state_dict()[name].shape, generator=torch.Generator().manual_seed(3)) * 0.05
    patched = patcher.clone()
    patched.add_patches({name: ("diff", (change,))}, 1.0)
    found, _ = features(pack, patched, samples, normalise="raw", channels="none")
    weights = state_dict(4)
    weights[name.removeprefix("diffusion_model.")] += change
    merged = load_diffusion_model_state_dict(weights)
    block = merged.model.diffusion_model.joint_blocks[2]
    states = plain_states(merged, conditioning(1), samples, LEVEL, DRAWS, block, STREAM)
    assert relative_error(found.values.movedim(1, -1).flatten(1, 2), states.mean(dim=0)) <= 1e-5
    before, _ = features(pack, patcher, samples, normalise="raw", channels="none")
    assert relative_error(before.values, found.values) > 1e-3


def test_a_part_of_the_schedule_does_not_matter(pack):
    samples = latent(1, 16, seed=4)["samples"]
    ((prompt, options),) = conditioning(1)
    late = [[prompt, {**options, "start_percent": 0.9, "end_percent": 1.0}]]
    assert torch.equal(features(pack, model(), samples, late)[0].values, features(pack, model(), samples)[0].values)


def test_forwards_of_other_packs_compute_nothing_behind_it_either(pack):
    import comfy_extras.nodes_slg

    patcher, samples = model(), latent(1, 16, seed=4)["samples"]
    node = comfy_extras.nodes_slg.SkipLayerGuidanceDiT
    (skipping,) = node.execute(patcher, 3.0, 0.0, 1.0, double_layers="1").args
    with counted(patcher) as rows:
        found, _ = features(pack, skipping, samples)
    assert rows == [DRAWS, DRAWS, 0, 0]
    assert torch.equal(found.values, features(pack, patcher, samples)[0].values)


def test_context_windows_do_not_cut_what_is_shown(pack):
    case, patcher = CASES["Wan text to video"], load("Wan text to video")
    samples = case.noise(1, seed=3)
    whole, _ = features(pack, patcher, samples, case.conditioning(1))
    windowed, _ = features(pack, with_context_windows(patcher, 2), samples, case.conditioning(1))
    assert whole.values.shape[0] == 3 and torch.equal(windowed.values, whole.values)


def test_an_interrupted_run_leaves_nothing(pack, monkeypatch):
    patcher, samples = model(), latent(2, 16, seed=4)["samples"]
    before = comfy_sample(patcher)

    def interrupted(*_):
        raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(pack.module("nodes.dit_features").ProgressBar, "update_absolute", interrupted)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        features(pack, patcher, samples)
    monkeypatch.undo()
    assert torch.equal(comfy_sample(patcher), before)


def test_an_image_that_does_not_fill_its_tokens(pack):
    """What is beyond whole tokens is left out, at the right and below, so that places stay what they are."""
    reference = reference_parts()
    image = torch.rand(1, 75, 100, 4, generator=torch.Generator().manual_seed(1))  # with transparency
    given = {"positive": conditioning_of(reference), "draws": 1, "vae": reference[2]}
    found, report = pack.outputs("DiTFeatures", model=reference[0], image=image, **given)
    cut = pack.run("DiTFeatures", model=reference[0], image=image[:, :64, :96, :3], **given)
    assert (found.height, found.width) == (64, 96) and torch.equal(found.values, cut.values)
    assert "The tokens cover 96 × 64 pixels from the upper left corner of the image's 100 × 75" in report
    mask = torch.zeros(1, 75, 100)
    mask[:, :32] = 1
    _, moved, _, lines, _ = pack.outputs(
        "MatchFeatures", source=found, target=cut, mask=mask, points="40, 40", source_image=image, target_image=image
    )
    assert moved.shape == (1, 64, 96) and lines.shape == (1, 64, 2 * 96 + 8, 3)
    with pytest.raises(ValueError, match="image: it is empty, or smaller than one of the model's tokens"):
        pack.outputs("DiTFeatures", model=reference[0], image=image[:, :9], **given)
