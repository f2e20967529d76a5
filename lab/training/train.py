"""Train a reference model's diffusion transformer and its word vectors: rectified flow on textures.

    .host/venv/bin/python lab/training/train.py --steps 60000
    .host/venv/bin/python lab/training/train.py --blocks 4 --width 128 --steps 4000

Goes on from `<folder>/<name>.pt` when it was interrupted, or when it is called again with more steps. Every 1,000 steps
the averaged weights are kept beside it (fp16), for the model's own history; the last of them are its weights.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import torch
from comfy_classes import DEVICE, HALF, initialise  # first: the others are found by it

import objects  # isort: skip
import patch_pca  # isort: skip
import photographs  # isort: skip
from muon import Muon
from safetensors.torch import load_file, save_file
from text_encoder import WIDTH, TextEncoder, Tokenizer
from torch import Tensor, nn
from training import FOLDER, Training

import comfy.ops  # isort: skip
from comfy.ldm.modules.diffusionmodules.mmdit import (  # isort: skip
    OpenAISignatureMMDITWrapper,
    get_2d_sincos_pos_embed_torch,
)

HEAD = 64  # the host's MMDiT has one attention head for each 64 of its width
MAX_SIDE = 16  # positions for pictures of up to 256 pixels
BATCH = 32
PROMPT_DROPOUT = 0.1
LEARNING_RATE = 1e-3
MUON_RATE = 2e-2  # for the blocks' matrices; all else stays with AdamW
AVERAGING = 0.999
KEPT_EVERY = 1_000  # steps


def build_mmdit(blocks: int, width: int) -> nn.Module:
    context = {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": width}}
    model = OpenAISignatureMMDITWrapper(
        input_size=None,
        in_channels=patch_pca.CHANNELS,
        depth=width // HEAD,
        num_blocks=blocks,
        adm_in_channels=WIDTH,
        context_embedder_config=context,
        num_patches=MAX_SIDE**2,
        pos_embed_max_size=MAX_SIDE,
        dtype=torch.float32,
        device="cpu",
        operations=comfy.ops.disable_weight_init,
    )
    initialise(model)
    model.pos_embed.copy_(get_2d_sincos_pos_embed_torch(width, MAX_SIDE, MAX_SIDE))
    for module in model.modules():  # AdaLN-zero: every block starts as the identity
        if hasattr(module, "adaLN_modulation"):
            nn.init.zeros_(module.adaLN_modulation[-1].weight)
            nn.init.zeros_(module.adaLN_modulation[-1].bias)
    nn.init.zeros_(model.final_layer.linear.weight)
    nn.init.zeros_(model.final_layer.linear.bias)
    return model.to(DEVICE)


class Textures:
    """Batches of clean latents of random crops, and the tokens of their prompts."""

    def __init__(self) -> None:
        self.photographs = photographs.load()
        self.pca = patch_pca.fit(self.photographs)
        self.words = sorted({word for prompt in self.photographs for word in prompt.split()})

    def batch(self) -> tuple[Tensor, Tensor]:
        return self._encoded([self._texture() for _ in range(BATCH)])

    def _texture(self, side: int = photographs.PICTURE) -> tuple[str, Tensor]:
        prompt = list(self.photographs)[int(torch.randint(len(self.photographs), ()))]
        return prompt, photographs.crops(self.photographs[prompt], 1, torch.default_generator, side)[0]

    def _encoded(self, pictures: list[tuple[str, Tensor]]) -> tuple[Tensor, Tensor]:
        tokenizer = Tokenizer(tokenizer_data={"vocabulary": self.words})
        tokens = [tokenizer.tokenize_with_weights(prompt)["words"][0] for prompt, _ in pictures]
        indices = torch.tensor([[index for index, _ in row] for row in tokens], device=DEVICE)
        return self.pca.encode(torch.stack([picture for _, picture in pictures])).to(DEVICE), indices


class ObjectsOnTextures(Textures):
    """Three of four pictures show an object; every other batch has a quarter of the pictures, twice as large."""

    def __init__(self) -> None:
        super().__init__()
        # Behind the textures' words, whose indices stay as they were.
        self.words += ["on", *objects.TRAINED]

    def batch(self) -> tuple[Tensor, Tensor]:
        large = bool(torch.rand(()) < 0.5)
        count, side = (BATCH // 4, 2 * photographs.PICTURE) if large else (BATCH, photographs.PICTURE)
        return self._encoded([self._picture(side) for _ in range(count)])

    def _picture(self, side: int) -> tuple[str, Tensor]:
        texture, picture = self._texture(side)
        if torch.rand(()) < 0.25:
            return texture, picture
        name = objects.TRAINED[int(torch.randint(len(objects.TRAINED), ()))]
        size = objects.random_size(torch.default_generator)
        placed = objects.place(name, picture, size, torch.default_generator)
        return objects.prompt_of(name, texture), placed.picture


def skip_at_random(model: nn.Module, probability: float) -> dict[str, Any]:
    """Stochastic depth through the host's own block patches: this share of the samples goes past each block.

    Every block learns to stand in for others, as those of a model of 24 or 57 can. The share is exact, so that the
    matrices keep their size, which matters to a CPU; the block is called without the host's hook, which would
    compute its forward a second time in the backward.
    """

    def patch_of(block: nn.Module):
        def patch(args, _):
            batch = args["img"].shape[0]
            stays = torch.randperm(batch)[: round(batch * (1 - probability))].to(args["img"].device)
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


def optimizers_of(trained: nn.Module, kind: str) -> dict[str, torch.optim.Optimizer]:
    """AdamW; or Muon for the blocks' matrices, and AdamW for embeddings, biases and the last layer."""
    matrices = {
        name: p for name, p in trained.named_parameters() if kind == "muon" and p.ndim == 2 and "joint_blocks" in name
    }
    others = [p for name, p in trained.named_parameters() if name not in matrices]
    optimizers = {"adamw": torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)}
    if matrices:
        optimizers["muon"] = Muon(matrices.values(), lr=MUON_RATE, weight_decay=0.01)
    return optimizers


def main(arguments: argparse.Namespace) -> None:
    torch.manual_seed(arguments.seed)
    data = ObjectsOnTextures() if arguments.objects else Textures()
    model, text = build_mmdit(arguments.blocks, arguments.width), TextEncoder(len(data.words)).to(DEVICE)
    trained = nn.ModuleList([model, text])
    if arguments.start:
        start(trained, load_file(arguments.start))
    average = copy.deepcopy(trained).requires_grad_(False)
    optimizers = optimizers_of(trained, arguments.optimizer)
    name = f"{arguments.blocks}x{arguments.width}_skip{arguments.skip:g}_{arguments.optimizer}_seed{arguments.seed}"
    name += "_objects" * arguments.objects
    training = Training(
        arguments.folder / f"{name}.pt", arguments.steps, trained=trained, average=average, **optimizers
    )
    (arguments.folder / name).mkdir(exist_ok=True)
    options = skip_at_random(model, arguments.skip) if arguments.skip else {}
    for _ in training.steps():
        clean, prompt = data.batch()
        prompt = prompt * (torch.rand(len(prompt), 1, device=DEVICE) >= PROMPT_DROPOUT)
        noise = torch.randn_like(clean)
        sigma = torch.randn(len(clean), device=DEVICE).sigmoid()
        s = sigma[:, None, None, None]
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=HALF):
            context, pooled = text(prompt)
            velocity = model(
                (1 - s) * clean + s * noise, sigma * 1000, context=context, y=pooled, transformer_options=options
            )
        loss = (velocity.float() - (noise - clean)).square().mean()
        trained.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
        done = training.step + 1
        torch._foreach_lerp_(
            list(average.parameters()), list(trained.parameters()), 1 - min(AVERAGING, done / (done + 9))
        )
        training.lost(loss)
        if done % KEPT_EVERY == 0 or done == arguments.steps:
            keep(average, arguments.folder / name / f"{done:06}.safetensors", data.words, training)


def start(trained: nn.Module, state: dict[str, Tensor]) -> None:
    """Load weights that may know fewer words; words that are new keep their initial vectors."""
    words = trained.state_dict()["1.words.weight"]
    known = state["1.words.weight"]
    trained.load_state_dict(state | {"1.words.weight": torch.cat([known.to(words), words[len(known) :]])})


def keep(average: nn.Module, file: Path, words: list[str], training: Training) -> None:
    """The averaged weights (fp16); SD3 names below `0.`, the word vectors' below `1.`."""
    state = {name: value.half().contiguous() for name, value in average.state_dict().items()}
    about = {"vocabulary": json.dumps(words), "steps": str(training.step + 1), "loss": f"{training.loss:.4f}"}
    save_file(state, file, about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--skip", type=float, default=0.15, help="stochastic depth: probability to go past a block")
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--start", type=Path, help="weights to start from, a file that this script has kept")
    parser.add_argument("--objects", action="store_true", help="objects on textures, at 128 and 256 pixels")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where checkpoints are kept")
    main(parser.parse_args())
