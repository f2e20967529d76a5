"""Train the diffusion transformer of drawings and its word vectors: rectified flow on the latents of latents.py.

    .host/venv/bin/python lab/training/flow.py --pool FOLDER --steps 60000
    .host/venv/bin/python lab/training/flow.py --pool FOLDER --autoencoder FILE --sheet sheet.png

Goes on from `<folder>/<name>.pt`; `--export FILE` writes the averaged weights (fp16), `--sheet` draws with them. Every
step has a random state of its own, from its number, so that an interrupted training goes on as if it had not been.
"""

import argparse
import copy
import itertools
import json
from pathlib import Path

import numpy as np
import torch
from comfy_classes import DEVICE, HALF
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from training import FOLDER, Training

import drawings  # isort: skip
import latents  # isort: skip
from text_encoder import TextEncoder, Tokenizer  # isort: skip
from train import build_mmdit, optimizers_of, skip_at_random  # isort: skip

LENGTH = 12  # words of a prompt
BATCH = 32
PROMPT_DROPOUT = 0.1
AVERAGING = 0.999


def tokens(prompts: list[str]) -> Tensor:
    """Word numbers of prompts, (prompts, LENGTH)."""
    tokenizer = Tokenizer(tokenizer_data={"vocabulary": drawings.vocabulary(), "length": LENGTH})
    rows = [tokenizer.tokenize_with_weights(prompt)["words"][0] for prompt in prompts]
    return torch.tensor([[index for index, _ in row] for row in rows])


def main(arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    model = build_mmdit(arguments.blocks, arguments.width)
    trained = nn.ModuleList([model, TextEncoder(len(drawings.vocabulary()), length=LENGTH).to(DEVICE)])
    average = copy.deepcopy(trained).requires_grad_(False)
    optimizers = optimizers_of(trained, arguments.optimizer)
    name = f"drawings_{arguments.blocks}x{arguments.width}_skip{arguments.skip:g}_{arguments.optimizer}"
    file = arguments.folder / f"{name}_seed{arguments.seed}.pt"
    training = Training(file, arguments.steps, trained=trained, average=average, **optimizers)
    if arguments.export or arguments.sheet:
        if arguments.export:
            export(average, arguments.export, training)
        if arguments.sheet:
            sheet(average, latents.autoencoder(arguments.autoencoder), arguments.sheet)
        return
    clean, prompts = latents.pool(arguments.pool)
    words = tokens(prompts)
    options = skip_at_random(model, arguments.skip) if arguments.skip else {}
    for _ in training.steps():
        torch.manual_seed(training.step)
        chosen = torch.randint(len(clean), (BATCH,))
        loss = flow_loss(trained, clean[chosen].float().to(DEVICE), words[chosen].to(DEVICE), options)
        trained.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
        share = 1 - min(AVERAGING, (training.step + 1) / (training.step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(trained.parameters()), share)
        training.lost(loss)


def flow_loss(trained: nn.ModuleList, clean: Tensor, words: Tensor, options: dict) -> Tensor:
    """Mean squared error of the velocity, at logit-normal noise levels, a tenth of the prompts left out."""
    model, text = trained
    words = words * (torch.rand(len(words), 1, device=DEVICE) >= PROMPT_DROPOUT)
    noise, sigma = torch.randn_like(clean), torch.randn(len(clean), device=DEVICE).sigmoid()
    s = sigma[:, None, None, None]
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=HALF):
        context, pooled = text(words)
        noisy = (1 - s) * clean + s * noise
        velocity = model(noisy, sigma * 1000, context=context, y=pooled, transformer_options=options)
    return (velocity.float() - (noise - clean)).square().mean()


def export(average: nn.ModuleList, file: Path, training: Training) -> None:
    """The averaged weights (fp16); SD3 names below `0.`, the word vectors' below `1.`."""
    state = {name: value.half().contiguous() for name, value in average.state_dict().items()}
    about = {"vocabulary": json.dumps(drawings.vocabulary()), "length": str(LENGTH), "steps": str(training.step)}
    save_file(state, file, about | {"loss": f"{training.loss:.4f}"})


@torch.inference_mode()
def sheet(networks: nn.ModuleList, autoencoder: nn.Module, file: Path, steps: int = 20) -> None:
    """48 held-out scenes: the drawing, with CFG 2.5, without guidance; eight to a row."""
    scenes = [latents.scene(latents.HELD_OUT + n) for n in range(48)]
    words = tokens([each.prompt for each in scenes]).to(DEVICE)
    noise = torch.randn(len(scenes), 16, 16, 16, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    rows = [torch.stack([drawings.draw(each)[0] for each in scenes])]
    for cfg in (2.5, 1.0):
        x = noise.clone()
        levels = torch.linspace(1, 0, steps + 1).tolist()
        for sigma, following in itertools.pairwise(levels):
            v = velocity(networks, x, sigma, words)
            if cfg != 1:
                v = v + (cfg - 1) * (v - velocity(networks, x, sigma, words * 0))
            x = x + (following - sigma) * v
        scale = float(autoencoder.vae_scale) / latents.SD3_SCALE
        rows.append(torch.cat([autoencoder.taesd_decoder(part * scale) for part in x.split(8)]).clamp(0, 1).cpu())
    lines = [np.hstack(list(row[n : n + 8].permute(0, 2, 3, 1).numpy())) for n in range(0, 48, 8) for row in rows]
    Image.fromarray((np.vstack(lines) * 255).round().astype(np.uint8)).save(file)


def velocity(networks: nn.ModuleList, x: Tensor, sigma: float, words: Tensor) -> Tensor:
    model, text = networks
    context, pooled = text(words)
    return model(x, torch.full((len(x),), sigma * 1000.0, device=x.device), context=context, y=pooled)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, help="folder of latents.py")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--skip", type=float, default=0.0, help="stochastic depth: probability to go past a block")
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the checkpoint is kept")
    parser.add_argument("--export", type=Path, help="write the averaged weights so far and stop")
    parser.add_argument("--autoencoder", type=Path, default=latents.AUTOENCODER, help="weights, for --sheet")
    parser.add_argument("--sheet", type=Path, help="draw 48 held-out scenes and stop")
    main(parser.parse_args())
