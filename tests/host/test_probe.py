"""The probe names what is planted, changes nothing, and its profile can be saved, loaded and used."""

import json

import pytest
import torch
from family_models import CASES, load
from models import MASSIVE, conditioning, latent, model
from safetensors.torch import save_file
from sampling import detail_guider, sample

from nodes import common_ksampler

SETTINGS = {"seed": 3, "steps": 3, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple"}
RATIO = 5.0  # the planted channels are 8 and 12 times SD3's median, the next one 3 times


def probe(pack, patcher, **inputs):
    """Profile, figures, report and latents."""
    defaults = {"positive": conditioning(1), "negative": conditioning(2), "latent_image": latent(2, 16, seed=5)}
    given = {"model": patcher, **defaults, **SETTINGS, "massive_ratio": RATIO, **inputs}
    outputs = pack.outputs("MassiveActivationProbe", **given)
    return [outputs[number] for number in range(4)]


def test_it_names_what_is_planted_in_every_block(pack, subject):
    profile, _, report, _ = probe(pack, subject.model)
    assert profile.channels == dict.fromkeys(range(4), MASSIVE)
    assert (profile.blocks, profile.width) == (4, 256)
    for block, line in enumerate(report.splitlines()[1:]):
        assert line.startswith(f"block {block} (") and "17 (" in line and "130 (" in line


@pytest.mark.parametrize("cfg", [1.0, 4.0])
def test_it_changes_nothing(pack, subject, cfg):
    *_, latents = probe(pack, subject.model, cfg=cfg)
    arguments = [*(SETTINGS | {"cfg": cfg}).values(), conditioning(1), conditioning(2), latent(2, 16, seed=5)]
    (plain,) = common_ksampler(subject.model, *arguments)
    assert torch.equal(latents["samples"], plain["samples"])


def test_it_measures_what_ordinary_hooks_see(pack):
    """Mean and maximum of |z|, image and text, and the gates: SD3's blocks are called as block(context, x, c)."""
    patcher, seen = model(), []
    block = patcher.model.diffusion_model.joint_blocks[2]

    def hook(module, args, kwargs):
        context, x, c = *args, kwargs["c"]
        gates = module.x_block.adaLN_modulation(c).chunk(6, dim=1)
        mean_gate = (gates[2].abs() + gates[5].abs()).mean(dim=0) / 2
        seen.append((x.abs(), context.abs(), mean_gate))

    recording = pack.module("methods.massive_activations.recording").Recording
    kept = []
    profile = recording.profile
    recording.profile = lambda self, *args: (kept.append(self), profile(self, *args))[1]
    handle = block.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        probe(pack, patcher, cfg=1.0)
    finally:
        handle.remove()
        recording.profile = profile
    (recorded,) = kept
    assert len(seen) == len(recorded.sigmas) == 3 and recorded.sigmas == sorted(recorded.sigmas, reverse=True)
    for step, (image, text, gate) in enumerate(seen):
        for statistics, z in ((recorded.image[step, 2], image), (recorded.text[step, 2], text)):
            torch.testing.assert_close(statistics.mean, z.mean(dim=(0, 1)))
            torch.testing.assert_close(statistics.peak, z.amax(dim=(0, 1)))
        torch.testing.assert_close(recorded.gates[step, 2], gate)


def test_figures_are_pictures(pack, subject):
    _, figures, _, _ = probe(pack, subject.model)
    assert figures.shape == (3, 720, 960, 3) and 0 <= figures.min() < figures.max() <= 1
    assert len({picture.numpy().tobytes() for picture in figures}) == 3


def test_a_model_without_massive_channels(pack):
    profile, figures, report, _ = probe(pack, model(), massive_ratio=500.0)
    assert profile.channels == {} and len(figures) == 3
    assert all(": none; the largest, 17, is " in line for line in report.splitlines()[1:])


def test_detail_guidance_on_the_model_is_left_out(pack):
    guided = pack.run("DetailGuidance", model=model(), dg_scale=2.0)
    *_, latents = probe(pack, guided)
    *_, plain = probe(pack, model())
    assert torch.equal(latents["samples"], plain["samples"])


def test_an_engine_that_ignores_block_patches(pack, monkeypatch):
    patcher = model().clone()
    patcher.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(
            args["input"], args["timestep"], **{**args["c"], "transformer_options": {}}
        )
    )
    with pytest.raises(ValueError, match="Nothing was recorded"):
        probe(pack, patcher)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"positive": []}, "positive: it is empty"),
        ({"latent_image": {"samples": torch.zeros(0, 16, 16, 16)}}, "latent_image: it is empty"),
        ({"massive_ratio": 0.5}, "massive_ratio: 0.5 is outside 1 to 1000"),
        ({"max_channels": 0}, "max_channels: 0 is outside 1 to 64"),
    ],
)
def test_bad_input(pack, inputs, message):
    """Also of linked inputs, whose range the host does not check."""
    for node in (probe, map_):
        with pytest.raises(ValueError, match=message):
            node(pack, model(), **inputs)
    with pytest.raises(ValueError, match=r"layer: -0\.2 is outside 0 to 1"):
        map_(pack, model(), layer=-0.2)


# The map


def map_(pack, patcher, **inputs):
    """Pictures, report and latents."""
    defaults = {"positive": conditioning(1), "negative": conditioning(2), "latent_image": latent(2, 16, seed=5)}
    given = {"model": patcher, **defaults, **SETTINGS, "massive_ratio": RATIO, **inputs}
    outputs = pack.outputs("MassiveActivationMap", **given)
    return [outputs[number] for number in range(3)]


def test_the_map_changes_nothing_and_has_a_picture_for_each_step(pack, subject):
    pictures, report, latents = map_(pack, subject.model)
    *_, plain = probe(pack, subject.model)
    assert torch.equal(latents["samples"], plain["samples"])
    assert pictures.shape == (3, 720, 960, 3) and len(report.splitlines()) == 3
    assert all("massive 17, 130;" in line for line in report.splitlines())


def test_the_map_is_what_ordinary_hooks_see(pack, monkeypatch):
    patcher, seen, kept = model(), [], []
    block = patcher.model.diffusion_model.joint_blocks[3]
    figures = pack.module("methods.massive_activations.figures")
    drawn = pack.module("nodes.massive_activation_map")
    monkeypatch.setattr(
        drawn, "maps", lambda recording, *rest: (kept.append(recording), figures.maps(recording, *rest))[1]
    )
    handle = block.register_forward_pre_hook(
        lambda _, args: seen.append(args[1][0, :, list(MASSIVE)].abs().mean(dim=1))
    )
    try:
        map_(pack, patcher, layer=1.0, cfg=1.0)
    finally:
        handle.remove()
    (recording,) = kept
    assert recording.block == 3 and len(seen) == 3
    for step, expected in enumerate(seen):
        torch.testing.assert_close(recording.maps[step].magnitude, expected)
        assert recording.maps[step].variation == pytest.approx(float(expected.std() / expected.mean()))


@pytest.mark.parametrize(
    "name, shape, grid",
    [
        ("Wan text to video", (16, 4, 8, 8), (4, 4, 4)),  # other patches give as many tokens
        ("Chroma Radiance", (3, 64, 64), (4, 4)),
    ],
)
def test_the_maps_tokens_lie_as_the_family_table_says(pack, monkeypatch, name, shape, grid):
    figures, drawn, grids = (
        pack.module("methods.massive_activations.figures"),
        pack.module("nodes.massive_activation_map"),
        [],
    )

    def maps(recording, title, of_tokens):
        (first, *_) = recording.maps.values()
        grids.append(of_tokens(len(first.magnitude), first.latent))
        return figures.maps(recording, title, of_tokens)

    monkeypatch.setattr(drawn, "maps", maps)
    case = CASES[name]
    prompts = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    pictures, *_ = map_(pack, load(name), **prompts, latent_image={"samples": torch.zeros(1, *shape)}, steps=2)
    assert grids == [grid] and len(pictures) == 2


def test_a_block_without_massive_channels_is_told(pack):
    _, report, _ = map_(pack, model(), massive_ratio=500.0)
    assert all("none is massive; the largest is 17;" in line for line in report.splitlines())


def test_the_map_of_a_profile(pack):
    profile, *_ = probe(pack, model())
    listed = type(profile)(profile.family, 4, 256, {2: (5, 9)}, profile.magnitudes)
    _, report, _ = map_(pack, model(), profile=listed, layer=0.5)
    assert "massive 5, 9;" in report
    with pytest.raises(ValueError, match="this model is SD3"):
        map_(pack, model(), profile=type(profile)("Flux", 4, 256, {}, profile.magnitudes))
    with pytest.raises(ValueError, match=r"width 128, this one's is 256"):
        map_(pack, model(), profile=type(profile)(profile.family, 4, 128, {}, torch.zeros(4, 128)))


# Profiles


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The host's output, and where profiles are found in it."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    found = ([str(tmp_path / "massive_activations")], set())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "massive_activations", found)
    (tmp_path / "massive_activations").mkdir()
    return tmp_path / "massive_activations"


def saved(pack, folder, profile, prefix="mine"):
    pack.outputs("SaveMassiveActivationProfile", profile=profile, filename_prefix=prefix)
    (file,) = folder.glob(f"{prefix}*.safetensors")
    return file


def test_where_none_is_saved_yet(pack, folder):
    """The list says so, and so does the error of who runs it all the same."""
    node = pack.classes["LoadMassiveActivationProfile"]
    kind, settings = node.INPUT_TYPES()["required"]["profile_name"]
    (only,) = settings.get("options", kind)
    assert only.startswith("none yet")
    with pytest.raises(ValueError, match=r"there is no profile in .* yet\. Run Massive Activation Probe, save"):
        pack.run("LoadMassiveActivationProfile", profile_name=only)


def test_saved_and_loaded_it_is_the_same_and_readable(pack, folder):
    profile, *_ = probe(pack, model())
    file = saved(pack, folder, profile)
    again = pack.run("LoadMassiveActivationProfile", profile_name=file.name)
    assert again == profile and torch.equal(again.magnitudes, profile.magnitudes)
    length = int.from_bytes(file.read_bytes()[:8], "little")
    metadata = json.loads(file.read_bytes()[8 : 8 + length])["__metadata__"]
    assert metadata["family"] == "sd3" and (metadata["blocks"], metadata["width"]) == ("4", "256")
    assert metadata["host"].startswith("ComfyUI ") and json.loads(metadata["channels"])["2"] == [17, 130]


def test_a_second_one_does_not_replace_the_first(pack, folder):
    profile, *_ = probe(pack, model())
    first = saved(pack, folder, profile)
    pack.outputs("SaveMassiveActivationProfile", profile=profile, filename_prefix="mine")
    assert len(list(folder.glob("mine*"))) == 2 and first.exists()


def test_used_it_gives_what_automatic_detection_gives(pack, folder):
    profile, *_ = probe(pack, model())
    loaded = pack.run("LoadMassiveActivationProfile", profile_name=saved(pack, folder, profile).name)
    automatic = sample(detail_guider(pack, model(), {"massive_ratio": RATIO}))
    assert torch.equal(sample(detail_guider(pack, model(), {"profile": loaded})), automatic)


def test_a_profile_of_another_width(pack):
    profile, *_ = probe(pack, model())
    other = type(profile)(profile.family, 4, 128, {2: (5,)}, torch.zeros(4, 128))
    with pytest.raises(ValueError, match=r"profile: it was measured on a model of width 128, this one's is 256"):
        sample(detail_guider(pack, model(), {"profile": other}))
    sample(detail_guider(pack, model()))  # nothing is left behind


def test_files_that_are_no_profiles(pack, folder):
    profile, *_ = probe(pack, model())
    whole = saved(pack, folder, profile).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    damaged = {
        "cut.safetensors": whole[: len(whole) // 2],
        "empty.safetensors": b"",
        "header.safetensors": whole[:8] + b"x" * 20 + whole[28:],
        "channels.safetensors": whole[:header].replace(b"[17, 130]", b"[17, 999]") + whole[header:],
        "json.safetensors": whole[:header].replace(b"[17, 130]", b"[17; 130]") + whole[header:],
    }
    for name, content in damaged.items():
        (folder / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"profile: {name} is damaged"):
            pack.run("LoadMassiveActivationProfile", profile_name=name)
    save_file({"x": torch.zeros(1)}, folder / "lora.safetensors")
    with pytest.raises(ValueError, match=r"lora\.safetensors is a safetensors file, but no profile"):
        pack.run("LoadMassiveActivationProfile", profile_name="lora.safetensors")


def test_a_name_outside_the_output(pack, folder):
    profile, *_ = probe(pack, model())
    with pytest.raises(ValueError, match=r"filename_prefix: .* leads out of output/massive_activations"):
        pack.outputs("SaveMassiveActivationProfile", profile=profile, filename_prefix="../../elsewhere")
