"""Writes docs/llms.txt, for programs that drive graphs: the nodes as the host describes them, graphs to start from.

.host/venv/bin/python tools/make_llms.py
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from comfy_server import Server
from graph import Definitions
from make_locale import NODES

FILE = Path(__file__).resolve().parent.parent / "docs/llms.txt"

HEAD = """# Detail Guidance for ComfyUI

> Finer local detail for Diffusion Transformers (SD3, Flux, Qwen-Image, Wan ...), without training. To use it, put the
> node DetailGuidance between the model and the sampler. dg_scale is the strength; 0 is off and bit-identical to none.

Graphs are in ComfyUI's API format: POST {"prompt": graph} to /prompt. A link is ["node id", output number]. Optional
inputs may be left out. Models that are not supported end in an error that names them (docs/MODELS.md).
"""

# In each, "1" is a loader with the outputs of CheckpointLoaderSimple: MODEL, CLIP, VAE.
BEGINNING: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd3.5_medium.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "brick wall"}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
    "4": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 1}},
}
SAMPLING = {"seed": 0, "steps": 28, "cfg": 4.5, "sampler_name": "euler", "scheduler": "sgm_uniform", "denoise": 1.0}
LAYERS = {"layer_start": 0.7, "layer_end": 0.7, "start_percent": 0.0, "end_percent": 1.0}


def sampled(model: str, positive: list[Any]) -> dict[str, Any]:
    """KSampler as node 8, and the nodes that save its picture."""
    links = {"model": [model, 0], "positive": positive, "negative": ["3", 0], "latent_image": ["4", 0]}
    return {
        "8": {"class_type": "KSampler", "inputs": links | SAMPLING},
        "9": {"class_type": "VAEDecode", "inputs": {"samples": ["8", 0], "vae": ["1", 2]}},
        "10": {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "detail"}},
    }


def detail(**others: Any) -> dict[str, Any]:
    inputs = {"model": ["1", 0], "dg_scale": 0.25} | LAYERS | others
    return {"class_type": "DetailGuidance", "inputs": inputs}


WIRINGS = {
    "Detail Guidance with KSampler": BEGINNING | {"5": detail()} | sampled("5", ["2", 0]),
    "Detail on a word of the prompt": BEGINNING
    | {
        "2": {
            "class_type": "PromptWords",
            "inputs": {"clip": ["1", 1], "text": "brick wall", "words": "brick", "layer": 0.0},
        },
        "6": {"class_type": "DetailGuidanceOptions", "inputs": {"words": ["2", 0]}},
        "5": detail(options=["6", 0]),
    }
    | sampled("5", ["2", 1]),
}


def build(definitions: Definitions) -> str:
    nodes = "\n".join(_node(name, definitions[name]) for name in NODES)
    wirings = "\n".join(
        f"### {title}\n\n```json\n{{\n"
        + ",\n".join(
            f"  {json.dumps(number)}: {json.dumps(node)}" for number, node in _whole(wiring, definitions).items()
        )
        + "\n}\n```\n"
        for title, wiring in WIRINGS.items()
    )
    return f"{HEAD}\n## Graphs\n\n{wirings}\n## Nodes\n\n{nodes}"


def _whole(wiring: dict[str, Any], definitions: Definitions) -> dict[str, Any]:
    """With the defaults of required inputs that a graph leaves out."""
    whole = {}
    for number, node in wiring.items():
        required = definitions[node["class_type"]]["input"]["required"].items()
        defaults = {name: of[1]["default"] for name, of in required if len(of) > 1 and "default" in of[1]}
        whole[number] = node | {"inputs": defaults | node["inputs"]}
    return whole


def _node(name: str, definition: dict[str, Any]) -> str:
    lines = [f"### {name}", "", f"{definition['display_name']}. {definition['description']}", ""]
    for group in ("required", "optional"):
        for each, (kind, *settings) in definition["input"].get(group, {}).items():
            options = settings[0] if settings else {}
            kind = options.get("options", kind) if kind == "COMBO" else kind
            told = "one of " + ", ".join(map(str, kind)) if isinstance(kind, list) else kind
            told += f" from {options['min']} to {options['max']}" if {"min", "max"} <= options.keys() else ""
            told += f", default {json.dumps(options['default'])}" if "default" in options else ""
            lines.append(f"- input {each} ({group}): {told}. {options.get('tooltip', '')}".rstrip())
    outputs = zip(definition["output_name"], definition["output"], strict=True)
    lines += [f"- output {number}: {each} ({kind})" for number, (each, kind) in enumerate(outputs)]
    return "\n".join(lines) + "\n"


async def main() -> None:
    async with Server() as server:
        FILE.write_text(build(await server.get("/object_info")))
    print(FILE)


if __name__ == "__main__":
    asyncio.run(main())
