"""A fingerprint by which files know a model's weights."""

import hashlib

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

EVERY_SO_MANY, VALUES = 8, 1024  # which weights' values are looked at, and how many of each
COMPILED = "_orig_mod."  # in the names of what torch.compile has wrapped


def model_fingerprint(model: ModelPatcher) -> str:
    """16 hexadecimal digits of a model's weights without LoRAs: of all names, and of the signs of some values, which
    are the same in 16 and in 32 bits. A quantised form of the same weights has another fingerprint."""
    digest = hashlib.sha256()
    network: torch.nn.Module = model.model.diffusion_model
    named = {name.replace(COMPILED, ""): (name, value) for name, value in network.named_parameters()}
    for number, (plain, (name, value)) in enumerate(sorted(named.items())):
        digest.update(f"{plain};".encode())
        if number % EVERY_SO_MANY == 0:
            original = model.backup.get(f"diffusion_model.{plain}") or model.backup.get(f"diffusion_model.{name}")
            digest.update(_signs(value if original is None else original.weight))
    return digest.hexdigest()[:16]


def _signs(value: Tensor) -> bytes:
    """Signs of a weight's first values; nothing where they cannot be read, as of some packs' quantised weights."""
    try:
        return (value.detach().flatten()[:VALUES].to("cpu", torch.float32) > 0).numpy().tobytes()
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return b""
