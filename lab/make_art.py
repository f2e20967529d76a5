"""Draw the pack's icon and banner, and a thumbnail for each workflow.

    .host/venv/bin/python lab/make_art.py

A thumbnail is a picture that the demo workflow draws, on the models of drawings and of objects: the weights that the
workflows name were not at hand, and it says so.
"""

import asyncio
import copy
import io
import json
from pathlib import Path
from typing import Any

import matplotlib
import paths  # noqa: F401  first: the others are found by it
from comfy_server import Server
from make_workflows import WORKFLOWS, file_of
from PIL import Image
from reference_graphs import on_the_reference_model

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parent.parent

GROUND, INK, FAINT = "#1b1b1f", "#f2f2f2", "#9a9aa2"
WARM, STRONG = "#e69f00", "#60a5fa"  # as in js/detail_guidance.css

# Magnitudes of some channels: one is massive.
CHANNELS = [0.12, 0.2, 0.09, 0.16, 0.85, 0.13, 0.22, 0.1, 0.17]

# What `make demo` shows without CFG, at some strengths.
SETTINGS = {"cfg": 1.0, "perturbation": "blurred tokens", "scale_is": "strength"}
SCALE = (0.4,)
SPLIT, GRID = (0.0, 0.4), (0.0, 0.1, 0.2, 0.4)  # without and with in one picture; a calibration's
# workflow → what the model of objects draws, the title of the node whose picture is shown
OBJECTS = {
    "words": ("apple on grass 1", "Where the word is"),
    "transfer_mask": ("apple on rock", "How alike"),
    "follow_mask": ("fox on grass 1", "How alike"),
    "parts": ("fox on grass 1", "Parts"),
}
THUMBNAILS = {  # workflow → what the model of drawings draws, at which scales
    "side_by_side": ("lion on blue", SPLIT),
    "ksampler": ("cherries on purple", SCALE),
    "calibrate": ("bear on green", GRID),
    "detailer": ("strawberry on pink", SCALE),
    "app": ("tomato on yellow", SPLIT),
    "flux_dev": ("castle on blue", SCALE),
    "flux2_klein": ("duck on purple", SCALE),
    "chroma": ("butterfly on teal", SCALE),
    "z_image": ("taxi on yellow", SCALE),
    "qwen_image": ("panda on green", SCALE),
    "wan": ("sailboat on orange", SCALE),
    "probe": ("television on teal", SCALE),
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


def thumbnail(name: str, prompt: str, pictures: list[Image.Image], how: str = "") -> None:
    """Of a workflow, beside it. The title is at the bottom: the page lays words of its own over the upper left
    corner."""
    figure = _figure(512, 512)
    halves = len(pictures) == 2  # of one picture
    around = {"left": 0, "right": 1, "bottom": 0.22, "top": 1, "wspace": 0.01, "hspace": 0.01}
    rows, columns = (len(pictures) + 1) // 2, min(len(pictures), 2)
    for number, axes in enumerate(figure.subplots(rows, columns, squeeze=False, gridspec_kw=around).flat):
        left, right = (64 * number, 64 * (number + 1)) if halves else (0, 128)
        axes.imshow(pictures[number].crop((left, 0, right, 100)), aspect="auto")
        axes.axis("off")
    _, title = WORKFLOWS[name].title.split(" ", maxsplit=1)
    figure.text(0.04, 0.14, title, color=INK, fontsize=min(25, 600 / len(title)), weight="bold", va="center")
    note = f"“{prompt}”, drawn by this pack's small test model{how}"
    figure.text(0.04, 0.05, note, color=FAINT, fontsize=11, va="center")
    figure.savefig(file_of(name).with_suffix(".jpg"), pil_kwargs={"quality": 85})
    plt.close(figure)


async def drawn(asked_for: list[tuple[str, float]]) -> dict[tuple[str, float], Image.Image]:
    """What the demo workflow draws for each prompt and scale."""
    pictures = {}
    async with Server() as server:
        graph = await server.api_format(json.loads((ROOT / "tests/reference_model/demo.json").read_text()))
        for prompt, scale in asked_for:
            asked = copy.deepcopy(graph)
            guider = next(node for node in asked.values() if node["class_type"] == "DetailGuider")
            asked[guider["inputs"]["positive"][0]]["inputs"]["text"] = prompt
            guider["inputs"] |= SETTINGS | {"dg_scale": scale}
            loader = next(node for node in asked.values() if node["class_type"] == "DetailGuidanceReferenceModel")
            loader["inputs"]["drawings"] = True
            (png,) = (await server.run(asked)).values()
            pictures[prompt, scale] = Image.open(io.BytesIO(png)).convert("RGB")
    return pictures


def _of_a_drawn_film(asked: dict[str, Any]) -> dict[str, Any]:
    """In place of a film's frames, a picture that the model draws, twice."""
    number = {each["class_type"]: key for key, each in asked.items()}
    model, prompt = [number["DetailGuidanceReferenceModel"], 0], [number["CLIPTextEncode"], 0]
    sampling = {"seed": 0, "steps": 20, "cfg": 4.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    drawn = {
        "empty": ("EmptySD3LatentImage", {"width": 256, "height": 256, "batch_size": 1}),
        "latent": (
            "KSampler",
            {"model": model, "positive": prompt, "negative": prompt, "latent_image": ["empty", 0], **sampling},
        ),
        "picture": ("VAEDecode", {"samples": ["latent", 0], "vae": [model[0], 2]}),
        number["GetVideoComponents"]: ("RepeatImageBatch", {"image": ["picture", 0], "amount": 2}),
    }
    film = {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in drawn.items()}
    return {key: each for key, each in asked.items() if each["class_type"] != "LoadVideo"} | film


async def drawn_by_workflows() -> dict[str, Image.Image]:
    """What the workflows of OBJECTS show, of 256 pixels."""
    pictures = {}
    async with Server() as server:
        for name, (prompt, node) in OBJECTS.items():
            graph = json.loads(file_of(name).read_text())
            asked = await server.api_format(graph)
            asked = on_the_reference_model(asked, prompt, steps=20, smaller=4, objects=True)
            if name == "follow_mask":
                asked = _of_a_drawn_film(asked)
            files = await server.run(asked)
            (number,) = [str(each["id"]) for each in graph["nodes"] if each.get("title") == node]
            pictures[name] = Image.open(io.BytesIO(files[number])).convert("RGB").resize((128, 128))
    return pictures


async def main() -> None:
    icon(ROOT / "docs/icon.png")
    banner(ROOT / "docs/banner.png")
    pictures = await drawn([(prompt, scale) for prompt, scales in THUMBNAILS.values() for scale in scales])
    for name, (prompt, scales) in THUMBNAILS.items():
        thumbnail(name, prompt, [pictures[prompt, scale] for scale in scales], ", blurred tokens")
    for name, picture in (await drawn_by_workflows()).items():
        thumbnail(name, OBJECTS[name][0], [picture])


if __name__ == "__main__":
    asyncio.run(main())
