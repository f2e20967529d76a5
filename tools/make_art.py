"""Draw the pack's icon and banner, and a thumbnail for each workflow.

    .host/venv/bin/python tools/make_art.py

A thumbnail is a picture that the demo workflow draws, on the reference model: the weights that the workflows name were
not at hand, and it says so.
"""

import asyncio
import copy
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
from comfy_server import Server
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = ROOT / "workflows"

GROUND, INK, FAINT = "#1b1b1f", "#f2f2f2", "#9a9aa2"
WARM, STRONG = "#e69f00", "#60a5fa"  # as in js/detail_guidance.css

# Magnitudes of some channels: one is massive.
CHANNELS = [0.12, 0.2, 0.09, 0.16, 0.85, 0.13, 0.22, 0.1, 0.17]

THUMBNAILS = {  # workflow → title, what the small model draws
    "sd3_medium": ("SD3 Medium", "wood planks"),
    "sd3.5_large": ("SD3.5 Large", "rock"),
    "sd3.5_medium": ("SD3.5 Medium", "grass 1"),
    "flux_dev": ("FLUX.1 dev", "lava 2"),
    "flux_dedistilled": ("Flux, de-distilled", "water 1"),
    "ksampler": ("KSampler", "marble 1"),
    "side_by_side": ("Side by side", "stucco"),
    "probe": ("Probe", "lava 1"),
    "calibrate": ("Calibrate", "metal grill 1"),
    "detailer": ("Detailer", "cinder blocks"),
    "few_steps": ("Few steps", "ceiling tiles"),
}


def _figure(width: int, height: int) -> Any:
    figure = plt.figure(figsize=(width / 100, height / 100), dpi=100, facecolor=GROUND)
    figure.patch.set_alpha(1)
    return figure


def channels(axes: Any) -> None:
    """The motif: bars of magnitudes, the massive one in the handles of the node's layer slider."""
    axes.set(xlim=(-0.8, len(CHANNELS) - 0.2), ylim=(-0.06, 1))
    axes.axis("off")
    massive = CHANNELS.index(max(CHANNELS))
    colours = [WARM if channel == massive else FAINT for channel in range(len(CHANNELS))]
    axes.bar(range(len(CHANNELS)), CHANNELS, width=0.62, color=colours)
    left, right, low, high = massive - 0.75, massive + 0.75, -0.04, 0.97
    for x, inward in ((left, 0.3), (right, -0.3)):
        axes.plot([x + inward, x, x, x + inward], [low, low, high, high], color=STRONG, linewidth=6)


def icon(file: Path) -> None:
    figure = _figure(400, 400)
    channels(figure.add_axes((0.08, 0.12, 0.84, 0.76)))
    figure.savefig(file)
    plt.close(figure)


def banner(file: Path) -> None:
    figure = _figure(1260, 540)
    channels(figure.add_axes((0.04, 0.16, 0.3, 0.68)))
    figure.text(0.4, 0.56, "Detail Guidance", color=INK, fontsize=52, weight="bold")
    figure.text(0.4, 0.42, "Finer local detail from Diffusion Transformers,", color=FAINT, fontsize=22)
    figure.text(0.4, 0.34, "without training. For ComfyUI.", color=FAINT, fontsize=22)
    figure.savefig(file)
    plt.close(figure)


def thumbnail(title: str, prompt: str, picture: Image.Image, file: Path) -> None:
    figure = _figure(512, 512)
    figure.text(0.06, 0.9, title, color=INK, fontsize=25, weight="bold", va="center")
    axes = figure.add_axes((0.06, 0.12, 0.88, 0.72))
    axes.imshow(picture.crop((0, 0, 128, 105)), aspect="auto", interpolation="lanczos")
    axes.axis("off")
    note = f"“{prompt}”, drawn by this pack's small test model"
    figure.text(0.06, 0.06, note, color=FAINT, fontsize=12, va="center")
    figure.savefig(file, pil_kwargs={"quality": 85})
    plt.close(figure)


async def drawn(prompts: list[str]) -> dict[str, Image.Image]:
    """What the demo workflow draws for each prompt."""
    pictures = {}
    async with Server() as server:
        graph = await server.api_format(json.loads((ROOT / "tests/reference_model/demo.json").read_text()))
        for prompt in prompts:
            asked = copy.deepcopy(graph)
            guider = next(node for node in asked.values() if node["class_type"] == "DetailGuider")
            asked[guider["inputs"]["positive"][0]]["inputs"]["text"] = prompt
            (png,) = (await server.run(asked)).values()
            pictures[prompt] = Image.open(io.BytesIO(png)).convert("RGB")
    return pictures


async def main() -> None:
    icon(ROOT / "docs/icon.png")
    banner(ROOT / "docs/banner.png")
    pictures = await drawn([prompt for _, prompt in THUMBNAILS.values()])
    for name, (title, prompt) in THUMBNAILS.items():
        thumbnail(title, prompt, pictures[prompt], WORKFLOWS / f"detail_guidance_{name}.jpg")


if __name__ == "__main__":
    asyncio.run(main())
