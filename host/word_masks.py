"""Where a run's words are, as far as it has come: their masks over the picture."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any
from uuid import UUID

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..detail_guidance.regions import Region, soft_masks
from .families import Anatomy
from .regions import NOTHING, RegionWatch


class WordMasks:
    """Of one sampling run. What its steps have read is averaged (docs/EVIDENCE.md, section 13).

    Args:
        soft: 0 to 1, the width of a mask's edge.
    """

    def __init__(self, words: Region, soft: float, of_model: Anatomy) -> None:
        self.words, self.soft = words, soft
        self.watch = RegionWatch(words, of_model)
        self.maps = torch.zeros(0)  # mean over the steps that were read
        self.steps = 0

    def install(self, model_options: dict[str, Any]) -> None:
        """Hook into the run's forwards."""
        self.watch.install(model_options)

    def begin(self, positive: Sequence[dict[str, Any]], model_options: dict[str, Any]) -> None:
        """At the beginning of a step that is read.

        Raises:
            ValueError: the positive conditions do not have the words, or the host cuts the latent.
        """
        self.watch.begin(positive, model_options)

    def end(self, latent: torch.Size, active: Collection[UUID], computed: bool) -> None:
        """At a step's end.

        Args:
            active: the conditions that the step had.
            computed: whether the model itself answered.

        Raises:
            ValueError: the words should have been seen in it, and never were.
        """
        expected = computed and any(uuid in self.watch.conditions for uuid in active)
        maps = self.watch.taken(latent)
        if maps is not None:
            # Some samplers change the latent's size.
            self.steps = self.steps + 1 if maps.shape == self.maps.shape else 1
            self.maps = maps if self.steps == 1 else self.maps.lerp(maps, 1 / self.steps)
        elif expected and self.steps == 0:
            raise ValueError(NOTHING)

    def over(self, picture: Tensor) -> Tensor:
        """The words' masks as one, for a latent: 0 to 1, (pictures, 1, …). Nowhere until they have been read."""
        if self.steps == 0:
            return torch.zeros_like(picture[:, :1])
        mask = soft_masks(self.maps, self.soft).amax(dim=1, keepdim=True)
        if mask.shape[2:] != picture.shape[2:]:  # some models have several of a video's frames in one token
            mask = interpolate(mask, picture.shape[2:], mode="nearest")
        return mask.to(picture)

    def by_name(self) -> dict[str, Tensor]:
        """Each word's masks, (pictures, …); empty where they have not been read."""
        if self.steps == 0:
            return {}
        return dict(zip(self.words.names, soft_masks(self.maps, self.soft).cpu().unbind(dim=1), strict=True))

    def warnings(self) -> Iterator[str]:
        """What the user should know after the run."""
        if self.steps == 0:
            yield "words: no guided step had their prompt, so nothing was added. Widen its part of the schedule."
        for name, mask in self.by_name().items():
            pictures = mask.flatten(1)
            if missing := int((pictures.amax(dim=1) < 0.5).sum()):
                yield (
                    f"words: {name!r} was found nowhere in {missing} of {len(pictures)} pictures, and no detail was "
                    "added for it there. Take another word, or another layer in its node."
                )
            if whole := int((pictures.amin(dim=1) > 0.5).sum()):
                yield (
                    f"words: {name!r} covers the whole of {whole} of {len(pictures)} pictures, as if there were no "
                    "words. Take another word, or another layer in its node."
                )
