"""Train the reference model's autoencoder: TAESD's architecture, 16 latent channels, on 64-pixel crops of drawings.

    .host/venv/bin/python lab/training/autoencoder.py --steps 10000

Goes on from `<folder>/autoencoder.pt` when it was interrupted; `--export FILE` writes the averaged weights (fp16) and
prints what they keep of held-out drawings.
"""

import argparse
import copy
from pathlib import Path

import drawings
import numpy as np
import torch
from comfy_classes import DEVICE, HALF, initialise  # first: the others are found by it
from muon import Muon
from patch_pca import CHANNELS, fit_crops, write_into
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from training import FOLDER, Training

from comfy.latent_formats import SD3  # isort: skip
from comfy.taesd.taesd import TAESD  # isort: skip

CROP = 64
BATCH = 8
MUON_RATE = 3e-3
AVERAGING = 0.998
LATENT_NOISE = 0.05  # the diffusion model's latents are not exact; their deviation is held below 1


def crops(count: int, files: list[str], random: np.random.Generator) -> Tensor:
    """(count, 3, CROP, CROP) in 0 to 1, from pictures of one drawing, two of each, mostly of the drawing itself."""
    result = []
    while len(result) < count:
        side = drawings.PICTURE * int(random.choice([1, 2], p=(0.75, 0.25)))
        size, angle = float(random.uniform(0.35, 0.9)), float(random.uniform(-15, 15))
        placed = drawings.Placed(str(random.choice(files)), size, 0.5, 0.5, angle, bool(random.random() < 0.5))
        picture, _ = drawings.draw(drawings.Scene(drawings.random_ground(random), (placed,), ""), side)
        reach = max(0.0, size * side / 2 - CROP / 4)
        for _ in range(2):
            y, x = (np.clip(side / 2 + random.uniform(-reach, reach, 2), CROP / 2, side - CROP / 2) - CROP / 2).astype(
                int
            )
            result.append(picture[:, y : y + CROP, x : x + CROP])
    return torch.stack(result[:count])


def reconstruction_loss(decoded: Tensor, picture: Tensor) -> Tensor:
    """Mean absolute error of the pictures and of the two finest bands of their Laplacian pyramids."""
    difference = decoded - picture
    loss = difference.abs().mean()
    for _ in range(2):
        low = avg_pool2d(difference, 2)
        loss = loss + (difference - interpolate(low, scale_factor=2, mode="bilinear")).abs().mean()
        difference = low
    return loss


def main(arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    files = drawings.unnamed()[0] + list(drawings.THINGS.values())
    model = TAESD(latent_channels=CHANNELS).to(DEVICE, memory_format=torch.channels_last)
    initialise(model)
    if arguments.start:
        model.load_state_dict({name: value.float() for name, value in load_file(arguments.start).items()})
    else:  # a principal component analysis of patches, so that every colour passes from the first step
        write_into(model.taesd_encoder, fit_crops(crops(512, files, np.random.default_rng(1))), trainable=True)
    networks = nn.ModuleList([model.taesd_encoder, model.taesd_decoder])
    average = copy.deepcopy(networks).requires_grad_(False)
    model.taesd_encoder.requires_grad_(not arguments.decoder)
    trained = [p for p in networks.parameters() if p.requires_grad]
    hidden = [p for p in trained if p.ndim == 4 and min(p.shape[:2]) == 64 and arguments.muon]
    others = [p for p in trained if all(p is not each for each in hidden)]
    optimizers = {"adamw": torch.optim.AdamW(others, lr=arguments.rate, weight_decay=1e-4)}
    if hidden:
        optimizers["muon"] = Muon(hidden, lr=MUON_RATE)
    training = Training(
        arguments.folder / f"{arguments.name}.pt", arguments.steps, networks=networks, average=average, **optimizers
    )
    if arguments.export:
        model.taesd_encoder.load_state_dict(average[0].state_dict())
        model.taesd_decoder.load_state_dict(average[1].state_dict())
        measure(model)
        export(model, arguments.export)
        return
    for _ in training.steps():
        # The step is the seed, so that an interrupted training goes on as if it had not been.
        picture = crops(BATCH, files, np.random.default_rng(training.step)).to(
            DEVICE, memory_format=torch.channels_last
        )
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=HALF):
            latent = model.taesd_encoder(picture)
            decoded = model.taesd_decoder(latent + LATENT_NOISE * torch.randn_like(latent))
        too_wide = nn.functional.relu(latent.float().square().mean(dim=(0, 2, 3)) - 1).mean()
        loss = reconstruction_loss(decoded.float(), picture)
        networks.zero_grad()
        (loss + 1e-2 * too_wide).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimizer in optimizers.values():
            optimizer.step()
        share = 1 - min(AVERAGING, (training.step + 1) / (training.step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(networks.parameters()), share)
        training.lost(loss)


@torch.no_grad()
def measure(model: TAESD, side: int = drawings.PICTURE) -> None:
    """Print what is kept of held-out drawings: PSNR in dB, share of the energy in two bands in cycles per pixel."""
    _, held_out = drawings.unnamed()
    psnr, kept = [], {(1 / 8, 1 / 4): [], (1 / 4, 1 / 2): []}
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    for n, file in enumerate(held_out):
        ground = drawings.random_ground(np.random.default_rng(n))
        picture, _ = drawings.draw(drawings.Scene(ground, (drawings.Placed(file, 0.8, 0.5, 0.5),), ""), side)
        back = model.taesd_decoder(model.taesd_encoder(picture[None].to(DEVICE)))[0].clamp(0, 1).cpu()
        psnr.append(-10 * np.log10(float((back - picture).square().mean())))
        power, real = (np.abs(np.fft.fft2(each.mean(0).numpy())) ** 2 for each in (back, picture))
        for (low, high), shares in kept.items():
            band = (frequency >= low) & (frequency < high)
            shares.append(power[band].sum() / real[band].sum())
    shares = ", ".join(f"{np.median(values):.0%} of {low:g} to {high:g}" for (low, high), values in kept.items())
    print(f"{len(held_out)} held-out drawings: PSNR {np.mean(psnr):.2f} dB (median {np.median(psnr):.2f}), {shares}")


def export(model: TAESD, file: Path) -> None:
    """Write the weights. Scale and shift cancel the host's SD3 latent format's, but for one number: the diffusion model
    sees the encoder's numbers at unit deviation."""
    files = list(drawings.THINGS.values())
    with torch.no_grad():
        seen = model.taesd_encoder(crops(256, files, np.random.default_rng(2)).to(DEVICE))
        model.vae_scale.fill_(SD3().scale_factor * float(seen.std()))
        model.vae_shift.fill_(SD3().shift_factor)
    scalars = ("vae_scale", "vae_shift")  # half precision would no longer cancel
    state = {n: v.contiguous() if n in scalars else v.half().contiguous() for n, v in model.state_dict().items()}
    save_file(state, file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=1e-3, help="AdamW's highest learning rate")
    parser.add_argument("--muon", action="store_true", help="Muon for the 64-channel convolutions")
    parser.add_argument("--decoder", action="store_true", help="the decoder alone: latents made before stay right")
    parser.add_argument("--start", type=Path, help="exported weights to begin with, for a training of another name")
    parser.add_argument("--name", default="autoencoder", help="of the checkpoint")
    parser.add_argument("--export", type=Path, help="write the weights so far and stop")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the checkpoint is kept")
    main(parser.parse_args())
