"""Train the reference model's diffusion transformer and its word vectors: rectified flow on random crops.

    .host/venv/bin/python tests/reference_model/train_mmdit.py --minutes 75

Resumes from `.host/training/mmdit.pt`; writes `weights/mmdit.safetensors` and
`weights/text_encoder.safetensors` (fp16) at the end, or at once from the last checkpoint with `--export`.
"""

import argparse
import copy
import json

import patch_pca
import photographs
import torch
from comfy_classes import DEVICE, initialise
from safetensors.torch import save_file
from text_encoder import LENGTH, WIDTH, TextEncoder, Tokenizer, words_of
from torch import Tensor, nn
from training import WEIGHTS, Training

import comfy.ops  # isort: skip
from comfy.ldm.modules.diffusionmodules.mmdit import (  # isort: skip
    OpenAISignatureMMDITWrapper,
    get_2d_sincos_pos_embed_torch,
)

DEPTH = 4  # the host reads the width from it: 64 per block
MAX_SIDE = 16  # positions for pictures of up to 256 pixels
BATCH = 64
PROMPT_DROPOUT = 0.1
LEARNING_RATE = 1e-3


def build_mmdit() -> nn.Module:
    width = 64 * DEPTH
    context = {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": width}}
    model = OpenAISignatureMMDITWrapper(
        input_size=None,
        in_channels=patch_pca.CHANNELS,
        depth=DEPTH,
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


def main(minutes: float, export_only: bool) -> None:
    torch.manual_seed(0)
    pictures = photographs.load()
    vocabulary = sorted({word for prompt in pictures for word in words_of(prompt)})
    tokenizer = Tokenizer(tokenizer_data={"vocabulary": vocabulary})
    tokens = torch.tensor([[i for i, _ in tokenizer.tokenize_with_weights(p)["words"][0]] for p in pictures])

    model, text = build_mmdit(), TextEncoder(len(vocabulary)).to(DEVICE)
    average = copy.deepcopy(nn.ModuleList([model, text])).requires_grad_(False)
    trained = nn.ModuleList([model, text])
    optimizer = torch.optim.AdamW(trained.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    training = Training("mmdit", minutes, trained=trained, average=average, optimizer=optimizer)
    if not export_only:
        train(training, model, text, average, optimizer, list(pictures.values()), patch_pca.fit(pictures), tokens)
    export(*average, vocabulary)


def train(training, model, text, average, optimizer, pictures: list[Tensor], pca, tokens: Tensor) -> None:
    generator = torch.Generator().manual_seed(training.step)
    mean_loss, first = 0.0, training.step
    for step in training.steps():
        for group in optimizer.param_groups:
            warm_up = min(1.0, (step + 1) / 200)
            group["lr"] = (
                LEARNING_RATE * warm_up * (1 + torch.cos(torch.tensor(torch.pi * training.progress))).item() / 2
            )
        which = torch.randint(len(pictures), (BATCH,))
        clean = torch.cat([photographs.crops(pictures[number], 1, generator) for number in which])
        clean = pca.encode(clean).to(DEVICE)
        prompt = torch.where(
            torch.rand(BATCH, 1) < PROMPT_DROPOUT, torch.zeros(1, LENGTH, dtype=torch.long), tokens[which]
        )
        noise = torch.randn_like(clean)
        sigma = torch.randn(BATCH, device=DEVICE).sigmoid()
        s = sigma[:, None, None, None]
        with torch.autocast(DEVICE.type, torch.bfloat16):
            context, pooled = text(prompt.to(DEVICE))
            velocity = model((1 - s) * clean + s * noise, sigma * 1000, context=context, y=pooled)
        loss = (velocity.float() - (noise - clean)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(training.parts["trained"].parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(training.parts["trained"].parameters()), 1 - decay)
        mean_loss += (loss.item() - mean_loss) / min(step - first + 1, 200)
        if step % 100 == 0:
            print(f"step {step}  {training.seconds / 60:.1f} min  loss {mean_loss:.4f}", flush=True)


def export(model: nn.Module, text: TextEncoder, vocabulary: list[str]) -> None:
    def half(module: nn.Module) -> dict[str, Tensor]:
        return {name: value.half().contiguous() for name, value in module.state_dict().items()}

    save_file(half(model), WEIGHTS / "mmdit.safetensors")
    save_file(half(text), WEIGHTS / "text_encoder.safetensors", {"vocabulary": json.dumps(vocabulary)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--export", action="store_true")
    arguments = parser.parse_args()
    main(arguments.minutes, arguments.export)
