"""Calibration: its pictures are the nodes' own, its cost is what it says, and it recommends only what other pictures
confirm."""

import csv
import dataclasses
import json
from types import SimpleNamespace

import comfy.model_management
import comfy.nested_tensor
import numpy as np
import photographs
import pytest
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import load_diffusion_model_state_dict
from in_process import reference_model
from models import conditioning, latent, model, state_dict
from sampling import counted

from nodes import CLIPTextEncode, common_ksampler

SAMPLING = {"seed": [3], "steps": [3], "cfg": [4.0], "sampler_name": ["euler"], "scheduler": ["simple"]}


@pytest.fixture(scope="module")
def vae():
    return reference_model().load_vae()


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    return SimpleNamespace(csv=tmp_path / "output/detail_guidance", presets=tmp_path / "user/default/detail_guidance")


@pytest.fixture
def calibrated(pack, vae):
    """The node's outputs, as the host calls it: every input is a list."""

    def run(**inputs):
        given = {
            "model": [model()],
            "vae": [vae],
            "positive": [conditioning(1)],
            "negative": [conditioning(2)],
            "latent_image": [latent(2, 16, seed=5)],
            **SAMPLING,
            "layers": ["0.5"],
            "scales": ["0.5"],
            "save_preset": [False],
            "start_percent": [0.0],
            **inputs,
        }
        with torch.inference_mode():
            *outputs, start = pack.outputs("DetailGuidanceCalibrate", **given).args
        assert [start] == given["start_percent"]
        return outputs

    return run


def rule(pack):
    return pack.module("methods.calibration.recommendation")


def cell(pack, layer, scale, gain=None, layout=0.99, likeness=None):
    gain, likeness = (None if each is None else np.array(each, dtype=float) for each in (gain, likeness))
    layout, energy = np.full(8, layout), np.ones((8, 5))
    return rule(pack).Cell(layer, int(layer * 10), scale, 0.1, 1.0, layout, energy, gain, likeness)


# The rule


def test_the_interval_is_students(pack):
    interval = rule(pack).Interval.of(np.array([1.0, 2.0, 3.0, 4.0]))
    assert (interval.low, interval.high) == pytest.approx(
        (2.5 - 2.0542, 2.5 + 2.0542), abs=1e-3
    )  # t = 3.182, sd = 1.291


def test_it_chooses_on_one_half_and_judges_on_the_other(pack):
    lucky = cell(pack, 0.5, 0.5, [0.9, -0.1, 0.9, 0.1, 0.9, -0.1, 0.9, 0.1])  # best where it chooses
    good = cell(pack, 0.7, 0.5, [0.5, 0.5, 0.4, 0.6, 0.5, 0.5, 0.6, 0.4])
    advice = rule(pack).recommended([lucky, good], 1.0, 0.7)
    assert (advice.verdict, advice.cell) == ("cannot be told", None)
    advice = rule(pack).recommended([good], 1.0, 0.7)
    assert (advice.verdict, advice.cell) == ("helps", good) and "layer 0.7, scale 0.5" in advice.why


@pytest.mark.parametrize("gain, verdict", [(-0.3, "does not help"), (0.01, "does not help"), (0.06, "helps")])
def test_a_gain_below_a_twentieth_of_the_distance_does_not_help(pack, gain, verdict):
    noise = np.array([1, -1, -1, 1, 1, -1, -1, 1]) * 0.001
    advice = rule(pack).recommended([cell(pack, 0.5, 0.5, gain + noise)], 1.0, 0.7)
    assert (advice.verdict, advice.cell is None) == (verdict, verdict != "helps")


def test_what_looks_less_like_them_to_a_network_does_not_help(pack):
    gain, worse = [0.5, 0.5, 0.4, 0.6] * 2, np.array([-0.2, -0.1, -0.2, -0.3] * 2)
    for likeness, verdict in ((worse, "does not help"), (-worse, "helps"), (worse + 0.2, "helps")):
        advice = rule(pack).recommended([cell(pack, 0.7, 0.5, gain, likeness=likeness)], 1.0, 0.7)
        assert advice.verdict == verdict


def test_without_references_only_how_far_one_can_go(pack):
    cells = [cell(pack, layer, scale, layout=1 - scale / 5) for layer in (0.5, 0.75) for scale in (0.1, 0.4, 1.0)]
    advice = rule(pack).recommended(cells, None, 0.7)
    assert (advice.verdict, advice.cell.layer, advice.cell.scale) == ("keeps the layout", 0.75, 0.4)
    advice = rule(pack).recommended([cell(pack, 0.7, 2.0, layout=0.5)], None, 0.7)
    assert (advice.verdict, advice.cell) == ("breaks the layout", None)


# What is sampled


@pytest.mark.parametrize("cfg, start", [(1.0, {}), (4.0, {}), (4.0, {"start_percent": 0.5})])
def test_its_pictures_are_those_of_the_nodes(pack, vae, calibrated, monkeypatch, cfg, start):
    seen = {}
    calibrate = pack.module("methods.calibration.run")
    sheet = calibrate.contact_sheet

    def watched(cells, pictures, without, chosen):
        seen.update(cells=cells, pictures=pictures, without=without)
        return sheet(cells, pictures, without, chosen)

    monkeypatch.setattr(calibrate, "contact_sheet", watched)
    calibrated(layers=["0.3, 0.7"], scales=["0.2, 1"], cfg=[cfg], **{name: [value] for name, value in start.items()})
    settings = [3, 3, cfg, "euler", "simple", conditioning(1), conditioning(2), latent(2, 16, seed=5)]

    def picture(patcher):
        with torch.inference_mode():
            (out,) = common_ksampler(patcher, *settings)
            return vae.decode(out["samples"])[0].clamp(0, 1).double().numpy()

    assert np.array_equal(seen["without"], picture(model()))
    assert [(each.layer, each.scale) for each in seen["cells"]] == [(0.3, 0.2), (0.3, 1.0), (0.7, 0.2), (0.7, 1.0)]
    for each, sampled in zip(seen["cells"], seen["pictures"], strict=True):
        inputs = {"layer_start": each.layer, "layer_end": each.layer, "dg_scale": each.scale, **start}
        assert np.array_equal(sampled, picture(pack.run("DetailGuidance", model=model(), **inputs)))


def test_one_step_takes_time_too(pack, calibrated):
    *_, report = calibrated(steps=[1])
    (line,) = [line for line in report.splitlines() if line.startswith("- layer 0.5, block ")]
    assert float(line.rsplit("seconds per picture ", 1)[1]) > 0 and "|" not in line, "text, not a table"


@pytest.mark.parametrize(
    "cfg, every, start", [(1.0, 1, 0.0), (4.0, 1, 0.0), (4.0, 3, 0.0), (4.0, 1, 0.67), (4.0, 3, 0.4)]
)
def test_its_cost_is_what_it_says(pack, calibrated, caplog, cfg, every, start):
    options = [pack.run("DetailGuidanceOptions", every=every, massive_ratio=1.0)]
    steps = 10
    with counted(model()) as plain:
        settings = [3, steps, cfg, "euler", "simple", conditioning(1), conditioning(2), latent(2, 16, seed=5)]
        common_ksampler(model(), *settings)
    with counted(model()) as rows, caplog.at_level("INFO"):
        asked = {"steps": [steps], "cfg": [cfg], "start_percent": [start], "options": options}
        calibrated(layers=["0.25, 0.5"], scales=["0.1, 0.5"], **asked)
    (said,) = [record.message for record in caplog.records if "as long as" in record.message]
    expected = float(said.split("as long as ")[1].split(" pictures")[0])
    assert sum(rows) / (sum(plain) / 2) == pytest.approx(expected, rel=0.01)


@pytest.fixture
def clip_vision(tmp_path):
    return random_clip_vision(tmp_path, 16)


def random_clip_vision(tmp_path, width):
    """The host's class with two layers and random weights, for embeddings of this width."""
    config = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    config |= {
        "image_size": 224,
        "patch_size": 56,
        "num_channels": 3,
        "projection_dim": width,
        "hidden_act": "quick_gelu",
    }
    config |= {"layer_norm_eps": 1e-5, "model_type": "clip_vision_model"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    network = ClipVisionModel(tmp_path / "config.json")
    torch.manual_seed(0)
    for value in network.model.state_dict().values():
        if value.is_floating_point():
            value.normal_(std=0.2)
    return network


def test_likeness_is_the_cosine_with_the_mean_of_the_real_ones(pack, clip_vision):
    node, calibration = pack.module("methods.calibration.run"), pack.module("methods.calibration.grid")
    with torch.inference_mode():
        real, pictures = (
            np.random.default_rng(0).random((2, 3, 64, 64, 3)),
            np.random.default_rng(1).random((4, 64, 64, 3)),
        )
        seen = [
            [clip_vision.encode_image(torch.from_numpy(p)[None].float())["image_embeds"][0] for p in each]
            for each in real
        ]
        ours = node._likeness(clip_vision, [calibration.features(clip_vision, each) for each in real], pictures)
        for number, picture in enumerate(pictures):
            (embedded,) = clip_vision.encode_image(torch.from_numpy(picture)[None].float())["image_embeds"]
            mean = sum(each / each.norm() for each in seen[number // 2])
            assert ours[number] == pytest.approx(float(torch.cosine_similarity(embedded, mean, dim=0)), abs=1e-5)


def test_a_list_of_prompts_is_several(pack, calibrated, clip_vision, vae, monkeypatch):
    """Each has pictures of its own, and is compared with its own real ones."""
    calibration, metrics, references = (
        pack.module("methods.calibration.grid"),
        pack.module("methods.calibration.metrics"),
        [],
    )
    measured = calibration.measured
    monkeypatch.setattr(calibration, "measured", lambda *given: (references.extend(given[7]), measured(*given))[1])
    prompts = [conditioning(1), conditioning(4), conditioning(6)]
    reference = [torch.rand(1, 150, 300, 3, generator=torch.Generator().manual_seed(n)) for n in range(3)]
    _, _, sheets, plot, report = calibrated(
        positive=prompts, latent_image=[latent(3, 16, seed=5)], reference=reference, clip_vision=[clip_vision]
    )
    assert len(sheets) == 3 and plot.shape == (1, 720, 960, 3) and len(references) == 9
    for figure in ("gain, choosing ", "gain, judging ", "features more alike, judging ", "seconds per picture "):
        assert figure in report
    with torch.inference_mode():
        for number, seen in enumerate(references):
            (real,) = reference[number // 3]
            crops = [vae.decode(vae.encode(real[None, :128, x : x + 128]))[0].clamp(0, 1) for x in (0, 128)]
            spectra = [metrics.log_spectrum(crop.double().numpy()) for crop in crops]
            np.testing.assert_allclose(seen, sum(spectra) / 2, rtol=1e-6)


def test_an_interruption_keeps_what_was_done(calibrated, folders, vae, monkeypatch):
    """As the host's Cancel does it, in the second setting of three."""
    decoded, decode = [], vae.decode

    def interrupting(latents):
        decoded.append(decode(latents))
        if len(decoded) == 2:  # of the first setting: the one before is without
            comfy.model_management.interrupt_current_processing()
        return decoded[-1]

    monkeypatch.setattr(vae, "decode", interrupting)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        calibrated(scales=["0.1, 0.2, 0.3"])
    (file,) = folders.csv.glob("*.csv")
    with file.open() as opened:
        assert [row["scale"] for row in csv.DictReader(opened)] == ["0.1"]


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"layers": ["0.5, 1.2"]}, r"layers: 1\.2 is outside 0 to 1"),
        ({"layers": ["middle"]}, "layers: 'middle' is not a list"),
        ({"scales": ["0, 0.5"]}, "scales: 0 is Detail Guidance off"),
        ({"start_percent": [1.5]}, r"start_percent: 1\.5 is outside 0 to 1"),
        ({"start_percent": [0.2, 0.4]}, "start_percent: it is a list of 2"),
        ({"scales": ["30"]}, r"scales: 30\.0 is outside 0 to 20"),
        ({"positive": [[]]}, "positive: it is empty"),
        ({"negative": [conditioning(2)] * 2}, "negative: it is a list of 2, positive of 1"),
        ({"seed": [1, 2]}, "seed: it is a list of 2; only positive, negative and reference may be one"),
        (
            {
                "reference": [torch.rand(1, 128, 128, 3)] * 2,
                "positive": [conditioning(1)] * 3,
                "latent_image": [latent(4, 16, seed=5)],
            },
            "reference: it is a list of 2, positive of 3",
        ),
        ({"reference": [torch.rand(1, 128, 128, 3)]}, "takes 8, these are 2. Raise latent_image's batch size to 8"),
        (
            {"reference": [torch.rand(1, 64, 200, 3)], "latent_image": [latent(8, 16, seed=5)]},
            "reference: its pictures are 200 × 64, smaller than the 128 × 128",
        ),
    ],
)
def test_bad_input(calibrated, inputs, message):
    with pytest.raises(ValueError, match=message):
        calibrated(**inputs)


def test_pictures_and_sound(calibrated):
    nested = comfy.nested_tensor.NestedTensor([torch.zeros(1, 16, 16, 16), torch.zeros(1, 8, 4)])
    with pytest.raises(ValueError, match="latent_image: it is pictures and sound in one"):
        calibrated(latent_image=[{"samples": nested}])


def test_where_nothing_is_disrupted_nothing_is_recommended(pack, calibrated):
    options = [pack.run("DetailGuidanceOptions", massive_ratio=900.0)]
    _, scale, *_, report = calibrated(options=options)
    assert scale == 0.0 and report.startswith("Nothing was disrupted at any of the layers")
    assert "Layer 0.5, scale 0.5: no massive channel at block 2" in report


def test_layers_by_number(pack):
    parse = pack.module("methods.common.layers").parse_layers
    assert parse("4", 24) == [0.2, 0.4, 0.6, 0.8]
    assert parse("0.5, 0.51, 0.9", 4) == [0.5, 0.9]  # one for each block
    assert parse("100", 3) == [0.25, 0.5, 0.75]


# On trained models


@pytest.fixture
def on_textures(calibrated):
    """Calibrated without CFG on a reference model: some textures, some pictures of each, with its photograph. The seeds
    are others than those that the rule was tried on, and than the evidence's."""
    textures = photographs.load()

    def run(name, prompts, pictures, **inputs):
        prompts = list(textures)[prompts]
        package = reference_model()
        clip = package.load_clip(name)

        def encoded(prompt):
            return CLIPTextEncode().encode(clip, prompt)[0]

        return calibrated(
            model=[package.load_model(name)],
            positive=[encoded(prompt) for prompt in prompts],
            negative=[encoded("")],
            reference=[textures[prompt][None].movedim(1, -1) / 255 for prompt in prompts],
            latent_image=[{"samples": torch.zeros(pictures, 16, 16, 16)}],
            seed=[2000],
            steps=[20],
            cfg=[1.0],
            **inputs,
        )

    return run


def test_it_recommends_what_the_evidence_finds_good(on_textures):
    """Without CFG block 9 with w 0.1 is best there, and early blocks are not (docs/EVIDENCE.md, sections 4 and 7)."""
    layer, scale, *_, report = on_textures("10x192", slice(1, None, 2), 2, layers=["0.3, 0.9"], scales=["0.1"])
    assert (layer, scale) == (0.9, 0.1) and report.startswith("Detail Guidance helps this model with these pictures")


def test_it_says_so_where_it_does_not_help(pack, on_textures):
    """A shallow model at its middle layer."""
    options = [pack.run("DetailGuidanceOptions", channels="62")]
    prompts = slice(0, None, 8)
    _, scale, *_, report = on_textures("4x128", prompts, 8, layers=["0.5"], scales=["0.5"], options=options)
    assert scale == 0.0 and report.startswith("Detail Guidance does not help this model with these pictures")


# Presets


def test_a_preset_is_kept_for_the_model_and_offered(pack, calibrated, folders):
    layer, scale, *_, report = calibrated(scales=["0.05"], save_preset=[True])
    (file,) = folders.presets.glob("*.json")
    assert file.name in report
    kept = pack.module("methods.calibration.presets").kept("default")
    fingerprint = pack.module("dit").model_fingerprint(model())
    preset = kept[fingerprint]
    assert (preset.layer, preset.scale) == (layer, scale) == (0.5, 0.05)
    assert preset.verdict == "keeps the layout" and preset.sampling["steps"] == "3" and len(preset.figures) == 1
    assert "takes the place" not in report
    *_, report = calibrated(scales=["0.1"], save_preset=[True])
    assert "takes the place of an earlier one of this model, which was: At layer 0.5 pictures keep" in report
    assert [each.scale for each in pack.module("methods.calibration.presets").kept("default").values()] == [0.1]


def test_a_preset_says_where_in_the_schedule_it_starts(pack, calibrated, folders):
    calibrated(scales=["0.05"], save_preset=[True], start_percent=[0.5])
    (file,) = folders.presets.glob("*.json")
    presets = pack.module("methods.calibration.presets")

    def kept():
        return presets.kept("default")

    assert [each.start_percent for each in kept().values()] == [0.5]
    read = json.loads(file.read_text())
    file.write_text(json.dumps(read | {"verdict": "helps", "start_percent": 0.67}))
    preset = pack.module("methods.calibration.preset").Preset(**{k: v for k, v in read.items() if k != "format"})
    worse = dataclasses.replace(preset, verdict="does not help", scale=0.0)
    assert "which helps from start_percent 0.67 on, is kept" in presets.keep(worse, "sd3")
    presets.keep(dataclasses.replace(worse, start_percent=0.67), "sd3")
    assert [each.verdict for each in kept().values()] == ["does not help"], "it is of the same part of the schedule"
    del read["start_percent"]
    file.write_text(json.dumps(read))
    assert [each.start_percent for each in kept().values()] == [0.0], "a file that was saved before there was one"


def test_a_fingerprint_is_of_the_weights_alone(pack):
    fingerprint = pack.module("dit").model_fingerprint
    ours = fingerprint(model())
    assert ours == fingerprint(pack.run("DetailGuidance", model=model()))
    assert ours != fingerprint(model("SD3.5-L-like"))
    patched = model().clone()
    bias = "diffusion_model.x_embedder.proj.bias"
    patched.add_patches({bias: (torch.ones(256),)})
    comfy.model_management.load_models_gpu([patched])
    assert model().model.diffusion_model.x_embedder.proj.bias[17] == 61.0  # the LoRA's weights are in place
    assert fingerprint(model()) == ours
    comfy.model_management.unload_all_models()


def test_a_fingerprint_is_the_same_in_other_precisions_and_compiled(pack):
    fingerprint = pack.module("dit").model_fingerprint
    patchers = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        weights = {name: value.to(dtype) for name, value in state_dict(3).items()}
        patchers[dtype] = load_diffusion_model_state_dict(weights, model_options={"dtype": dtype})
    ours = fingerprint(patchers[torch.float32])
    assert {fingerprint(patcher) for patcher in patchers.values()} == {ours}
    assert ours != fingerprint(load_diffusion_model_state_dict(state_dict(3, seed=1)))
    network = patchers[torch.float32].model.diffusion_model
    network.joint_blocks[0] = torch.compile(network.joint_blocks[0])
    assert fingerprint(patchers[torch.float32]) == ours


def test_weights_that_cannot_be_read_do_not_stop_a_run(pack):
    """As some packs' quantised ones, whose values stand elsewhere."""
    patcher = load_diffusion_model_state_dict(state_dict(3))
    network = patcher.model.diffusion_model
    network.a_first = torch.nn.Parameter(torch.empty(4, device="meta"), requires_grad=False)
    fingerprint = pack.module("dit").model_fingerprint(patcher)
    assert len(fingerprint) == 16


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda read: read.pop("format"), "it is no preset"),
        (lambda read: read.pop("layer"), "it has layer too much or too little"),
        (lambda read: read.update(scale=99), "dg_scale: 99 is outside"),
        (lambda read: read.update(layer="deep"), "cannot be used"),
    ],
)
def test_a_damaged_preset_is_told_and_left_out(pack, calibrated, folders, caplog, change, message):
    calibrated(save_preset=[True], scales=["0.05"])
    (file,) = folders.presets.glob("*.json")
    read = json.loads(file.read_text())
    change(read)
    file.write_text(json.dumps(read))
    assert pack.module("methods.calibration.presets").kept("default") == {}
    assert message in caplog.text
    file.write_text("{")
    assert pack.module("methods.calibration.presets").kept("default") == {}
