"""Measure the reference model's activations at every block's input, on noised real pictures: `activations.json`.

    .host/venv/bin/python tests/reference_model/measure_activations.py

Per block and channel, over all pictures and noise levels: `magnitude`, the mean of |z| over image tokens, and
`energy`, the mean of z². Per block and noise level: `by_sigma`, the magnitude of the largest channel.
"""

import json
from pathlib import Path

import composites
import torch
from comfy_classes import DEVICE
from safetensors.torch import load_file
from text_encoder import TextEncoder
from train_mmdit import BATCH, DEPTH, Data, build_mmdit
from training import WEIGHTS

SIGMAS = (0.95, 0.75, 0.5, 0.25, 0.05)
BATCHES = 4
FILE = Path(__file__).parent / "activations.json"


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    pictures = composites.load()
    text = TextEncoder(len(pictures.words))
    text.load_state_dict(load_file(WEIGHTS / f"text_encoder_{DEPTH}.safetensors"))
    model = build_mmdit(DEPTH)
    model.load_state_dict(load_file(WEIGHTS / f"mmdit_{DEPTH}.safetensors"))
    model.float().to(DEVICE)
    text.float().to(DEVICE)
    data = Data(pictures, seed=7)

    rows = {}  # (block, sigma) → [(mean |z|, mean z²) per batch]
    for block, layer in enumerate(model.joint_blocks):

        def observe(_, inputs, block=block):
            z = inputs[1]
            rows.setdefault((block, sigma), []).append((z.abs().mean(dim=(0, 1)), z.square().mean(dim=(0, 1))))

        layer.register_forward_pre_hook(observe)
    for _ in range(BATCHES):
        clean, prompt = data.batch()
        context, pooled = text(prompt)
        for sigma in SIGMAS:
            noisy = (1 - sigma) * clean + sigma * torch.randn_like(clean)
            model(noisy, torch.full((BATCH,), sigma * 1000, device=DEVICE), context=context, y=pooled)

    blocks = range(len(model.joint_blocks))
    mean = {key: torch.stack([torch.stack(row) for row in seen]).mean(dim=0) for key, seen in rows.items()}
    overall = [torch.stack([mean[block, sigma] for sigma in SIGMAS]).mean(dim=0) for block in blocks]
    result = {
        "magnitude": [[round(v, 4) for v in magnitude.tolist()] for magnitude, _ in overall],
        "energy": [[round(v, 5) for v in energy.tolist()] for _, energy in overall],
        "by_sigma": [
            {str(sigma): round(mean[block, sigma][0][overall[block][0].argmax()].item(), 3) for sigma in SIGMAS}
            for block in blocks
        ],
    }
    FILE.write_text(json.dumps(result) + "\n")
    for block, (magnitude, _) in enumerate(overall):
        largest = magnitude.topk(6)
        ratios = ", ".join(
            f"{channel}: {value / magnitude.median():.1f}×"
            for channel, value in zip(largest.indices.tolist(), largest.values, strict=True)
        )
        print(f"block {block}: median {magnitude.median():.3f}; {ratios}; largest by σ {result['by_sigma'][block]}")


if __name__ == "__main__":
    main()
