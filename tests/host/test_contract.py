"""Node ids, inputs, ranges and types that workflows in the wild rely on."""

import json
from inspect import signature

import pytest
from comfy_api.latest import io

import nodes as comfy_nodes

FRACTION = ("FLOAT", 0.0, 1.0)
GUIDANCE = {
    "dg_scale": ("FLOAT", 0.0, 20.0),
    "layer_start": FRACTION,
    "layer_end": FRACTION,
    "start_percent": FRACTION,
    "end_percent": FRACTION,
}
# Optional, and behind the others: workflows saved before hold values by place, and prompts have none.
BEHIND = {
    "scale_is": ("COMBO",),
    "every": ("INT", 1, 8),
    "path": ("COMBO",),
    "perturbation": ("COMBO",),
    "curve": ("STRING",),
}
SAMPLING = {
    "model": ("MODEL",),
    "positive": ("CONDITIONING",),
    "negative": ("CONDITIONING",),
    "latent_image": ("LATENT",),
    "seed": ("INT", 0, 2**64 - 1),
    "steps": ("INT", 1, 10000),
    "cfg": ("FLOAT", 0.0, 100.0),
    "sampler_name": ("COMBO",),
    "scheduler": ("COMBO",),
}
FINDING = {
    "massive_ratio": ("FLOAT", 1.0, 1000.0),
    "max_channels": ("INT", 1, 64),
}
NODES = {
    "DetailGuider": {
        "required": {
            "model": ("MODEL",),
            "positive": ("CONDITIONING",),
            "cfg": ("FLOAT", 0.0, 100.0),
            **GUIDANCE,
        },
        "optional": {"negative": ("CONDITIONING",), "enabled": ("BOOLEAN",), "options": ("DG_OPTIONS",), **BEHIND},
        "output": ["GUIDER"],
    },
    "DetailGuidance": {
        "required": {"model": ("MODEL",), **GUIDANCE},
        "optional": {"enabled": ("BOOLEAN",), "options": ("DG_OPTIONS",), **BEHIND},
        "output": ["MODEL"],
    },
    "DetailGuidanceOptions": {
        "required": {
            "channels": ("STRING",),
            **FINDING,
            "keep_start": FRACTION,
            "keep_end": FRACTION,
            "rescale": FRACTION,
            "limit": ("FLOAT", 0.0, 10.0),
            "batching": ("COMBO",),
        },
        "optional": {
            "every": ("INT", 1, 8),
            "scale_is": ("COMBO",),
            "words_soft": FRACTION,
            "path": ("COMBO",),
            "direction": ("COMBO",),
            "perturbation": ("COMBO",),
            "curve": ("STRING",),
            "mask": ("MASK",),
            "profile": ("DG_PROFILE",),
            "words": ("DG_WORDS",),
        },
        "output": ["DG_OPTIONS"],
    },
    "DetailGuidanceCalibrate": {
        "required": {
            **SAMPLING,
            "vae": ("VAE",),
            "layers": ("STRING",),
            "scales": ("STRING",),
            "save_preset": ("BOOLEAN",),
        },
        "optional": {
            "start_percent": ("FLOAT",),
            "reference": ("IMAGE",),
            "clip_vision": ("CLIP_VISION",),
            "options": ("DG_OPTIONS",),
        },
        "output": ["FLOAT", "FLOAT", "IMAGE", "IMAGE", "STRING", "FLOAT"],
    },
    "DetailGuidanceGrid": {
        "required": {
            **SAMPLING,
            "vae": ("VAE",),
            "layers": ("STRING",),
            "scales": ("STRING",),
            "starts": ("STRING",),
            "perturbations": ("STRING",),
            "paths": ("STRING",),
        },
        "optional": {"options": ("DG_OPTIONS",)},
        "output": ["IMAGE", "DG_GRID"],
    },
    "DetailGuidanceJudge": {
        "required": {"grid": ("DG_GRID",), "scores": ("FLOAT,INT,STRING",), "save_preset": ("BOOLEAN",)},
        "optional": {"guard": ("FLOAT,INT,STRING",)},
        "output": ["FLOAT", "FLOAT", "IMAGE", "IMAGE", "STRING", "FLOAT", "DG_OPTIONS"],
    },
    "DetailAestheticScore": {
        "required": {"images": ("IMAGE",), "clip_vision": ("CLIP_VISION",), "head": ("COMBO",)},
        "optional": {},
        "output": ["FLOAT"],
    },
    "DetailBlindChoice": {
        "required": {"pictures": ("IMAGE",), "choices": ("STRING",), "seed": ("INT", 0, 2**64 - 1)},
        "optional": {},
        "output": ["FLOAT", "STRING"],
    },
    "DetailGuidanceReport": {
        "required": {"latent": ("LATENT",)},
        "optional": {},
        "output": ["LATENT", "STRING"],
    },
    "DetailCompare": {
        "required": {"images": ("IMAGE",), "reference": ("IMAGE",)},
        "optional": {},
        "output": [],
    },
    "MassiveActivationProbe": {
        "required": {
            **SAMPLING,
            **FINDING,
        },
        "optional": {},
        "output": ["DG_PROFILE", "IMAGE", "STRING", "LATENT"],
    },
    "MassiveActivationMap": {
        "required": {
            **SAMPLING,
            "layer": FRACTION,
            **FINDING,
        },
        "optional": {"profile": ("DG_PROFILE",)},
        "output": ["IMAGE", "STRING", "LATENT"],
    },
    "SaveMassiveActivationProfile": {
        "required": {"profile": ("DG_PROFILE",), "filename_prefix": ("STRING",)},
        "optional": {},
        "output": [],
    },
    "DetailMetrics": {
        "required": {"images": ("IMAGE",), "reference": ("IMAGE",)},
        "optional": {},
        "output": ["IMAGE", "STRING"],
    },
    "LoadMassiveActivationProfile": {
        "required": {"profile_name": ("COMBO",)},
        "optional": {},
        "output": ["DG_PROFILE"],
    },
    "DiTFeatures": {
        "required": {
            "model": ("MODEL",),
            "positive": ("CONDITIONING",),
            "layer": FRACTION,
            "noise_level": ("FLOAT", 0.01, 0.99),
            "draws": ("INT", 1, 64),
            "seed": ("INT", 0, 2**64 - 1),
            "channels": ("STRING",),
            **FINDING,
            "normalise": ("COMBO",),
            "maps": ("BOOLEAN",),
        },
        "optional": {"image": ("IMAGE",), "vae": ("VAE",), "latent": ("LATENT",), "profile": ("DG_PROFILE",)},
        "output": ["DIT_FEATURES", "STRING"],
    },
    "MatchFeatures": {
        "required": {
            "source": ("DIT_FEATURES",),
            "points": ("STRING",),
            "mutual": ("BOOLEAN",),
            "earlier_frames": ("INT", 0, 64),
        },
        "optional": {
            "target": ("DIT_FEATURES",),
            "mask": ("MASK",),
            "source_image": ("IMAGE",),
            "target_image": ("IMAGE",),
        },
        "output": ["STRING", "MASK", "IMAGE", "IMAGE", "STRING"],
    },
    "ShowFeatures": {
        "required": {
            "features": ("DIT_FEATURES",),
            "parts": ("INT", 2, 16),
            "channel": ("INT", 0, 2**16),
        },
        "optional": {},
        "output": ["IMAGE", "IMAGE", "MASK", "IMAGE"],
    },
    "PromptWords": {
        "required": {"clip": ("CLIP",), "text": ("STRING",), "words": ("STRING",), "layer": FRACTION},
        "optional": {},
        "output": ["DG_WORDS", "CONDITIONING"],
    },
    "DetailForeground": {
        "required": {"layer": FRACTION, "max_channels": ("INT", 1, 64)},
        "optional": {},
        "output": ["DG_WORDS"],
    },
    "PromptWordMask": {
        "required": {
            "model": ("MODEL",),
            "positive": ("CONDITIONING",),
            "vae": ("VAE",),
            "words": ("DG_WORDS",),
            "masks": ("COMBO",),
            "softness": FRACTION,
            "seed": ("INT", 0, 2**64 - 1),
            "steps": ("INT", 1, 10000),
            "cfg": ("FLOAT", 0.0, 100.0),
            "sampler_name": ("COMBO",),
            "scheduler": ("COMBO",),
            "noise_level": ("FLOAT", 0.01, 0.99),
        },
        "optional": {"negative": ("CONDITIONING",), "latent_image": ("LATENT",), "image": ("IMAGE",)},
        "output": ["MASK", "IMAGE", "LATENT"],
    },
    "SaveDiTFeatures": {
        "required": {"features": ("DIT_FEATURES",), "filename_prefix": ("STRING",)},
        "optional": {},
        "output": [],
    },
    "LoadDiTFeatures": {
        "required": {"features_name": ("COMBO",)},
        "optional": {},
        "output": ["DIT_FEATURES"],
    },
}
CHOICES = {
    "batching": ["auto", "together", "in turn"],
    "scale_is": ["w", "strength"],
    "path": ["positive", "negative"],
    "direction": ["whole", "across CFG"],
    "perturbation": [
        "massive channels",
        "massive channels amplified",
        "massive channels averaged",
        "massive channels shuffled",
        "skipped block",
        "random blocks",
        "blurred tokens",
        "shuffled tokens",
        "identity attention",
        "blurred attention",
        "blurred word attention",
    ],
    "normalise": ["modulated", "raw"],
    "masks": ["soft", "divided"],
}
DEFAULTS = {
    "start_percent": 0.0,
    "end_percent": 1.0,
    "enabled": True,
    "channels": "auto",
    "keep_start": 0.0,
    "keep_end": 0.0,
    "rescale": 0.0,
    "limit": 0.0,
    "batching": "auto",
    "every": 1,
    "scale_is": "w",
    "words_soft": 0.2,
    "path": "positive",
    "direction": "whole",
    "perturbation": "massive channels",
    "curve": "",
}


def test_other_names_that_people_search_for(pack):
    """Where the host knows such; 0.3.75 does not."""
    known = "search_aliases" in io.Schema.__dataclass_fields__
    words = {"sharpen", "texture", "skip layer", "perturbed", "DG", "SLG", "PAG", "quality"}
    for node in ("DetailGuider", "DetailGuidance"):
        schema = vars(pack.classes[node].GET_SCHEMA())
        assert words <= set(schema["search_aliases"]) if known else "search_aliases" not in schema


@pytest.mark.parametrize("node", ["DetailGuider", "DetailGuidance"])
def test_what_came_later_is_behind_the_rest(pack, node):
    """And behind the fold, where the host has one: 0.3.75 has none."""
    folded = "advanced" in signature(io.Combo.Input.__init__).parameters
    inputs = pack.classes[node].GET_SCHEMA().inputs
    assert [each.id for each in inputs][-len(BEHIND) :] == list(BEHIND)
    assert [each.id for each in inputs if getattr(each, "advanced", False)] == (list(BEHIND) if folded else [])


@pytest.mark.parametrize("node", NODES)
def test_node(pack, node):
    info = json.loads(json.dumps(comfy_nodes.NODE_CLASS_MAPPINGS[node].GET_NODE_INFO_V1()))
    first = node in ("DetailGuidance", "DetailGuider")
    assert info["category"] == "detail guidance" if first else info["category"].startswith("detail guidance/")
    assert list(info["output"]) == NODES[node]["output"]
    for group in ("required", "optional"):
        assert set(info["input"].get(group, {})) == set(NODES[node][group])
        for name, (kind, *limits) in NODES[node][group].items():
            found, settings = info["input"][group][name]
            assert found == kind or (kind == "COMBO" and isinstance(found, list))
            if name in CHOICES:
                assert settings.get("options", found) == CHOICES[name]
            assert len(settings["tooltip"]) > 10, f"{name} has no tooltip"
            if limits:
                assert [settings["min"], settings["max"]] == limits
                assert settings["min"] <= settings["default"] <= settings["max"]
            if name in DEFAULTS:
                assert settings["default"] == DEFAULTS[name]
