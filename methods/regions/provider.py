"""Where a run's words are, as far as it has come: their masks over the picture."""

from collections.abc import Collection, Iterator
from uuid import UUID

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...dit.families import Anatomy
from .masks import Region, soft_masks
from .reader import NOTHING, RegionWatch
from .words import Words


class WordMasks:
    """Of one sampling run. What its steps have read is averaged (docs/EVIDENCE.md, section 13).

    Args:
        soft: 0 to 1, the width of a mask's edge.

    Attributes:
        watch: reads the run's steps.
    """

    def __init__(self, words: Region, soft: float, of_model: Anatomy) -> None:
        self.words, self.soft = words, soft
        self.watch = RegionWatch(words, of_model)
        self.maps = torch.zeros(0)  # mean over the steps that were read
        self.steps = 0
        self.without = 0  # guided steps before the first that was read

    def end(self, active: Collection[UUID], computed: bool, device: torch.device) -> None:
        """At a guided step's end, read or not.

        Args:
            active: the conditions that the step had.
            computed: whether the model itself answered.
            device: of the pictures.

        Raises:
            ValueError: the words should have been seen in it, and never were.
        """
        maps = self.watch.taken()
        if maps is not None:
            maps = maps.to(device)
            # Some samplers change the latent's size.
            self.steps = self.steps + 1 if maps.shape == self.maps.shape else 1
            self.maps = maps if self.steps == 1 else self.maps.lerp(maps, 1 / self.steps)
        elif self.steps == 0:
            if computed and not self.watch.meant.isdisjoint(active):
                raise ValueError(NOTHING)
            self.without += 1

    def over(self, picture: Tensor) -> Tensor:
        """The words' masks as one, for a latent: 0 to 1, (pictures, 1, …). Nowhere until they have been read."""
        if self.steps == 0:
            return torch.zeros_like(picture[:, :1])
        mask = soft_masks(self.maps, self.soft).amax(dim=1, keepdim=True)
        if mask.shape[2:] != picture.shape[2:]:  # some models have several of a video's frames in one token
            mask = interpolate(mask, picture.shape[2:], mode="nearest")
        return mask.to(picture)

    def by_name(self) -> dict[str, Tensor]:
        """Each word's masks, (pictures, …), without what is not a number; empty where they have not been read."""
        if self.steps == 0:
            return {}
        masks = soft_masks(self.maps, self.soft).nan_to_num().cpu()
        return dict(zip(self.words.names, masks.unbind(dim=1), strict=True))

    def warnings(self) -> Iterator[str]:
        """What the user should know after the run."""
        if self.without:
            yield (
                f"words: {self.without} guided steps added nothing, because the model had not yet been asked for their "
                "prompt. Give it the whole schedule, or set start_percent to where it begins."
            )
        remedy = "another word, or another layer in Prompt Words"
        if not isinstance(self.words, Words):
            remedy = "another layer or max_channels in Foreground"
        for name, mask in self.by_name().items():
            pictures = mask.flatten(1)
            if missing := int((pictures.amax(dim=1) < 0.5).sum()):
                yield (
                    f"words: {name!r} was found nowhere in {missing} of {len(pictures)} pictures, and no detail was "
                    f"added for it there. Take {remedy}."
                )
            if whole := int((pictures.amin(dim=1) > 0.5).sum()):
                yield (
                    f"words: {name!r} covers the whole of {whole} of {len(pictures)} pictures, so that detail was "
                    f"added everywhere. Take {remedy}."
                )
