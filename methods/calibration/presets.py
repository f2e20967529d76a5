"""Presets of this computer's models: where they are kept, whose they are, and the page's way to them."""

import hashlib
import logging
import re
from dataclasses import asdict
from pathlib import Path

import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from server import PromptServer

from ..detail_guidance.report import offer
from .preset import Preset, load, save

EVENT = "detail_guidance.preset"
ROUTE = "/detail_guidance/presets"
EVERY_SO_MANY, VALUES = 8, 1024  # which weights' values are looked at, and how many of each
COMPILED = "_orig_mod."  # in the names of what torch.compile has wrapped

log = logging.getLogger("detail_guidance")


def folder() -> Path:
    """Below the user's folder, beside the saved workflows. Files of others are put here too."""
    return Path(folder_paths.get_user_directory()) / "default" / "detail_guidance"


def fingerprint(model: ModelPatcher) -> str:
    """Of the weights, without LoRAs: the names of all, and the signs of some values, which are the same in 16 and in 32
    bits. A quantised form of the same weights is another model."""
    digest = hashlib.sha256()
    network: torch.nn.Module = model.model.diffusion_model
    named = {name.replace(COMPILED, ""): (name, value) for name, value in network.named_parameters()}
    for number, (plain, (name, value)) in enumerate(sorted(named.items())):
        digest.update(f"{plain};".encode())
        if number % EVERY_SO_MANY == 0:
            original = model.backup.get(f"diffusion_model.{plain}") or model.backup.get(f"diffusion_model.{name}")
            digest.update(_signs(value if original is None else original.weight))
    return digest.hexdigest()[:16]


def _signs(value: torch.Tensor) -> bytes:
    """Of a weight's first values; nothing where it cannot be read, as some packs' quantised ones: sampling goes on."""
    try:
        return (value.detach().flatten()[:VALUES].to("cpu", torch.float32) > 0).numpy().tobytes()
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return b""


def keep(preset: Preset) -> str:
    """Save it, in the place of an earlier one of the same model, and tell the page; unless only the earlier one was
    judged by reference pictures, or helps and is of another part of the schedule. Says what became of it."""
    earlier = kept().get(preset.fingerprint)
    if earlier is not None and earlier.judged and not preset.judged:
        return "An earlier preset of this model, which reference pictures have judged, is kept in its place."
    if earlier is not None and earlier.helps and not preset.helps and earlier.start_percent != preset.start_percent:
        start = f"start_percent {earlier.start_percent:g}"
        return f"An earlier preset of this model, which helps from {start} on, is kept in its place."
    folder().mkdir(parents=True, exist_ok=True)
    family = re.sub(r"[^a-z0-9.]+", "-", preset.family.lower()).strip("-")
    file = folder() / f"{family}-{preset.fingerprint}.json"
    save(preset, file)
    server = getattr(PromptServer, "instance", None)  # a script that samples has no server
    if server is not None:
        server.send_sync(EVENT, asdict(preset), None)
    return f"The preset is {file}."


def kept() -> dict[str, Preset]:
    """All that can be read, by fingerprint; of two for one model the newer file."""
    found: dict[str, Preset] = {}
    for file in sorted(folder().glob("*.json"), key=lambda file: file.stat().st_mtime):
        try:
            preset = load(file)
        except ValueError as error:
            log.warning(f"Detail Guidance: {error}")
            continue
        found[preset.fingerprint] = preset
    return found


def serve() -> None:
    """Offer them to the page."""
    offer(ROUTE, lambda: [asdict(preset) for preset in kept().values()])
