"""A profile: massive channels measured before, and its file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "detail_guidance.profile"


@dataclass(frozen=True)
class Profile:
    """Massive channels per block, of a model of one family, depth and width.

    Attributes:
        family: id of the model's family; a family's display name in files of version 0.12 and before.
        blocks, width: the model's number of blocks, and of channels of its hidden state.
        channels: block → its massive channels, where it has any.
        magnitudes: mean of |z| over image tokens, pictures and steps, float32 (blocks, width).
    """

    family: str
    blocks: int
    width: int
    channels: dict[int, tuple[int, ...]]
    magnitudes: Tensor = field(compare=False)

    def check(self, names: Sequence[str], blocks: int) -> None:
        """Refuse a model that the profile was not measured on.

        Args:
            names: by which files know the model's family, the one for people first.
            blocks: the model's number of blocks.

        Raises:
            ValueError: the model is of another family or depth.
        """
        if self.family not in names or self.blocks != blocks:
            raise ValueError(
                f"profile: it was measured on {self.family} with {self.blocks} blocks, this model is {names[0]} with "
                f"{blocks}. Measure this model, or unplug the profile."
            )

    def check_width(self, width: int) -> None:
        """Refuse a hidden state of another number of channels.

        Raises:
            ValueError: the width differs from the profile's.
        """
        if self.width != width:
            raise ValueError(
                f"profile: it was measured on a model of width {self.width}, this one's is {width}. Measure this one, "
                "or unplug the profile."
            )


def save(profile: Profile, file: Path, about: dict[str, str]) -> None:
    """Write a safetensors file whose header can be read by people; `about` goes into it too."""
    channels = {str(block): channels for block, channels in profile.channels.items()}
    metadata = {
        "format": FORMAT,
        "family": profile.family,
        "blocks": str(profile.blocks),
        "width": str(profile.width),
        "channels": json.dumps(channels),
    }
    save_file({"magnitudes": profile.magnitudes.contiguous()}, file, metadata | about)


def load(file: Path) -> Profile:
    """Read a profile's file.

    Raises:
        ValueError: the file is damaged, or no profile.
    """
    again = "Measure and save it again."
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            magnitudes = opened.get_tensor("magnitudes") if metadata.get("format") == FORMAT else None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"profile: {file.name} is damaged ({error}). {again}") from error
    if magnitudes is None:
        raise ValueError(
            f"profile: {file.name} is a safetensors file, but no profile of massive activations. Choose one that Save "
            "Massive Activation Profile wrote."
        )
    try:
        channels = {int(block): tuple(found) for block, found in json.loads(metadata["channels"]).items()}
        profile = Profile(metadata["family"], int(metadata["blocks"]), int(metadata["width"]), channels, magnitudes)
    except (LookupError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"profile: {file.name} is damaged ({error}). {again}") from error
    fits = (
        magnitudes.shape == (profile.blocks, profile.width)
        and magnitudes.dtype == torch.float32
        and all(
            0 <= block < profile.blocks and all(type(c) is int and 0 <= c < profile.width for c in found)
            for block, found in channels.items()
        )
    )
    if not fits:
        raise ValueError(f"profile: {file.name} is damaged (its parts do not fit together). {again}")
    return profile
