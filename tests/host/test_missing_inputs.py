"""Things missing and odd pictures are a sentence before anything is sampled, on every node; so are damaged files."""

import json
import struct

import comfy.samplers
import pytest
import torch
from models import conditioning, latent, model
from sampling import counted, detail_guider, reported, stock_guider

SAMPLING = {
    "positive": conditioning(1),
    "negative": conditioning(2),
    "latent_image": latent(),
    "seed": 0,
    "steps": 1,
    "cfg": 1.0,
    "sampler_name": "euler",
    "scheduler": "simple",
}
PICTURE = torch.zeros(1, 16, 16, 3)
LISTS = ("DetailGuidanceCalibrate",)


def whole(pack):
    """Node → inputs that it would run with, as far as this pack looks at them before it samples."""
    words = pack.run("DetailForeground")
    calibrate = {name: [value] for name, value in {"vae": object(), "model": model(), **SAMPLING}.items()}
    calibrate |= {
        "layers": ["0.5"],
        "scales": ["0.25"],
        "save_preset": [False],
        "start_percent": [0.0],
        "reference": [PICTURE],
    }
    masks = {"vae": object(), "words": words, "image": PICTURE, "masks": "soft", "softness": 0.2, "noise_level": 0.3}
    return {
        "DetailGuidance": {"model": model()},
        "DetailGuider": {"model": model(), "positive": conditioning(1), "cfg": 1.0},
        "DetailGuidanceCalibrate": calibrate,
        "MassiveActivationProbe": {"model": model(), **SAMPLING},
        "MassiveActivationMap": {"model": model(), **SAMPLING},
        "DiTFeatures": {"model": model(), "positive": conditioning(1), "image": PICTURE, "vae": object()},
        "PromptWords": {"clip": object(), "text": "a fox"},
        "PromptWordMask": {"model": model(), "positive": conditioning(1), "seed": 0, "cfg": 1.0, **masks},
        "MatchFeatures": {"source": object(), "source_image": PICTURE},
        "ShowFeatures": {"features": object()},
        "DetailMetrics": {"images": PICTURE, "reference": PICTURE},
        "DetailCompare": {"images": PICTURE, "reference": PICTURE},
    }


MISSING = [
    *((node, "model") for node in ("DetailGuidance", "DetailGuider", "DetailGuidanceCalibrate", "DiTFeatures")),
    *((node, "model") for node in ("MassiveActivationProbe", "MassiveActivationMap", "PromptWordMask")),
    *((node, "vae") for node in ("DetailGuidanceCalibrate", "DiTFeatures", "PromptWordMask")),
    *((node, "positive") for node in ("DetailGuider", "DetailGuidanceCalibrate", "DiTFeatures", "PromptWordMask")),
    *((node, "positive") for node in ("MassiveActivationProbe", "MassiveActivationMap")),
    ("PromptWords", "clip"),
    ("PromptWordMask", "words"),
    ("MatchFeatures", "source"),
    ("ShowFeatures", "features"),
]


@pytest.mark.parametrize("node, name", MISSING)
def test_what_is_missing_is_named_before_anything_is_sampled(pack, node, name):
    inputs = whole(pack)[node] | {name: [None] if node in LISTS else None}
    with counted(model()) as rows, pytest.raises(ValueError, match=rf"^{name}: there is none\. (Load|Connect) "):
        pack.outputs(node, **inputs)
    assert not any(rows)


PICTURES = [
    ("DetailGuidanceCalibrate", "reference"),
    ("DiTFeatures", "image"),
    ("PromptWordMask", "image"),
    ("MatchFeatures", "source_image"),
    ("DetailMetrics", "images"),
    ("DetailMetrics", "reference"),
    ("DetailCompare", "images"),
    ("DetailCompare", "reference"),
]
ODD = {
    "one channel": (torch.zeros(1, 16, 16, 1), "one channel"),
    "a mask": (torch.zeros(1, 16, 16), r"its shape is \(1, 16, 16\)"),
    "an empty batch": (torch.zeros(0, 16, 16, 3), "it has no pictures"),
    "no height": (torch.zeros(1, 0, 16, 3), "it has no pictures"),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("node, name", PICTURES)
def test_odd_pictures_are_named_before_anything_is_sampled(pack, node, name, odd):
    pictures, told = ODD[odd]
    inputs = whole(pack)[node] | {name: [pictures] if node in LISTS else pictures}
    with counted(model()) as rows, pytest.raises(ValueError, match=rf"^{name}: .*{told}"):
        pack.outputs(node, **inputs)
    assert not any(rows)


def test_a_stage_without_steps_is_not_the_guiders_fault(pack):
    guider = detail_guider(pack, model())
    with pack.reports() as published:
        noise = latent(seed=5)["samples"]
        euler = comfy.samplers.sampler_object("euler")
        guider.sample(noise, noise * 0, euler, torch.tensor([0.5]), seed=5)
    (report,) = published
    assert (report.steps, len(report.warnings)) == (0, 1)
    assert report.warnings[0].startswith("nothing was sampled: this stage of the schedule has no steps.")
    _, following = reported(pack, stock_guider(guider.model_patcher))
    assert following.warnings == []


# Damaged files


def rewritten(file, **metadata):
    """A safetensors file with other metadata."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] |= metadata
    changed = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])


PROFILES = [
    {"blocks": "four"},
    {"width": "[]"},
    {"channels": "[17]"},
    {"channels": '{"2": 17}'},
    {"channels": '{"two": [17]}'},
    {"channels": '{"2": [17.5]}'},
    {"channels": '{"2": ["17"]}'},
    {"channels": "null"},
]


@pytest.mark.parametrize("metadata", PROFILES, ids=str)
def test_a_damaged_profile_names_its_file(pack, tmp_path, metadata):
    profiles = pack.module("methods.massive_activations.profile")
    file = tmp_path / "mine.safetensors"
    profiles.save(profiles.Profile("sd3", 4, 256, {2: (17,)}, torch.zeros(4, 256)), file, {})
    assert profiles.load(file).channels == {2: (17,)}
    rewritten(file, **metadata)
    with pytest.raises(ValueError, match=r"^profile: mine\.safetensors is damaged \(.*Measure and save it again\."):
        profiles.load(file)


FEATURES = [{"height": "tall"}, {"dropped": "7"}, {"dropped": '["a"]'}, {"noise_level": '"low"'}, {"maps": "{}"}]


@pytest.mark.parametrize("metadata", FEATURES, ids=str)
def test_damaged_features_name_their_file(pack, tmp_path, metadata):
    features = pack.module("methods.features.features")
    file = tmp_path / "mine.safetensors"
    about = {"height": 16, "width": 16, "block": 2, "blocks": 4, "maps": 0, "noise_level": 0.3, "dropped": (7,)}
    made = features.Features(torch.zeros(1, 8, 2, 2), modulated=True, family="sd3", fingerprint="ab", **about)
    features.save(made, file, {})
    assert features.load(file).dropped == (7,)
    rewritten(file, **metadata)
    with pytest.raises(ValueError, match=r"^features: mine\.safetensors is damaged \(.*Make and save them again\."):
        features.load(file)


@pytest.mark.parametrize("load", ["profile", "features"])
def test_a_file_that_is_gone_is_named(pack, tmp_path, load):
    module = {"profile": "methods.massive_activations.profile", "features": "methods.features.features"}[load]
    with pytest.raises(ValueError, match=rf"^{load}: gone\.safetensors is damaged"):
        pack.module(module).load(tmp_path / "gone.safetensors")
