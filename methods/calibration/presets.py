"""Presets of this computer's models: where they are kept, and the page's way to them."""

import logging
from dataclasses import asdict
from pathlib import Path

import folder_paths
from server import PromptServer

from ..common import page
from .preset import Preset, load, save

EVENT = "detail_guidance.preset"
ROUTE = "/detail_guidance/presets"

log = logging.getLogger("detail_guidance")


def folder(user: str) -> Path:
    """A user's folder of presets, beside the user's saved workflows. Files of others are put here too."""
    return Path(folder_paths.get_user_directory()) / user / "detail_guidance"


def keep(preset: Preset, family_id: str) -> str:
    """Save a preset for the user whose prompt is running, in the place of an earlier one of the same model, and tell
    that user's pages. An earlier one stays where only it was judged by reference pictures, or where it helps and is of
    another part of the schedule.

    Args:
        family_id: id of the model's family, for the file's name.

    Returns:
        What became of the preset, in a sentence.
    """
    user = page.user_of_this_prompt()
    earlier = kept(user).get(preset.fingerprint)
    if earlier is not None and earlier.judged and not preset.judged:
        return "An earlier preset of this model, which was judged, is kept in its place."
    if earlier is not None and earlier.helps and not preset.helps and earlier.start_percent != preset.start_percent:
        start = f"start_percent {earlier.start_percent:g}"
        return f"An earlier preset of this model, which helps from {start} on, is kept in its place."
    folder(user).mkdir(parents=True, exist_ok=True)
    file = folder(user) / f"{family_id}-{preset.fingerprint}.json"
    save(preset, file)
    server = getattr(PromptServer, "instance", None)  # a script that samples has no server
    if server is not None:
        clients: list[str | None] = [*page.clients_of(user)]
        for client in clients or [None]:  # without any known page, every page
            server.send_sync(EVENT, asdict(preset), client)
    replaced = (
        "" if earlier is None else f" It takes the place of an earlier one of this model, which was: {earlier.why}"
    )
    return f"The preset is {file}.{replaced}"


def kept(user: str) -> dict[str, Preset]:
    """Fingerprint → preset, of all of a user's files that can be read; of two for one model the newer file. Those of
    the default user, whom the host's multi-user mode does not have, are everyone's, below their own."""
    found: dict[str, Preset] = {}
    for file in [*_oldest_first(folder(page.DEFAULT_USER)), *_oldest_first(folder(user))]:
        try:
            preset = load(file)
        except ValueError as error:
            log.warning(f"Detail Guidance: {error}")
            continue
        found[preset.fingerprint] = preset
    return found


def _oldest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime)


def serve() -> None:
    """Offer the presets to the page."""
    page.offer(ROUTE, lambda user: [asdict(preset) for preset in kept(user).values()])
