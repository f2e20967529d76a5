"""Train a deep, narrow reference model and its word vectors: rectified flow on textures, with stochastic depth.

    .host/venv/bin/python tests/reference_model/train_deep.py --steps 60000

Goes on from `<folder>/<name>.pt` when it was interrupted, or when it is called again with more steps. Every 2,500 steps
the averaged weights are kept beside it (fp16), for the model's own history and for guidance away from an early self.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import patch_pca
import photographs
import torch
from comfy_classes import DEVICE
from safetensors.torch import save_file
from text_encoder import TextEncoder, Tokenizer
from torch import Tensor, nn
from train_mmdit import PROMPT_DROPOUT, build_mmdit

FOLDER = Path(__file__).resolve().parents[2] / ".host/training"
HEAD = 64  # the host's MMDiT has one attention head for each 64 of its width
BATCH = 32
LEARNING_RATE = 1e-3
WARM_UP = 500  # steps
DECAY = 0.25  # share of the steps over which the learning rate falls to zero: until then a training can be prolonged
AVERAGING = 0.9995
SAVED_EVERY = 250  # steps
KEPT_EVERY = 2_500


class Textures:
    """Batches of clean latents of random crops, and the tokens of their prompts."""

    def __init__(self):
        self.photographs = photographs.load()
        self.pca = patch_pca.fit(self.photographs)
        self.words = sorted({word for prompt in self.photographs for word in prompt.split()})
        tokenizer = Tokenizer(tokenizer_data={"vocabulary": self.words})
        self.prompts = [
            [index for index, _ in tokenizer.tokenize_with_weights(prompt)["words"][0]] for prompt in self.photographs
        ]

    def batch(self) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.prompts), (BATCH,)).tolist()
        pictures = list(self.photographs.values())
        crops = torch.cat([photographs.crops(pictures[i], 1, torch.default_generator) for i in chosen])
        return self.pca.encode(crops).to(DEVICE), torch.tensor([self.prompts[i] for i in chosen], device=DEVICE)


def skip_at_random(model: nn.Module, probability: float) -> dict:
    """Stochastic depth through the host's own block patches: this share of the samples goes past each block.

    Every block learns to stand in for others, as those of a model of 24 or 57 can. The share is exact, so that the
    matrices keep their size, which matters to a CPU; the block is called without the host's hook, which would
    compute its forward a second time in the backward.
    """
    staying = round(BATCH * (1 - probability))

    def patch_of(block: nn.Module):
        def patch(args, _):
            stays = torch.randperm(BATCH)[:staying].to(args["img"].device)
            img, txt = args["img"], args["txt"]
            vec = args["vec"].index_select(0, stays)
            text, image = block(txt.index_select(0, stays), img.index_select(0, stays), c=vec, use_checkpoint=False)
            return {
                "img": img.index_copy(0, stays, image.to(img.dtype)),
                "txt": None if text is None else txt.index_copy(0, stays, text.to(txt.dtype)),
            }

        return patch

    return {
        "patches_replace": {"dit": {("double_block", i): patch_of(block) for i, block in enumerate(model.joint_blocks)}}
    }


def main(arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    data = Textures()
    trained = nn.ModuleList(
        [build_mmdit(arguments.width // HEAD, arguments.blocks), TextEncoder(len(data.words)).to(DEVICE)]
    )
    average = copy.deepcopy(trained).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    parts = {"trained": trained, "average": average, "optimizer": optimizer}
    name = f"mmdit_{arguments.blocks}x{arguments.width}_skip{arguments.skip}_seed{arguments.seed}"
    file = arguments.folder / f"{name}.pt"
    step, seconds = 0, 0.0
    if file.exists():
        saved = torch.load(file, weights_only=True)
        step, seconds = saved["step"], saved["seconds"]
        torch.set_rng_state(saved["random"])
        for part, state in saved["parts"].items():
            parts[part].load_state_dict(state)
        print(f"{name} goes on from step {step}, {seconds / 60:.1f} min", flush=True)
    (arguments.folder / name).mkdir(parents=True, exist_ok=True)

    model, text = trained
    options = skip_at_random(model, arguments.skip) if arguments.skip else {}
    mean_loss, first = 0.0, step
    while step < arguments.steps:
        start = time.monotonic()
        rate = min(1.0, (step + 1) / WARM_UP, (arguments.steps - step) / (DECAY * arguments.steps))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        clean, prompt = data.batch()
        prompt = prompt * (torch.rand(BATCH, 1, device=DEVICE) >= PROMPT_DROPOUT)
        noise = torch.randn_like(clean)
        sigma = torch.randn(BATCH, device=DEVICE).sigmoid()
        s = sigma[:, None, None, None]
        with torch.autocast(DEVICE.type, torch.bfloat16):
            context, pooled = text(prompt)
            velocity = model(
                (1 - s) * clean + s * noise, sigma * 1000, context=context, y=pooled, transformer_options=options
            )
        loss = (velocity.float() - (noise - clean)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        decay = min(AVERAGING, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(trained.parameters()), 1 - decay)
        step += 1
        seconds += time.monotonic() - start
        mean_loss += (loss.item() - mean_loss) / min(step - first, 500)
        if step % 100 == 0:
            print(f"step {step}  {seconds / 60:.1f} min  loss {mean_loss:.4f}  rate {rate:.2f}", flush=True)
        if step % SAVED_EVERY == 0 or step == arguments.steps:
            states = {part: object_.state_dict() for part, object_ in parts.items()}
            saved = {"step": step, "seconds": seconds, "random": torch.get_rng_state(), "parts": states}
            torch.save(saved, file.with_suffix(".part"))
            file.with_suffix(".part").replace(file)
        if step % KEPT_EVERY == 0 or step == arguments.steps:
            keep(average, arguments.folder / name / f"{step:06}.safetensors", data.words, step, seconds, mean_loss)


def keep(average: nn.Module, file: Path, words: list[str], step: int, seconds: float, loss: float) -> None:
    """The averaged weights (fp16); SD3 names below `0.`, the word vectors' below `1.`."""
    state = {name: value.half().contiguous() for name, value in average.state_dict().items()}
    metadata = {"vocabulary": json.dumps(words), "step": str(step), "seconds": f"{seconds:.0f}", "loss": f"{loss:.4f}"}
    save_file(state, file, metadata)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--skip", type=float, default=0.15, help="stochastic depth: probability to go past a block")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where checkpoints are kept")
    main(parser.parse_args())
