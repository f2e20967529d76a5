"""Latents of random scenes of drawings, made once: encoding them anew at each step would take most of a training.

    .host/venv/bin/python lab/training/latents.py --pool FOLDER --count 12000

Adds parts of PART scenes to the pool until it has so many; interrupted, it goes on. The number of a scene is its seed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from comfy_classes import DEVICE, HALF
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from training import WEIGHTS

import drawings  # isort: skip
from comfy.taesd.taesd import TAESD  # isort: skip

AUTOENCODER = WEIGHTS / "drawings_autoencoder.safetensors"
PART = 500
BATCH = 25
HELD_OUT = 1_000_000  # seeds from here on are of scenes that no model is trained on


def autoencoder(file: Path) -> TAESD:
    """The autoencoder of a file that autoencoder.py has exported."""
    state = load_file(file)
    model = TAESD(latent_channels=16)
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return model.eval().requires_grad_(False).to(DEVICE, memory_format=torch.channels_last)


@torch.inference_mode()
def encoded(model: TAESD, pictures: Tensor) -> Tensor:
    """What the diffusion model is given of pictures (n, 3, height, width): the encoder's numbers, of unit deviation."""
    scale = float(model.vae_scale) / SD3_SCALE
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=HALF):
        latents = model.taesd_encoder(pictures.to(DEVICE, memory_format=torch.channels_last))
    return latents.float().cpu() / scale


SD3_SCALE = 1.5305  # of the host's SD3 latent format, beside its shift of 0.0609


def scene(number: int) -> drawings.Scene:
    """The scene of this number."""
    return drawings.random_scene(np.random.default_rng([7, number]))


def pool(folder: Path) -> tuple[Tensor, list[str]]:
    """All latents so far to train on, float16 (scenes, 16, 16, 16), and their prompts."""
    latents, prompts = [], []
    for file in sorted(folder.glob("*.safetensors")):
        chosen = [n for n in range(PART) if not drawings.has_held_out_pair(scene(int(file.stem) + n))]
        latents.append(load_file(file)["latents"][chosen])
        with safe_open(file, framework="pt") as opened:
            told = json.loads(opened.metadata()["prompts"])
        prompts += [told[n] for n in chosen]
    return torch.cat(latents), prompts


def main(arguments: argparse.Namespace) -> None:
    model = autoencoder(arguments.autoencoder)
    arguments.pool.mkdir(parents=True, exist_ok=True)
    for first in range(0, arguments.count, PART):
        file = arguments.pool / f"{first:07}.safetensors"
        if file.exists():
            continue
        scenes = [scene(number) for number in range(first, first + PART)]
        latents = [
            encoded(model, torch.stack([drawings.draw(each)[0] for each in scenes[at : at + BATCH]]))
            for at in range(0, PART, BATCH)
        ]
        part = file.with_suffix(".part")
        about = {"prompts": json.dumps([each.prompt for each in scenes])}
        save_file({"latents": torch.cat(latents).half().contiguous()}, part, about)
        part.replace(file)
        print(f"{first + PART} scenes, deviation {torch.cat(latents).std():.3f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoencoder", type=Path, default=AUTOENCODER)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--count", type=int, default=12_000)
    main(parser.parse_args())
