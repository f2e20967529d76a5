"""Pictures that a model is given to read: their latent, of whole tokens, and their caption."""

from typing import Any

import torch
from comfy.sd import VAE
from torch import Tensor

from .anatomy import Anatomy


def require_one_caption(positive: list) -> None:
    """Refuse a conditioning that is not one caption for whole pictures.

    Raises:
        ValueError: there are several conditions, or one for a part of the picture.
    """
    if len(positive) != 1:
        raise ValueError(
            f"positive: it has {len(positive)} conditions, one caption is wanted. Connect one text encoder's."
        )
    ((_, options),) = positive
    part = next((name for name in ("area", "mask", "gligen") if options.get(name) is not None), None)
    if part:
        raise ValueError(f"positive: it has {part}, whole pictures are shown. Connect a text encoder's own.")


def encoded(anatomy: Anatomy, vae: VAE | None, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Encode pictures one by one, as far as whole tokens reach.

    Args:
        image: (pictures, height, width, channels), 0 to 1.

    Returns:
        The latent, and the height and width in pixels that it covers from the upper left corner.

    Raises:
        ValueError: there is no vae, a picture has fewer than three channels, or fills no token.
    """
    if vae is None:
        raise ValueError("vae: there is none. Connect the model's own, it encodes the image.")
    scale = vae.spacial_compression_encode()
    height, width = (
        side // (scale * each) * scale * each for side, each in zip(image.shape[1:3], _sides(anatomy), strict=True)
    )
    pictures = image[:, :height, :width, :3]
    if image.shape[-1] < 3:
        raise ValueError(f"image: it has {image.shape[-1]} channels, pictures have three. Convert it to RGB.")
    _require_some("image", pictures)
    # One by one: a video's autoencoder would take them for frames, and make fewer of them.
    return torch.cat([vae.encode(picture[None]) for picture in pictures]), (height, width)


def of_whole_tokens(anatomy: Anatomy, vae: VAE | None, latent: dict[str, Any]) -> tuple[Tensor, tuple[int, int]]:
    """Cut a latent to whole tokens.

    Returns:
        The latent, and the height and width in pixels that it covers from the upper left corner.

    Raises:
        ValueError: it fills no token, has sound beside the picture, or does not say how many pixels it has.
    """
    samples = latent["samples"]
    if samples.is_nested:
        raise ValueError("latent: there is sound beside the picture. Connect the picture's latent alone.")
    scale = vae.spacial_compression_encode() if vae else latent.get("downscale_ratio_spacial")
    if scale is None:
        raise ValueError("vae: there is none, and the latent does not say how many pixels it has. Connect it.")
    height, width = (side // each * each for side, each in zip(samples.shape[-2:], _sides(anatomy), strict=True))
    _require_some("latent", samples[..., :height, :width])
    return samples[..., :height, :width], (height * scale, width * scale)


def _sides(anatomy: Anatomy) -> tuple[int, int]:
    """Rows and columns of the latent that become one token."""
    patch_size = anatomy.family.patch_size
    sides = 1 if patch_size is None else patch_size(anatomy.network)
    return (sides, sides) if isinstance(sides, int) else (sides[-2], sides[-1])


def _require_some(name: str, pictures: Tensor) -> None:
    if not pictures.numel():
        raise ValueError(f"{name}: it is empty, or smaller than one of the model's tokens. Connect larger pictures.")
