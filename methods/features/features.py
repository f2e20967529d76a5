"""Hidden states as features of pictures."""

# [DiTF] is arXiv 2505.18584.

import json
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import layer_norm

FORMAT = "detail_guidance.features"
EPSILON = 1e-6  # of the LayerNorm in the blocks of SD3, Flux and their kin


@dataclass(frozen=True)
class Features:
    """Features of pictures: one vector for each token.

    Attributes:
        values: float32 (pictures, channels, rows, columns), on the CPU; of a video one entry for each latent frame.
        height, width: the pictures' size in pixels, as far as whole tokens reach.
        family: id of the model's family.
        fingerprint: the fingerprint of the model's weights.
        block, blocks: number of the block whose input the features are, and how many blocks there are.
        dropped: massive channels that were zeroed.
        modulated: whether the block's own AdaLN has scaled and shifted the values.
        maps: how many maps of massive channels follow the model's own channels.
        noise_level: between 0 and 1, the noise's share in what the model was shown.
    """

    values: Tensor = field(compare=False)
    height: int
    width: int
    family: str
    fingerprint: str
    block: int
    blocks: int
    dropped: tuple[int, ...]
    modulated: bool
    maps: int
    noise_level: float

    def of(self, picture: int) -> Tensor:
        """One picture's features, (channels, rows, columns)."""
        return self.values[picture]

    def require_like(self, other: "Features", name: str) -> None:
        """Refuse features that cannot be compared with these.

        Args:
            name: name of the other features' input, for the message.

        Raises:
            ValueError: they are of another model, block, noise level or form.
        """
        for attribute, what in (
            ("family", "model"),
            ("blocks", "number of blocks"),
            ("fingerprint", "model's fingerprint"),
            ("block", "block"),
            ("noise_level", "noise_level"),
            ("modulated", "being modulated"),
            ("maps", "number of maps"),
        ):
            if attribute == "family" and self.fingerprint == other.fingerprint:
                continue  # files of version 0.12 and before have another name for the same model
            mine, theirs = vars(self)[attribute], vars(other)[attribute]
            if mine != theirs:
                raise ValueError(
                    f"{name}: its {what} is {theirs}, the other features' is {mine}. Take both from one model, with "
                    "the same values."
                )

    def __str__(self) -> str:
        pictures, channels, rows, columns = self.values.shape
        dropped = ", ".join(map(str, self.dropped)) or "none"
        return (
            f"block {self.block} of {self.blocks}, {pictures} × {rows} × {columns} tokens of {channels} "
            f"channels, dropped: {dropped}, {'modulated' if self.modulated else 'raw'}"
            + (f", {self.maps} maps of massive channels" if self.maps else "")
        )


def features(z: Tensor, massive: Tensor, modulation: Tensor | None, maps: bool) -> Tensor:
    """Features of a hidden state ([DiTF]): massive channels are zeroed, the rest is normalised as in front of the
    block's attention.

    Args:
        z: a block's input, float32 (tokens, channels).
        massive: bool (channels,).
        modulation: AdaLN's shift and scale, (2, channels); None leaves the hidden state raw, but for the channels.
        maps: append the massive channels' values over the tokens, each of zero mean and unit variance ([EMA]).

    Returns:
        (tokens, channels), or with maps (tokens, channels + massive channels).
    """
    dropped = torch.where(massive, 0, z)
    if modulation is not None:
        shift, scale = modulation
        dropped = (1 + scale) * layer_norm(dropped, dropped.shape[-1:], eps=EPSILON) + shift
    if not maps:
        return dropped
    each = z[:, massive]
    return torch.cat([dropped, layer_norm(each.T, each.shape[:1], eps=EPSILON).T], dim=-1)


def on_grid(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Lay features out as pictures.

    Args:
        tokens: (tokens, channels).
        grid: frames (of a video), rows and columns of the tokens.

    Returns:
        (frames, channels, rows, columns).

    Raises:
        ValueError: the grid has another number of tokens.
    """
    if len(tokens) != prod(grid):
        raise ValueError(
            f"features: the model was shown {len(tokens)} tokens where the pictures have {' × '.join(map(str, grid))}. "
            "Remove what cuts the latent or adds tokens to it."
        )
    return tokens.view(-1, *grid[-2:], tokens.shape[-1]).permute(0, 3, 1, 2)


def save(features: Features, file: Path, about: dict[str, str]) -> None:
    """Write a safetensors file whose header can be read by people; `about` goes into it too."""
    facts = {name: value for name, value in vars(features).items() if name != "values"}
    metadata = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
    save_file({"values": features.values.contiguous()}, file, {"format": FORMAT} | metadata | about)


def load(file: Path) -> Features:
    """Read a file of features.

    Raises:
        ValueError: the file is damaged, or holds no features.
    """
    again = "Make and save them again."
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            values = opened.get_tensor("values") if metadata.get("format") == FORMAT else None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"features: {file.name} is damaged ({error}). {again}") from error
    if values is None:
        raise ValueError(
            f"features: {file.name} is a safetensors file, but holds no features. Choose one that Save DiT Features "
            "wrote."
        )
    try:
        names = ("height", "width", "block", "blocks", "maps", "noise_level")
        numbers = {name: json.loads(metadata[name]) for name in names}
        dropped, modulated = json.loads(metadata["dropped"]), json.loads(metadata["modulated"])
        about = {"family": metadata["family"], "fingerprint": metadata["fingerprint"]}
        loaded = Features(values, dropped=tuple(dropped), modulated=modulated, **about, **numbers)
    except (LookupError, ValueError, TypeError) as error:
        raise ValueError(f"features: {file.name} is damaged ({error}). {again}") from error
    if not _fits(loaded):
        raise ValueError(f"features: {file.name} is damaged (its parts do not fit together). {again}")
    return loaded


def _fits(features: Features) -> bool:
    values, dropped, maps = features.values, features.dropped, features.maps
    counts = (features.height, features.width, features.block, features.blocks, maps, *dropped)
    return (
        values.ndim == 4
        and values.dtype == torch.float32
        and values.numel() > 0
        and bool(values.isfinite().all())
        and all(type(count) is int and count >= 0 for count in counts)
        and features.height > 0 < features.width
        and features.block < features.blocks
        and maps in (0, len(dropped))
        and all(channel < values.shape[1] - maps for channel in dropped)
        and type(features.modulated) is bool
        and type(features.noise_level) in (int, float)
        and 0 < features.noise_level < 1
    )
