"""Train a reference model's diffusion transformer and its word vectors: rectified flow on composites.

    .host/venv/bin/python tests/reference_model/train_mmdit.py --minutes 75
    .host/venv/bin/python tests/reference_model/train_mmdit.py --minutes 30 --depth 3

Checkpoints to `.host/training/mmdit_<depth>.pt`, from which an interrupted run goes on. At the end, or at once from the
last checkpoint with `--export`: `weights/mmdit_<depth>.safetensors`, `weights/text_encoder_<depth>.safetensors` (fp16)
and the depth's part of `growth.json`: at some steps, per block, the largest channel and its `peak_ratio`.
"""

import argparse
import copy
import json
from pathlib import Path

import composites
import patch_pca
import torch
from comfy_classes import DEVICE, initialise
from composites import Composites
from safetensors.torch import save_file
from text_encoder import WIDTH, TextEncoder, Tokenizer
from torch import Tensor, nn
from training import FOLDER, WEIGHTS, Training

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
MEASURED_EVERY = 300  # steps
GROWTH = Path(__file__).parent / "growth.json"


def build_mmdit(depth: int, blocks: int | None = None) -> nn.Module:
    """Of width 64 · depth, with as many blocks unless told otherwise."""
    width = 64 * depth
    context = {"target": "torch.nn.Linear", "params": {"in_features": WIDTH, "out_features": width}}
    model = OpenAISignatureMMDITWrapper(
        input_size=None,
        in_channels=patch_pca.CHANNELS,
        depth=depth,
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


class Data:
    """Batches of clean latents and their prompts' tokens."""

    def __init__(self, pictures: Composites, seed: int):
        self.pictures = pictures
        self.pca = patch_pca.fit(pictures.textures)
        self.tokenizer = Tokenizer(tokenizer_data={"vocabulary": pictures.words})
        self.generator = torch.Generator().manual_seed(seed)

    def batch(self) -> tuple[Tensor, Tensor]:
        prompts = self.pictures.prompts(BATCH, self.generator)
        pictures = torch.stack([self.pictures.picture(prompt, self.generator) for prompt in prompts])
        tokens = [[i for i, _ in self.tokenizer.tokenize_with_weights(prompt)["words"][0]] for prompt in prompts]
        return self.pca.encode(pictures).to(DEVICE), torch.tensor(tokens, device=DEVICE)


def main(depth: int, minutes: float, export_only: bool) -> None:
    torch.manual_seed(0)
    pictures = composites.load()
    trained = nn.ModuleList([build_mmdit(depth), TextEncoder(len(pictures.words)).to(DEVICE)])
    average = copy.deepcopy(trained).requires_grad_(False)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.01)
    growth = FOLDER / f"growth_{depth}.json"
    training = Training(f"mmdit_{depth}", minutes, trained=trained, average=average, optimizer=optimizer)
    if not export_only:
        train(training, trained, average, optimizer, Data(pictures, seed=training.step), growth)
    export(depth, *average, pictures.words, json.loads(growth.read_text()))


def train(training: Training, trained, average, optimizer, data: Data, growth: Path) -> None:
    model, text = trained
    measured = json.loads(growth.read_text()) if training.step else {}
    mean_loss, first = 0.0, training.step
    for step in training.steps():
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * training.rate
        clean, prompt = data.batch()
        prompt = prompt * (torch.rand(BATCH, 1, device=DEVICE) >= PROMPT_DROPOUT)
        noise = torch.randn_like(clean)
        sigma = torch.randn(BATCH, device=DEVICE).sigmoid()
        s = sigma[:, None, None, None]
        with torch.autocast(DEVICE.type, torch.bfloat16):
            context, pooled = text(prompt)
            velocity = model((1 - s) * clean + s * noise, sigma * 1000, context=context, y=pooled)
        loss = (velocity.float() - (noise - clean)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        decay = min(0.999, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(trained.parameters()), 1 - decay)
        mean_loss += (loss.item() - mean_loss) / min(step - first + 1, 200)
        if step % 100 == 0:
            print(f"step {step}  {training.seconds / 60:.1f} min  loss {mean_loss:.4f}", flush=True)
        if step % MEASURED_EVERY == 0:
            measured[str(step)] = peaks(*average, *data.batch())
            growth.write_text(json.dumps(measured))


@torch.no_grad()
def peaks(model: nn.Module, text: TextEncoder, clean: Tensor, prompt: Tensor) -> list[tuple[int, float]]:
    """Per block, of its input's image tokens at all noise levels: the largest channel, and how many times the median
    channel's its mean |z| is."""
    found = []

    def observe(_, inputs):
        magnitude = inputs[1].float().abs().mean(dim=(0, 1))
        found.append((int(magnitude.argmax()), round(float(magnitude.max() / magnitude.quantile(0.5)), 2)))

    hooks = [block.register_forward_pre_hook(observe) for block in model.joint_blocks]
    sigma = torch.linspace(0.05, 0.95, len(clean), device=DEVICE)
    s = sigma[:, None, None, None]
    context, pooled = text(prompt)
    model((1 - s) * clean + s * torch.randn_like(clean), sigma * 1000, context=context, y=pooled)
    for hook in hooks:
        hook.remove()
    return found


def export(depth: int, model: nn.Module, text: TextEncoder, vocabulary: list[str], measured: dict) -> None:
    def half(module: nn.Module) -> dict[str, Tensor]:
        return {name: value.half().contiguous() for name, value in module.state_dict().items()}

    save_file(half(model), WEIGHTS / f"mmdit_{depth}.safetensors")
    metadata = {"vocabulary": json.dumps(vocabulary)}
    save_file(half(text), WEIGHTS / f"text_encoder_{depth}.safetensors", metadata)
    growth = json.loads(GROWTH.read_text()) if GROWTH.exists() else {}
    GROWTH.write_text(json.dumps(growth | {str(depth): measured}, sort_keys=True) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=DEPTH)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--export", action="store_true")
    arguments = parser.parse_args()
    main(arguments.depth, arguments.minutes, arguments.export)
