"""Write locales/en/nodeDefs.json, the nodes' own words, as a start for translators: `locales/<language>/` has the same
names.

    .host/venv/bin/python tools/make_locale.py
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from comfy_server import Server

NODES = (
    "DetailGuider",
    "DetailGuidance",
    "DetailGuidanceOptions",
    "DetailGuidanceCalibrate",
    "DetailGuidanceGrid",
    "DetailGuidanceJudge",
    "DetailAestheticScore",
    "DetailBlindChoice",
    "DetailGuidanceReport",
    "MassiveActivationProbe",
    "MassiveActivationMap",
    "SaveMassiveActivationProfile",
    "LoadMassiveActivationProfile",
    "DetailMetrics",
    "DetailCompare",
    "DiTFeatures",
    "MatchFeatures",
    "ShowFeatures",
    "SaveDiTFeatures",
    "LoadDiTFeatures",
    "PromptWords",
    "DetailForeground",
    "PromptWordMask",
)
FILE = Path(__file__).resolve().parent.parent / "locales/en/nodeDefs.json"


def words_of(definition: dict[str, Any]) -> dict[str, Any]:
    """A node's words, of its definition in the host's /object_info."""
    inputs = {**definition["input"].get("required", {}), **definition["input"].get("optional", {})}
    outputs = zip(definition["output_name"], definition["output_tooltips"], strict=True)
    return {
        "display_name": definition["display_name"],
        "description": definition["description"],
        "inputs": {name: {"name": name, "tooltip": options["tooltip"]} for name, (_, options) in inputs.items()},
        "outputs": {str(number): {"name": name, "tooltip": tooltip} for number, (name, tooltip) in enumerate(outputs)},
    }


def build(definitions: dict[str, Any]) -> str:
    return json.dumps({node: words_of(definitions[node]) for node in NODES}, indent=2, ensure_ascii=False) + "\n"


async def main() -> None:
    async with Server() as server:
        FILE.parent.mkdir(exist_ok=True)
        FILE.write_text(build(await server.get("/object_info")))
        print(FILE)


if __name__ == "__main__":
    asyncio.run(main())
