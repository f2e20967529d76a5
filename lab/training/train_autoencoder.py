"""Train the reference model's autoencoder: TAESD's architecture, 16 latent channels, on 64-pixel crops of textures.

    .host/venv/bin/python lab/training/train_autoencoder.py --steps 4000

The encoder is computed (patch_pca.py), the decoder is trained. Goes on from `<folder>/autoencoder.pt` when it was
interrupted; writes `weights/autoencoder.safetensors` (fp16) at the end.
"""

import argparse
from pathlib import Path

import torch
from comfy_classes import DEVICE, initialise  # first: the others are found by it

import patch_pca  # isort: skip
import photographs  # isort: skip
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, l1_loss
from training import FOLDER, WEIGHTS, Training

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


def main(arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    textures = list(photographs.load().values())
    pca = patch_pca.fit(photographs.load())
    model = TAESD(latent_channels=patch_pca.CHANNELS).to(DEVICE, memory_format=torch.channels_last)
    initialise(model)
    if arguments.start:
        model.load_state_dict(load_file(arguments.start))
    patch_pca.write_into(model.taesd_encoder, pca)
    decoder = model.taesd_decoder
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    training = Training(arguments.folder / "autoencoder.pt", arguments.steps, decoder=decoder, optimizer=optimizer)
    for _ in training.steps():
        chosen = torch.randint(len(textures), (BATCH,)).tolist()
        picture = torch.cat([photographs.crops(textures[i], 1, torch.default_generator, CROP) for i in chosen])
        latent = pca.encode(picture)
        noisy = latent + LATENT_NOISE * torch.randn_like(latent)
        decoded = decoder(noisy.to(DEVICE, memory_format=torch.channels_last))
        loss = reconstruction_loss(decoded, picture.to(DEVICE))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        training.lost(loss)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--start", type=Path, help="an autoencoder to start from")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the checkpoint is kept")
    main(parser.parse_args())
