"""Presets of this computer's models: where they are kept, whose they are, and the page's way to them."""

import hashlib
import logging
import re
from dataclasses import asdict
from pathlib import Path

import folder_paths
import torch
from aiohttp import web
from comfy.model_patcher import ModelPatcher
from server import PromptServer

from ..detail_guidance.preset import Preset, load, save

EVENT = "detail_guidance.preset"
ROUTE = "/detail_guidance/presets"
VECTORS = 16  # whose values are looked at: biases and norms, which every training changes

log = logging.getLogger("detail_guidance")


def folder() -> Path:
    """Below the user's folder, beside the saved workflows. Files of others are put here too."""
    return Path(folder_paths.get_user_directory()) / "default" / "detail_guidance"


def fingerprint(model: ModelPatcher) -> str:
    """Of the weights, without LoRAs: names and shapes of all, and the values of some small ones."""
    weights = model.model.diffusion_model.state_dict()
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {tuple(weights[name].shape)};".encode())
    vectors = [name for name in sorted(weights) if weights[name].ndim == 1 and weights[name].is_floating_point()]
    for name in vectors[:: max(1, len(vectors) // VECTORS)]:
        original = model.backup.get(f"diffusion_model.{name}")
        value = weights[name] if original is None else original.weight
        digest.update(value.detach().to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]


def keep(preset: Preset) -> Path:
    """Save it, in the place of an earlier one of the same model, and tell the page."""
    folder().mkdir(parents=True, exist_ok=True)
    family = re.sub(r"[^a-z0-9.]+", "-", preset.family.lower()).strip("-")
    file = folder() / f"{family}-{preset.fingerprint}.json"
    save(preset, file)
    server = getattr(PromptServer, "instance", None)  # a script that samples has no server
    if server is not None:
        server.send_sync(EVENT, asdict(preset), None)
    return file


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
    """Offer them to the page, where there is a server."""
    server = getattr(PromptServer, "instance", None)
    if server is None or any(getattr(route, "path", None) == ROUTE for route in server.routes):
        return  # a second copy of the pack may have been installed

    @server.routes.get(ROUTE)
    async def presets(request: web.Request) -> web.Response:
        return web.json_response([asdict(preset) for preset in kept().values()])
