"""Masks over the picture, step by step of a sampling run, for where detail is added."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol
from uuid import UUID

import torch
from comfy.utils import repeat_to_batch_size
from torch import Tensor
from torch.nn.functional import interpolate

from ...dit import Anatomy, Wrappers
from .masks import Region, soft_masks
from .reader import NOTHING, RegionReader
from .words import Words


class MaskProvider(Protocol):
    """Says for each guided step of one sampling run where detail is added.

    Attributes:
        wrappers: the run's wrappers by the host's kinds.
    """

    wrappers: Wrappers

    def reading(self, positive: Sequence[dict[str, Any]], latent: torch.Size) -> AbstractContextManager[None]:
        """While it lasts, one guided step's forwards are read.

        Args:
            positive: the guider's positive conditions, as the host has made them.
            latent: shape of the whole latent.
        """

    def end_step(self, active: Collection[UUID], computed: bool, device: torch.device) -> None:
        """Take in what a guided step has shown.

        Args:
            active: ids of the positive conditions that the step had.
            computed: whether the model itself answered.
            device: the pictures' device.
        """

    def mask(self, picture: Tensor) -> Tensor | None:
        """The mask for a latent (pictures, channels, …, height, width): 0 to 1, broadcastable to it; None is
        everywhere."""

    def by_name(self) -> dict[str, Tensor]:
        """Name → masks so far, (pictures, …), of the regions that were read."""

    def warnings(self) -> Iterator[str]:
        """What the user should know after the run, in sentences."""


class Everywhere:
    """The provider without any mask. It reads nothing and costs nothing."""

    def __init__(self) -> None:
        self.wrappers: Wrappers = {}

    def reading(self, positive: Sequence[dict[str, Any]], latent: torch.Size) -> AbstractContextManager[None]:
        return nullcontext()

    def end_step(self, active: Collection[UUID], computed: bool, device: torch.device) -> None:
        pass

    def mask(self, picture: Tensor) -> Tensor | None:
        return None

    def by_name(self) -> dict[str, Tensor]:
        return {}

    def warnings(self) -> Iterator[str]:
        return iter(())


class PaintedMask(Everywhere):
    """A mask that the user has painted.

    Args:
        painted: (masks, height, width), 0 to 1.
    """

    def __init__(self, painted: Tensor) -> None:
        super().__init__()
        self.painted = painted
        self._fitted: tuple[Any, Tensor] | None = None  # resized once for all steps
        self._pictures = 0

    def mask(self, picture: Tensor) -> Tensor:
        self._pictures = len(picture)
        form = (picture.shape, picture.device, picture.dtype)
        if self._fitted is None or self._fitted[0] != form:
            self._fitted = form, self._fit(picture)
        return self._fitted[1]

    def _fit(self, picture: Tensor) -> Tensor:
        resized = interpolate(self.painted.unsqueeze(1), picture.shape[-2:], mode="bilinear").to(picture)
        middle = [1] * (picture.ndim - 3)
        return repeat_to_batch_size(resized, len(picture)).view(len(picture), *middle, *picture.shape[-2:])

    def warnings(self) -> Iterator[str]:
        if not self._pictures:
            return  # no step was guided
        if len(self.painted) not in (1, self._pictures):
            yield (
                f"mask: there are {len(self.painted)}, for a batch of {self._pictures}: its pictures take them in "
                "turn, a video one for all its frames. Give one, or one for each."
            )
        if not self.painted[: self._pictures].any():
            yield "mask: it is black everywhere, so no detail was added. Paint where it shall be, or unplug it."


class RegionMasks:
    """Masks of words or of the foreground, read of the model's own forwards and averaged over the steps so far
    (docs/EVIDENCE.md, section 13).

    Args:
        region: the words, or the foreground.
        soft: 0 to 1, width of a mask's edge.
    """

    def __init__(self, region: Region, soft: float, anatomy: Anatomy) -> None:
        self.region, self.soft = region, soft
        self._reader = RegionReader(region, anatomy)
        self.wrappers: Wrappers = self._reader.wrappers
        self._maps = torch.zeros(0)  # mean over the steps that were read
        self._steps = 0
        self._without = 0  # guided steps before the first that was read

    def reading(self, positive: Sequence[dict[str, Any]], latent: torch.Size) -> AbstractContextManager[None]:
        return self._reader.reading(positive, latent)

    def end_step(self, active: Collection[UUID], computed: bool, device: torch.device) -> None:
        """Average in what a step has shown.

        Raises:
            ValueError: the region should have been seen in the step, and never was.
        """
        maps = self._reader.taken()
        if maps is not None:
            maps = maps.to(device)
            # Some samplers change the latent's size.
            self._steps = self._steps + 1 if maps.shape == self._maps.shape else 1
            self._maps = maps if self._steps == 1 else self._maps.lerp(maps, 1 / self._steps)
        elif self._steps == 0:
            if computed and not self._reader.meant.isdisjoint(active):
                raise ValueError(NOTHING)
            self._without += 1

    def mask(self, picture: Tensor) -> Tensor:
        """The regions' masks as one, (pictures, 1, …); nowhere until they have been read."""
        if self._steps == 0:
            return torch.zeros_like(picture[:, :1])
        mask = soft_masks(self._maps, self.soft).amax(dim=1, keepdim=True)
        if mask.shape[2:] != picture.shape[2:]:  # some models have several of a video's frames in one token
            mask = interpolate(mask, picture.shape[2:], mode="nearest")
        return mask.to(picture)

    def by_name(self) -> dict[str, Tensor]:
        if self._steps == 0:
            return {}
        masks = soft_masks(self._maps, self.soft).nan_to_num().cpu()
        return dict(zip(self.region.names, masks.unbind(dim=1), strict=True))

    def warnings(self) -> Iterator[str]:
        if self._without:
            yield (
                f"words: {self._without} guided steps added nothing, because the model had not yet been asked for "
                "their prompt. Give it the whole schedule, or set start_percent to where it begins."
            )
        remedy = "another word, or another layer in Detail Prompt Words"
        if not isinstance(self.region, Words):
            remedy = "another layer or max_channels in Detail Foreground"
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


class PaintedRegions(RegionMasks):
    """Masks of a region inside a painted mask."""

    def __init__(self, painted: Tensor, region: Region, soft: float, anatomy: Anatomy) -> None:
        super().__init__(region, soft, anatomy)
        self._painted = PaintedMask(painted)

    def mask(self, picture: Tensor) -> Tensor:
        return self._painted.mask(picture) * super().mask(picture)

    def warnings(self) -> Iterator[str]:
        yield from self._painted.warnings()
        yield from super().warnings()


def mask_provider(painted: Tensor | None, region: Region | None, soft: float, anatomy: Anatomy) -> MaskProvider:
    """The provider for what the user has set.

    Args:
        painted: (masks, height, width), 0 to 1; None is no mask.
        region: None is no region.
        soft: 0 to 1, width of a region's edge.
    """
    if region is None:
        return Everywhere() if painted is None else PaintedMask(painted)
    if painted is None:
        return RegionMasks(region, soft, anatomy)
    return PaintedRegions(painted, region, soft, anatomy)
