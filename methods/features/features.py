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

from ..massive_activations.perturbation import Rule
from ..massive_activations.recording import NOTHING, Sight

FORMAT = "detail_guidance.features"
EPSILON = 1e-6  # of the LayerNorm in the blocks of SD3, Flux and their kin


@dataclass(frozen=True)
class Features:
    """Of pictures, one vector for each token.

    Attributes:
        values: float32 (pictures, channels, rows, columns), on the CPU; of a video one entry for each latent frame.
        height, width: of the pictures, in pixels: as far as whole tokens reach.
        family: of the model.
        fingerprint: of its weights.
        block, blocks: whose input, of how many.
        dropped: massive channels that were zeroed.
        modulated: whether the block's own AdaLN has scaled and shifted them.
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
        """One picture's, (channels, rows, columns)."""
        return self.values[picture]

    def require_like(self, other: "Features", name: str) -> None:
        """
        Args:
            name: the other's, for the message.

        Raises:
            ValueError: they cannot be compared.
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
            f"{self.family}: block {self.block} of {self.blocks}, {pictures} × {rows} × {columns} tokens of {channels} "
            f"channels, dropped: {dropped}, {'modulated' if self.modulated else 'raw'}"
            + (f", {self.maps} maps of massive channels" if self.maps else "")
        )


@dataclass
class FeatureRecording:
    """Watches one block, and keeps the features of every row that it is shown.

    Attributes:
        rule: which channels are massive: seen once, in the first row, and kept, so that pictures can be compared.
        modulate: with the block's own AdaLN, where it has one.
        maps: whether the massive channels' own maps follow.
        modulated: whether the last rows were; None before any.
    """

    block: int
    rule: Rule
    modulate: bool
    maps: bool
    sigmas: list[float] = field(default_factory=list)
    massive: Tensor | None = None
    modulated: bool | None = None
    seen: list[Tensor] = field(default_factory=list)  # (tokens, channels) of each row

    def see(self, block: int, sight: Sight) -> None:
        if block != self.block:
            return
        z = sight.image.flatten(1, -2)
        if self.massive is None:
            self.massive = self.rule.observe(z[:1])
        modulation = sight.modulation() if self.modulate else None
        self.modulated = modulation is not None
        # Row by row: no second hidden state of the whole batch.
        for row, hidden in enumerate(z):
            of_attention = None if modulation is None else modulation[row, 0, :2].float()
            self.seen.append(features(hidden.float(), self.massive, of_attention, self.maps).cpu())

    def taken(self) -> list[Tensor]:
        """What was seen since the last time.

        Raises:
            ValueError: nothing.
        """
        if not self.seen:
            raise ValueError(NOTHING)
        seen, self.seen = self.seen, []
        return seen


def features(z: Tensor, massive: Tensor, modulation: Tensor | None, maps: bool) -> Tensor:
    """[DiTF]: massive channels are zeroed, the rest is normalised as in front of the block's attention.

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
    """Features (tokens, channels) that lie in (frames …, rows, columns): (frames, channels, rows, columns).

    Raises:
        ValueError: they are not so many.
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
    """
    Raises:
        ValueError: the file is damaged, or holds no features.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"features: {file.name} is a safetensors file, but holds no features. Choose one that Save DiT "
                    "Features wrote."
                )
            values = opened.get_tensor("values")
        names = ("height", "width", "block", "blocks", "maps", "noise_level")
        numbers = {name: json.loads(metadata[name]) for name in names}
        dropped, modulated = json.loads(metadata["dropped"]), json.loads(metadata["modulated"])
        about = {"family": metadata["family"], "fingerprint": metadata["fingerprint"]}
        loaded = Features(values, dropped=tuple(dropped), modulated=modulated, **about, **numbers)
    except (SafetensorError, KeyError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"features: {file.name} is damaged ({error}). Make and save them again.") from error
    if not _fits(loaded):
        raise ValueError(f"features: {file.name} is damaged (its parts do not fit together). Make and save them again.")
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
        and 0 < features.noise_level < 1
    )
