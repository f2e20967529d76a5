import re
from collections.abc import Sequence

import torch
from comfy_api.latest import io
from torch import Tensor

from ..methods.common.numbers import require
from ..methods.features import matching
from ..methods.features.features import Features
from ..methods.features.matching import Match
from ..methods.features.pictures import colours, heat_picture, lines_picture
from ..methods.massive_activations.figures import require_matplotlib
from .inputs import CATEGORY, DiTFeaturesType

Point = tuple[float, float]


class MatchFeatures(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MatchFeatures",
            display_name="Match Features",
            category=CATEGORY,
            description="Finds points and a mask of one picture in others, by their features. Without a target the "
            "source is a video, and what is in its first frame is followed through it.",
            inputs=[
                DiTFeaturesType.Input("source", tooltip="From DiT Features: the picture of the points and the mask."),
                io.String.Input(
                    "points",
                    default="",
                    tooltip='Points of the source in pixels, x from the left and y from the top, such as "120, 80; 40, '
                    '200". Empty where there is a mask.',
                ),
                io.Boolean.Input(
                    "mutual",
                    default=False,
                    tooltip="On keeps only what finds its way back: whose like in the source is where it came from. "
                    "Fewer matches, and surer ones.",
                ),
                io.Int.Input(
                    "earlier_frames",
                    default=7,
                    min=0,
                    max=64,
                    tooltip="Of a video: from how many frames before it a frame takes the mask, beside the first. "
                    "Raising it follows changes better, and drifts more.",
                ),
                DiTFeaturesType.Input("target", optional=True, tooltip="Where to look: any number of pictures."),
                io.Mask.Input("mask", optional=True, tooltip="A part of the source, to be found in the target."),
                io.Image.Input("source_image", optional=True, tooltip="For the picture with lines."),
                io.Image.Input("target_image", optional=True, tooltip="For the picture with lines."),
            ],
            outputs=[
                io.String.Output(
                    display_name="points", tooltip="Where the points are, a line for each picture of the target."
                ),
                io.Mask.Output(display_name="mask", tooltip="The mask in the target, a picture for each of its own."),
                io.Image.Output(
                    display_name="heat", tooltip="How alike each place is to the first point, or to the mask."
                ),
                io.Image.Output(display_name="lines", tooltip="Source and target side by side, with the matches."),
                io.String.Output(display_name="report", tooltip="Each match, how alike it is, and whether it returns."),
            ],
        )

    @classmethod
    def execute(
        cls,
        source: Features,
        points: str,
        mutual: bool,
        earlier_frames: int,
        target: Features | None = None,
        mask: Tensor | None = None,
        source_image: Tensor | None = None,
        target_image: Tensor | None = None,
    ) -> io.NodeOutput:
        require_matplotlib()
        require("earlier_frames", earlier_frames, 0, 64)
        places = parse_points(points, source)
        if not places and mask is None:
            raise ValueError("points: there are none, and no mask. Give points, connect a mask, or both.")
        others = _others(source, target)
        size, other = (source.height, source.width), (others.height, others.width)
        first = source.of(0)
        labels = None if mask is None else _labels(mask, source)
        found = [[matching.match(first, each, *place, size, other) for place in places] for each in others.values]
        kept = [
            {place: match for place, match in zip(places, matches, strict=True) if match.mutual or not mutual}
            for matches in found
        ]
        notes = []
        if labels is None:
            moved = torch.zeros(len(others.values), *other)
            heats = [matches[0].heat for matches in found]
        else:
            if target is None:
                tokens = matching.follow(source.values, labels, earlier_frames)
                if mutual:
                    notes.append("mutual: it is for points here; a mask that is followed is taken as it comes.")
            else:
                tokens = torch.stack([matching.transfer(first, labels, each, mutual) for each in others.values])
            moved = torch.cat([matching.to_pixels(each, other) for each in tokens])
            heats = [matching.alike_to_mask(first, labels, each) for each in others.values]
        heat = torch.stack([heat_picture(each, other) for each in heats])
        images = source_image, source_image if target is None else target_image
        drawn = _lines(source, others, places, kept, images)
        where = "\n".join("; ".join(f"{match.x:.1f}, {match.y:.1f}" for match in each.values()) for each in kept)
        report = _report(source, others, places, found, None if labels is None else moved, notes)
        return io.NodeOutput(where, moved, heat, drawn, report)


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
    """Where to look."""
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
    """Of the source's first picture's tokens, (1, rows, columns)."""
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
