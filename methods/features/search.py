"""Points and a mask of one picture found in others: matches, masks, pictures of them, and a report."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import matching
from .features import Features
from .matching import Match
from .pictures import colours, heat_picture, lines_picture

Point = tuple[float, float]  # x and y in pixels


@dataclass(frozen=True)
class Search:
    """A search for points and a mask of the source.

    Attributes:
        points: as the widget has them.
        mask: (1, height, width), or None.
        mutual: only what finds its way back is kept.
        earlier_frames: number of frames before it from which a frame of a video takes the mask.
    """

    points: str
    mask: Tensor | None
    mutual: bool
    earlier_frames: int


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        points: a line for each picture.
        mask: (pictures, height, width).
        heat, lines: (pictures, height, width, 3).
        report: each match in words.
    """

    points: str
    mask: Tensor
    heat: Tensor
    lines: Tensor
    report: str


def search(
    source: Features, target: Features | None, wanted: Search, images: tuple[Tensor | None, Tensor | None]
) -> Found:
    """Look for points and a mask of the source in the target; without a target, through the source as a video.

    Args:
        images: source's and target's pictures, for the picture with lines; their features stand for missing ones.

    Raises:
        ValueError: names the input, its value and what is allowed.
    """
    places = parse_points(wanted.points, source)
    if not places and wanted.mask is None:
        raise ValueError("points: there are none, and no mask. Give points, connect a mask, or both.")
    others = _others(source, target)
    size, other = (source.height, source.width), (others.height, others.width)
    first = source.of(0)
    labels = None if wanted.mask is None else _labels(wanted.mask, source)
    found = [[matching.match(first, each, *place, size, other) for place in places] for each in others.values]
    kept = [
        {place: match for place, match in zip(places, matches, strict=True) if match.mutual or not wanted.mutual}
        for matches in found
    ]
    notes = []
    if labels is None:
        moved = torch.zeros(len(others.values), *other)
        heats = [matches[0].heat for matches in found]
    else:
        if target is None:
            tokens = matching.follow(source.values, labels, wanted.earlier_frames)
            if wanted.mutual:
                notes.append("mutual: it is for points here; a mask that is followed is taken as it comes.")
        else:
            tokens = torch.stack([matching.transfer(first, labels, each, wanted.mutual) for each in others.values])
        moved = torch.cat([matching.to_pixels(each, other) for each in tokens])
        heats = [matching.alike_to_mask(first, labels, each) for each in others.values]
    return Found(
        points="\n".join("; ".join(f"{match.x:.1f}, {match.y:.1f}" for match in each.values()) for each in kept),
        mask=moved,
        heat=torch.stack([heat_picture(each, other) for each in heats]),
        lines=_lines(source, others, places, kept, (images[0], images[0] if target is None else images[1])),
        report=_report(source, others, places, found, None if labels is None else moved, notes),
    )


def parse_points(text: str, source: Features) -> list[Point]:
    """'120, 80; 40, 200' → these.

    Raises:
        ValueError: anything else, or a point outside the source.
    """
    places = []
    for part in filter(None, (part.strip() for part in re.split(r"[;；\n]", text))):
        try:
            x, y = (float(number) for number in re.split("[,，]", part))
        except ValueError:
            raise ValueError(f'points: {part!r} is not a point. Give x and y in pixels, such as "120, 80".') from None
        if not (0 <= x <= source.width and 0 <= y <= source.height):
            raise ValueError(
                f"points: {part} lies outside the source, which is {source.width} × {source.height} pixels."
            )
        places.append((x, y))
    return places


def _others(source: Features, target: Features | None) -> Features:
    """The features that are searched: the target's, or the source's as a video."""
    if target is None:
        if len(source.values) < 2:
            raise ValueError(
                "target: there is none, and the source is one picture, not a video. Connect a target, or give DiT "
                "Features the frames."
            )
        return source
    if len(source.values) > 1:
        raise ValueError(
            f"source: it has {len(source.values)} pictures, one is wanted beside a target. Give DiT Features one."
        )
    source.require_like(target, "target")
    return target


def _labels(mask: Tensor, source: Features) -> Tensor:
    """The mask as labels of the source's first picture's tokens, (1, rows, columns)."""
    mask = mask[None] if mask.ndim == 2 else mask
    if mask.ndim != 3 or len(mask) != 1:
        raise ValueError(f"mask: its shape is {tuple(mask.shape)}, one mask is wanted, (1, height, width).")
    cut = _cut(mask, source, "mask")
    if cut.max() <= 0:
        raise ValueError("mask: it is empty. Paint what is to be found.")
    labels = matching.tokens_of_mask(cut[0], source.values.shape[2:])
    return labels / labels.max()  # also what is smaller than a token


def _cut(pictures: Tensor, features: Features, name: str) -> Tensor:
    """Pictures or masks (n, height, width, …) as far as the features' tokens reach.

    Raises:
        ValueError: they are of another size.
    """
    height, width = features.height, features.width
    token = height // features.values.shape[2], width // features.values.shape[3]
    beyond = pictures.shape[1] - height, pictures.shape[2] - width
    if not all(0 <= more < side for more, side in zip(beyond, token, strict=True)):
        raise ValueError(
            f"{name}: it is {pictures.shape[2]} × {pictures.shape[1]} pixels, its features are of {width} × {height}. "
            "Connect what they were made of."
        )
    return pictures[:, :height, :width]


def _lines(
    source: Features,
    others: Features,
    places: Sequence[Point],
    kept: Sequence[dict[Point, Match]],
    images: tuple[Tensor | None, Tensor | None],
) -> Tensor:
    """A picture for each of the others, or one where there are no points. Where an image is not connected, its
    features' components stand for it."""
    left, right = _images(source, images[0], "source_image"), _images(others, images[1], "target_image")
    shown = len(others.values) if places else 1
    pairs = zip(right[:shown], kept[:shown], strict=True)
    return torch.stack([lines_picture(left[0], each, places, matches) for each, matches in pairs])


def _images(features: Features, images: Tensor | None, name: str) -> Tensor:
    if images is None:
        return colours(matching.components(features.values), (features.height, features.width))
    if len(images) != len(features.values):
        raise ValueError(
            f"{name}: it has {len(images)} pictures, its features have {len(features.values)}. Connect what they were "
            "made of."
        )
    return _cut(images, features, name)[..., :3]


def _report(
    source: Features,
    others: Features,
    places: Sequence[Point],
    found: Sequence[Sequence[Match]],
    moved: Tensor | None,
    notes: Sequence[str],
) -> str:
    lines = []
    if source.dropped != others.dropped:
        lines.append(
            f"The channels dropped differ, {source.dropped} and {others.dropped}: give both DiT Features one list."
        )
    for number, matches in enumerate(found):
        lines.append(f"picture {number}:")
        if moved is not None:
            lines[-1] += f" the mask covers {float((moved[number] > 0.5).float().mean()):.1%} of it"
        for (x, y), match in zip(places, matches, strict=True):
            returns = "mutual" if match.mutual else "not mutual"
            lines.append(f"  {x:g}, {y:g} → {match.x:.1f}, {match.y:.1f}: likeness {match.likeness:.2f}, {returns}")
    return "\n".join([*lines, *notes])
