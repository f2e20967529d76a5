"""Train the reference model's autoencoder: TAESD's architecture, 16 latent channels, on 64-pixel crops.

    .host/venv/bin/python tests/reference_model/train_autoencoder.py --minutes 28

Resumes from `.host/training/autoencoder.pt`; writes `weights/autoencoder.safetensors` (fp16).
"""

import argparse
import random

import photographs
import torch
from comfy_classes import DEVICE, initialise
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, l1_loss
from training import WEIGHTS, Training

from comfy.latent_formats import SD3  # isort: skip
from comfy.taesd.taesd import TAESD  # isort: skip

CHANNELS = 16
CROP = 64
BATCH = 16
LATENT_NOISE = 0.05  # keeps the latent space smooth for the diffusion model


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


def main(minutes: float) -> None:
    torch.manual_seed(0)
    pictures = list(photographs.load().values())
    generator = torch.Generator().manual_seed(0)
    model = TAESD(latent_channels=CHANNELS).to(DEVICE, memory_format=torch.channels_last)
    initialise(model)
    normalise = nn.BatchNorm2d(CHANNELS, affine=False, momentum=0.02).to(DEVICE)
    parameters = [*model.taesd_encoder.parameters(), *model.taesd_decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=1e-4)
    schedule = Training("autoencoder", minutes, model=model, normalise=normalise, optimizer=optimizer)
    average = 0.0
    for step in schedule.steps():
        for group in optimizer.param_groups:
            warm_up = min(1.0, (step + 1) / 100)
            group["lr"] = 1e-3 * warm_up * (1 + torch.cos(torch.tensor(torch.pi * schedule.progress))).item() / 2
        chosen = random.Random(step).choices(pictures, k=BATCH)
        picture = torch.cat([photographs.crops(p, 1, generator, CROP) for p in chosen])
        picture = picture.to(DEVICE, memory_format=torch.channels_last)
        with torch.autocast(DEVICE.type, torch.bfloat16):
            latent = normalise(model.taesd_encoder(picture).float())
            noisy = latent + LATENT_NOISE * torch.randn_like(latent)
            decoded = model.taesd_decoder(noisy).float()
        loss = reconstruction_loss(decoded, picture)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average += (loss.item() - average) / min(step + 1, 100)
        if step % 50 == 0:
            print(f"step {step}  {schedule.seconds / 60:.1f} min  loss {average:.4f}", flush=True)
    export(model, normalise)


def export(model: TAESD, normalise: nn.BatchNorm2d) -> None:
    """Fold the normalisation into the encoder's last convolution and choose scale and shift so that the host's SD3
    latent format, (z − shift) · scale, undoes them: the diffusion model then sees latents of mean 0 and variance 1."""
    last = model.taesd_encoder[-1]
    mean, deviation = normalise.running_mean, (normalise.running_var + normalise.eps).sqrt()
    with torch.no_grad():
        last.weight.div_(deviation[:, None, None, None])
        last.bias.sub_(mean).div_(deviation)
        model.vae_scale.fill_(SD3().scale_factor)
        model.vae_shift.fill_(SD3().shift_factor)
    WEIGHTS.mkdir(exist_ok=True)
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    for name in ("vae_scale", "vae_shift"):
        state[name] = getattr(model, name).detach().float()
    save_file(state, WEIGHTS / "autoencoder.safetensors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=28)
    main(parser.parse_args().minutes)
