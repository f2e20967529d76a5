"""Train the reference model's autoencoder: TAESD's architecture, 16 latent channels, on 64-pixel crops.

    .host/venv/bin/python tests/reference_model/train_autoencoder.py --minutes 40

The encoder is computed (patch_pca.py), the decoder is trained. Resumes from `.host/training/autoencoder.pt`; writes
`weights/autoencoder.safetensors` (fp16) at the end, or at once from the last checkpoint with `--export`.
"""

import argparse

import composites
import patch_pca
import photographs
import torch
from comfy_classes import DEVICE, initialise
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, l1_loss
from training import WEIGHTS, Training

from comfy.latent_formats import SD3  # isort: skip
from comfy.taesd.taesd import TAESD  # isort: skip

CROP = 64
BATCH = 16
LEARNING_RATE = 1e-3
LATENT_NOISE = 0.05  # the diffusion model's latents are not exact


def band_energy(picture: Tensor) -> list[Tensor]:
    """Local standard deviation of each band of a Laplacian pyramid: how much texture is where."""
    energies = []
    for _ in range(3):
        low = avg_pool2d(picture, 2)
        band = picture - interpolate(low, scale_factor=2, mode="bilinear")
        energies.append((avg_pool2d(band.square(), 4) + 1e-5).sqrt())
        picture = low
    return energies


def reconstruction_loss(decoded: Tensor, picture: Tensor) -> Tensor:
    """Pixels where they can be had; where they cannot, at least as much texture as the photograph has."""
    texture = sum(l1_loss(a, b) for a, b in zip(band_energy(decoded), band_energy(picture), strict=True))
    return l1_loss(decoded, picture) + 0.5 * texture


def main(minutes: float, export_only: bool) -> None:
    torch.manual_seed(0)
    data = composites.load()
    pca = patch_pca.fit(data.textures)
    model = TAESD(latent_channels=patch_pca.CHANNELS).to(DEVICE, memory_format=torch.channels_last)
    initialise(model)
    patch_pca.write_into(model.taesd_encoder, pca)
    decoder = model.taesd_decoder
    optimizer = torch.optim.AdamW(decoder.parameters(), weight_decay=1e-4)
    training = Training("autoencoder", minutes, decoder=decoder, optimizer=optimizer)
    generator = torch.Generator().manual_seed(training.step)
    average, first = 0.0, training.step
    for step in () if export_only else training.steps():
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * training.rate
        prompts = data.prompts(BATCH, generator)
        top, left = torch.randint(photographs.PICTURE - CROP + 1, (2,), generator=generator)
        picture = torch.stack([data.picture(prompt, generator) for prompt in prompts])
        picture = picture[:, :, top : top + CROP, left : left + CROP]
        latent = pca.encode(picture)
        noisy = latent + LATENT_NOISE * torch.randn_like(latent)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            decoded = decoder(noisy.to(DEVICE, memory_format=torch.channels_last)).float()
        loss = reconstruction_loss(decoded, picture.to(DEVICE))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        average += (loss.item() - average) / min(step - first + 1, 100)
        if step % 50 == 0:
            print(f"step {step}  {training.seconds / 60:.1f} min  loss {average:.4f}", flush=True)
    export(model)


def export(model: TAESD) -> None:
    """Scale and shift are the host's SD3 latent format's, so that they cancel: the diffusion model sees the encoder's
    own numbers."""
    with torch.no_grad():
        model.vae_scale.fill_(SD3().scale_factor)
        model.vae_shift.fill_(SD3().shift_factor)
    WEIGHTS.mkdir(exist_ok=True)
    scalars = ("vae_scale", "vae_shift")  # half precision would no longer cancel
    state = {n: v.contiguous() if n in scalars else v.half().contiguous() for n, v in model.state_dict().items()}
    save_file(state, WEIGHTS / "autoencoder.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--export", action="store_true")
    arguments = parser.parse_args()
    main(arguments.minutes, arguments.export)
