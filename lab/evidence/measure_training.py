"""Measure trainings of the reference model whose weights are not committed: growth.json, siblings.json.

    .host/venv/bin/python lab/evidence/measure_training.py .host/training/10x192_skip0.15_adamw_seed1 …

Each folder is one that `lab/training/train.py` has kept averaged weights in; what was measured of others stays
in the files. `activations.json` is of the committed deep model: mean z² of each channel at each block's input.
"""

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
import paths
import torch
from in_process import Pack, start

start(cpu=True, pytorch_attention=True)

import photographs  # noqa: E402
import plain_modules  # noqa: E402,F401
from disrupted_model import MIDDLE, teacher_forced  # noqa: E402
from judge import Estimate, Judge, estimate  # noqa: E402
from laboratory import CFG, FULL, Laboratory, choosing, judging  # noqa: E402
from layer_and_scale import WINDOWS  # noqa: E402
from massive_activations import channels, seen  # noqa: E402
from pack.methods.common.layers import block_at  # noqa: E402
from safetensors import safe_open  # noqa: E402
from siblings import LATE, WITH_CFG, WITHOUT  # noqa: E402
from weakened import WHOLE, Window, observing  # noqa: E402

LAYERS = (0.5, 0.7, 0.8, 0.9)
SCALES = {CFG: (0.25, 0.5), 1.0: (0.1, 0.25)}  # with CFG and without
LAST_THIRD = WINDOWS["last third"]
NAME = re.compile(r"(\d+)x(\d+)_skip([\d.]+)_(\w+)_seed(\d+)")


@torch.no_grad()
def peaks(laboratory: Laboratory, weights: Path) -> list[tuple[int, float]]:
    """Per block, of its input's image tokens at all noise levels: the largest channel, and how many times the median
    channel's its mean |z| is."""
    found: list[tuple[int, float]] = []
    prompts = list(laboratory.textures)
    generator = torch.Generator().manual_seed(8)
    crops = torch.cat([photographs.crops(laboratory.textures[prompt], 1, generator) for prompt in prompts])
    truth = laboratory.autoencoder.encoder.encode(crops)
    sigma = torch.linspace(0.05, 0.95, len(truth))
    s = sigma[:, None, None, None]
    x = (1 - s) * truth + s * torch.randn(truth.shape, generator=generator)

    def see(block: int, text: torch.Tensor, image: torch.Tensor) -> None:
        magnitude = image.abs().mean(dim=(0, 1))
        found.append((int(magnitude.argmax()), round(float(magnitude.max() / magnitude.quantile(0.5)), 2)))

    with observing(laboratory.model(weights).model.diffusion_model, see):
        laboratory.denoised(weights, x, sigma, prompts)
    return found


def sibling(laboratory: Laboratory, judge: Judge, weights: Path, ratio: float) -> dict:
    """What section 10 has of one training."""
    blocks, width, skip, optimiser, seed = NAME.fullmatch(weights.parent.name).groups()
    with safe_open(weights, framework="pt") as header:
        about = header.metadata()
    return {
        "blocks": int(blocks),
        "width": int(width),
        "skip": float(skip),
        "optimiser": optimiser,
        "seed": int(seed),
        "steps": int(about["steps"]),
        "loss": float(about["loss"]) if "loss" in about else None,
        "ratio": ratio,
        "disrupted": disrupted(laboratory, weights),
        "effects": effects(laboratory, judge, weights, CFG, {WITH_CFG: WHOLE, LATE: LAST_THIRD})
        | effects(laboratory, judge, weights, 1.0, {WITHOUT: WHOLE}),
    }


def disrupted(laboratory: Laboratory, weights: Path) -> dict:
    """What the prediction becomes when `channels` are zeroed at the default layer, as in section 3."""
    block = laboratory.block(weights)
    forced = teacher_forced(laboratory, weights, ((block, tuple(channels(laboratory, weights)[block])),))
    middle = [each for (_, sigma), each in forced.items() if sigma in MIDDLE]
    figures = ("error", "energy", "layout")
    return {"block": block} | {
        name: _numbers(estimate(np.mean([getattr(each, name) for each in middle], axis=0))) for name in figures
    }


def effects(laboratory: Laboratory, judge: Judge, weights: Path, cfg: float, windows: dict[str, Window]) -> dict:
    """Of Detail Guidance at the block and scale that some pairs choose in the whole schedule, judged on others, as
    many as section 4's."""
    depth, at = laboratory.depth(weights), channels(laboratory, weights)
    settings = [(block, w) for block in sorted({block_at(layer, depth) for layer in LAYERS}) for w in SCALES[cfg]]

    def sampled(model, pairs):
        return judge.sampled(model, pairs, cfg=cfg, name=weights)

    def guided(block: int, w: float, window: Window = WHOLE):
        # Where none is massive, the largest one: the node would find none there.
        return laboratory.at(block, w, {"channels": ", ".join(map(str, at[block]))}, weights, window)

    block, w = min(settings, key=lambda each: sampled(guided(*each), choosing(FULL.few)).distance.mean())
    pairs = judging(FULL.primary)
    base = sampled(laboratory.model(weights), pairs)
    found = {}
    for label, window in windows.items():
        detail = sampled(guided(block, w, window), pairs)
        found[label] = {
            "block": block,
            "w": w,
            "distance": round(float(base.distance.mean()), 4),
            "change": _numbers(estimate(detail.distance - base.distance)),
            "energy": round(float(base.bands.mean()), 4),
            "energy with it": round(float(detail.bands.mean()), 4),
        }
    return found


def _numbers(found: Estimate) -> list[float]:
    return [round(float(value), 4) for value in (found.mean, found.low, found.high)]


def main(folders: list[Path]) -> None:
    laboratory = Laboratory(FULL, Pack())
    judge = Judge(laboratory)
    with torch.inference_mode():
        measure(laboratory, judge, folders)


def measure(laboratory: Laboratory, judge: Judge, folders: list[Path]) -> None:
    energy = [[round(v, 5) for v in each.energy.tolist()] for each in seen(laboratory, laboratory.deep)]
    _write("activations.json", {"energy": energy})
    growth, siblings = _read("growth.json", {}), _read("siblings.json", [])
    for folder in folders:
        kept = sorted(folder.glob("*.safetensors"))
        measured = {str(int(each.stem)): peaks(laboratory, each) for each in kept}
        if len(kept) > 1:
            _write("growth.json", growth := growth | {folder.name: measured})
        own = sibling(laboratory, judge, kept[-1], ratio=measured[str(int(kept[-1].stem))][-1][1])
        print(own, flush=True)
        key = ("blocks", "width", "skip", "optimiser", "seed")
        siblings = [each for each in siblings if [each[k] for k in key] != [own[k] for k in key]] + [own]
        _write("siblings.json", siblings)


def _read(name: str, otherwise):
    file = paths.TRAINING / name
    return json.loads(file.read_text()) if file.exists() else otherwise


def _write(name: str, value) -> None:
    (paths.TRAINING / name).write_text(json.dumps(value) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    main(parser.parse_args().folders)
