"""A model's features of pictures: they are noised, forwarded up to one block, and the block's input is kept."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...dit import BlockInput, anatomy_of, forward_noised, model_fingerprint, observed
from ..massive_activations.perturbations import ReportedPerturbation
from ..massive_activations.recording import NOTHING
from .features import Features, features, on_grid


@dataclass(frozen=True)
class Extraction:
    """Settings of an extraction.

    Attributes:
        block: number of the block whose input the features are; it and those behind it are not computed.
        noise_level: between 0 and 1, the noise's share in what the model is given.
        draws: number of noises, ≥ 1; the features are a mean over them ([DiTF], section 4.3).
        seed: the first noise's seed.
        finder: finds the massive channels, which are dropped.
        modulate: whether features are modulated by the block's own AdaLN, where it has one.
        maps: whether the massive channels' own maps follow the features.
    """

    block: int
    noise_level: float
    draws: int
    seed: int
    finder: ReportedPerturbation
    modulate: bool
    maps: bool


def features_of(
    model: ModelPatcher,
    positive: list[list[Any]],
    latent: Tensor,
    size: tuple[int, int],
    how: Extraction,
    progress: Callable[[int], object],
) -> Features:
    """Features of pictures.

    Args:
        model: without anything that guides its sampling.
        positive: one condition, what the pictures show.
        latent: (pictures, channels, …, height, width), as a VAE gives them, of whole tokens.
        size: height and width of the pictures, in pixels.
        progress: called with the number of draws of all pictures so far.

    Raises:
        ValueError: no row of the family table fits the model, it was never asked, or its states are not finite.
    """
    anatomy = anatomy_of(model)
    recording = FeatureRecording(how.block, how.finder, how.modulate, how.maps)
    sums: list[Any] = [0] * len(latent)
    done = 0
    watched = observed(model, recording, how.block)
    for pictures in forward_noised(watched, positive, latent, how.noise_level, how.draws, how.seed):
        for picture, seen in zip(pictures, recording.taken(), strict=True):
            sums[picture] = sums[picture] + seen
        done += len(pictures)
        progress(done)
    grid = anatomy.token_grid(len(sums[0]), latent.shape)
    values = torch.cat([on_grid(total / how.draws, grid) for total in sums])
    if not values.isfinite().all():
        raise ValueError("features: they are not finite numbers. Try other weights, or more precision.")
    massive = () if recording.massive is None else tuple(recording.massive.nonzero().flatten().tolist())
    return Features(
        values.contiguous(),
        *size,
        anatomy.family.id,
        model_fingerprint(model),
        how.block,
        len(anatomy.blocks),
        massive,
        modulated=bool(recording.modulated),
        maps=len(massive) if how.maps else 0,
        noise_level=how.noise_level,
    )


@dataclass
class FeatureRecording:
    """Observes one block, and keeps the features of every row that it is given.

    Attributes:
        block: number of the block.
        finder: finds massive channels: once, in the first row, so that pictures can be compared.
        modulate: whether features are modulated by the block's own AdaLN, where it has one.
        maps: whether the massive channels' own maps follow the features.
        massive: the channels that were found, bool (channels,); None before any row.
        modulated: whether the last rows were modulated; None before any row.
        seen: features of each row, (tokens, channels).
    """

    block: int
    finder: ReportedPerturbation
    modulate: bool
    maps: bool
    sigmas: list[float] = field(default_factory=list)
    massive: Tensor | None = None
    modulated: bool | None = None
    seen: list[Tensor] = field(default_factory=list)

    def on_block(self, number: int, given: BlockInput) -> None:
        if number != self.block:
            return
        z = given.image.flatten(1, -2)
        if self.massive is None:
            self.massive = self.finder.observe(z[:1])
        modulation = given.modulation() if self.modulate else None
        self.modulated = modulation is not None
        # Row by row: no second hidden state of the whole batch.
        for row, hidden in enumerate(z):
            of_attention = None if modulation is None else modulation[row, 0, :2].float()
            self.seen.append(features(hidden.float(), self.massive, of_attention, self.maps).cpu())

    def taken(self) -> list[Tensor]:
        """The features of the rows since the last call.

        Raises:
            ValueError: there were no rows.
        """
        if not self.seen:
            raise ValueError(NOTHING)
        seen, self.seen = self.seen, []
        return seen
