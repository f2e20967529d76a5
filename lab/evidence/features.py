"""12. What a block knows of a picture: whether the same part of a thing is found again by its features."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import objects
import perceptual
import photographs
import plain_modules  # noqa: F401
import torch
from finding import GREY, Finding, above, all_of, plots, save, table
from in_process import Pack
from judge import Estimate, Judge, estimate
from laboratory import Laboratory, Size
from pack.methods.features import matching
from torch import Tensor

TITLE = "12. Features: is the same part of a thing found again?"
SIDE = 256  # pixels: 16 × 16 tokens
POINTS = 10  # of each pair
NEAR = 0.1  # of the thing's longer side: what counts as found (PCK@0.1)
LEVELS, BLOCKS = (0.1, 0.26), (1, 3, 5, 7, 9)
DRAWS = 2
STRIDE_16 = 3  # which of the ordinary network's resolutions has one place for 16 pixels

# Inputs of the node: normalise, channels, maps.
RAW, MODULATED = "raw", "modulated"
DROPPED, MAPS = "modulated, massive channels dropped", "… and their maps appended"
LATENTS, ORDINARY = "the latents themselves", "an ordinary image network"
KINDS = {
    RAW: ("raw", "none", False),
    "raw, massive channels dropped": ("raw", "auto", False),
    MODULATED: ("modulated", "none", False),
    DROPPED: ("modulated", "auto", False),
    MAPS: ("modulated", "auto", True),
}


@dataclass(frozen=True)
class Pair:
    """The same object at two places, in two sizes, on two textures.

    Attributes:
        points: of the drawing, on the object, in its own pixels.
        side: the drawing's longer one.
    """

    first: objects.Placed
    second: objects.Placed
    points: list[tuple[float, float]]
    side: int

    @property
    def size(self) -> tuple[int, int]:
        """Of both pictures, in pixels."""
        height, width = self.first.mask.shape
        return height, width


def pairs_of(names: Sequence[str], count: int, textures: dict[str, Tensor], seed: int, side: int = SIDE) -> list[Pair]:
    """
    Args:
        side: of the pictures, in pixels; textures are enlarged for more than SIDE.
    """
    generator = torch.Generator().manual_seed(seed)

    def placed(name: str) -> objects.Placed:
        texture = list(textures.values())[int(torch.randint(len(textures), (), generator=generator))]
        crop = photographs.crops(texture, 1, generator, min(side, SIDE))
        large = torch.nn.functional.interpolate(crop, (side, side), mode="bilinear")[0]
        return objects.place(name, large, objects.random_size(generator), generator)

    made = []
    for number in range(count):
        name = names[number % len(names)]
        drawing = objects.drawing(name)
        rows, columns = np.nonzero(np.asarray(drawing.getchannel("A")) > 200)
        chosen = torch.randint(len(rows), (POINTS,), generator=generator).tolist()
        points = [(float(columns[at]) + 0.5, float(rows[at]) + 0.5) for at in chosen]
        made.append(Pair(placed(name), placed(name), points, max(drawing.size)))
    return made


def found(pairs: list[Pair], features: Tensor) -> np.ndarray:
    """The share of each pair's points that are found; features (2 · pairs, channels, rows, columns)."""
    shares = []
    for number, pair in enumerate(pairs):
        source, target = features[2 * number], features[2 * number + 1]
        hits = []
        for x, y in pair.points:
            at, expected = (
                (each.left + each.scale * x, each.top + each.scale * y) for each in (pair.first, pair.second)
            )
            match = matching.match(source, target, *at, pair.size, pair.size)
            away = np.hypot(match.x - expected[0], match.y - expected[1])
            hits.append(away <= NEAR * pair.side * pair.second.scale)
        shares.append(np.mean(hits))
    return np.array(shares)


def by_chance(pairs: list[Pair]) -> np.ndarray:
    """The share of the picture that counts as found."""
    return np.array([np.pi * (NEAR * pair.side * pair.second.scale) ** 2 / np.prod(pair.size) for pair in pairs])


def overlaps(pairs: list[Pair], features: Tensor) -> np.ndarray:
    """Intersection over union of each pair's second mask and the first one's, transferred."""
    result = []
    for number, pair in enumerate(pairs):
        source, target = features[2 * number], features[2 * number + 1]
        labels = matching.tokens_of_mask(pair.first.mask, source.shape[1:])
        moved = matching.to_pixels(matching.transfer(source, labels, target), pair.size)[0] > 0.5
        truth = pair.second.mask > 0.5
        result.append(float((moved & truth).sum() / (moved | truth).sum()))
    return np.array(result)


@dataclass(frozen=True)
class Scene:
    """Pairs, as a model's autoencoder gives them, and what shows them to the model."""

    pack: Pack
    model: Any
    vae: Any
    nothing: Any  # an empty prompt's conditioning
    pairs: list[Pair]
    latents: Tensor

    @classmethod
    def of(cls, pack: Pack, model: Any, clip: Any, vae: Any, pairs: list[Pair]) -> "Scene":
        pictures = [each.picture for pair in pairs for each in (pair.first, pair.second)]
        latents = torch.cat([vae.encode(picture.permute(1, 2, 0)[None]) for picture in pictures])
        return cls(pack, model, vae, clip.encode_from_tokens_scheduled(clip.tokenize("")), pairs, latents)

    def features(self, layer: float, level: float, kind: str) -> Tensor:
        """(2 · pairs, channels, rows, columns)."""
        normalise, channels, maps = KINDS[kind]
        looked = {"model": self.model, "vae": self.vae, "positive": self.nothing, "latent": {"samples": self.latents}}
        how = {"normalise": normalise, "channels": channels, "maps": maps}
        return self.pack.run("DiTFeatures", **looked, **how, layer=layer, noise_level=level, draws=DRAWS).values

    def ordinary(self) -> Tensor:
        """Of the network that judges pictures, at one place for 16 pixels."""
        pictures = [each.picture for pair in self.pairs for each in (pair.first, pair.second)]
        seen = [
            perceptual.features(picture.permute(1, 2, 0)[None].numpy())[STRIDE_16].contiguous() for picture in pictures
        ]
        return torch.cat(seen)


def pictures(size: Size) -> int:
    return 2 * len(KINDS) * (size.few // 2 * len(LEVELS) * len(BLOCKS) + size.half)


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    size, name = laboratory.size, laboratory.objects
    loaded = laboratory.model(name), laboratory.clip(name), laboratory.autoencoder.vae
    choosing, judging = (
        Scene.of(laboratory.pack, *loaded, pairs_of(names, count, laboratory.textures, seed))
        for names, count, seed in ((objects.TRAINED, size.few // 2, 1), (objects.UNSEEN, size.half, 2))
    )

    def seen(scene: Scene, kind: str, level: float, block: int) -> Tensor:
        laboratory.advance(2 * len(scene.pairs))
        return scene.features((block + 0.5) / laboratory.depth(name), level, kind)

    # Each kind at the place that is best for it.
    grids = {
        kind: {
            (level, block): found(choosing.pairs, seen(choosing, kind, level, block)).mean()
            for level, block in itertools.product(LEVELS, BLOCKS)
        }
        for kind in KINDS
    }
    chosen = {kind: max(grid, key=grid.__getitem__) for kind, grid in grids.items()}
    features = {kind: seen(judging, kind, *chosen[kind]) for kind in KINDS}
    features |= {LATENTS: torch.nn.functional.avg_pool2d(judging.latents, 2), ORDINARY: judging.ordinary()}
    shares = {kind: found(judging.pairs, each) for kind, each in features.items()}
    masks = {kind: overlaps(judging.pairs, each) for kind, each in features.items()}
    chance = by_chance(judging.pairs)

    def gain(kind: str, other: str) -> Estimate:
        return estimate(shares[kind] - shares[other])

    gains = [gain(MODULATED, RAW), gain(DROPPED, MODULATED)]
    over_chance, over_latents = estimate(shares[DROPPED] - 3 * chance), gain(DROPPED, LATENTS)
    over_ordinary, of_maps = gain(DROPPED, ORDINARY), gain(MAPS, DROPPED)
    verdicts = {
        "Raw < modulated < channels dropped": (
            all_of(*(above(each, 0.0) for each in gains)),
            f"Modulating finds {gains[0].signed} more of the points, dropping the channels then {gains[1].signed}.",
        ),
        "More than three times what chance finds": (
            above(over_chance, 0.0),
            f"{estimate(shares[DROPPED]).percent} against {chance.mean():.0%}.",
        ),
        "More than the latents themselves say": (above(over_latents, 0.0), f"{over_latents.signed}."),
        "The massive channels' maps help": (above(of_maps, 0.0), f"{of_maps.signed} with them."),
        "Better than an ordinary image network": (
            above(over_ordinary, 0.0),
            f"{over_ordinary.signed} against an EfficientNet-Lite0's features, one for 16 pixels as here.",
        ),
    }
    rows = [
        [
            kind,
            "block {1}, {0:g}".format(*chosen[kind]) if kind in chosen else "",
            estimate(shares[kind]).percent,
            f"{estimate(masks[kind])}",
        ]
        for kind in features
    ]
    rows.append(["chance", "", f"{chance.mean():.0%}", ""])
    return Finding(
        TITLE,
        "on FLUX.1-dev 29.9 % of SPair-71k's points are found within 0.1 of the object's size (PCK@0.1) by a block's "
        "raw input, 65.3 % after its AdaLN's scale and shift, 67.1 % with the massive channels dropped before ([DiTF], "
        "arXiv 2505.18584).",
        f"The model of objects, {SIDE} × {SIDE} pixels, an empty prompt, {DRAWS} draws of noise. The same drawing "
        "twice: at two places, in two sizes, on two textures, so that the truth is known. Block and noise level are "
        f"chosen for each kind by {size.few // 2} pairs of objects that the model was trained on; the table is of "
        f"{size.half} pairs of objects that it never saw, {POINTS} points each. *Mask*: intersection over union of the "
        "second drawing and the first one's mask, transferred by `MatchFeatures`.",
        verdicts,
        [
            table(["features", "chosen", "points found (PCK@0.1)", "mask"], rows),
            table(
                [f"{DROPPED}: noise level", *(f"block {each}" for each in BLOCKS)],
                [[f"{at:g}", *(f"{grids[DROPPED][at, each]:.0%}" for each in BLOCKS)] for at in LEVELS],
            ),
        ],
        [_draw(shares, folder)],
    )


def _draw(shares: dict[str, np.ndarray], folder: Path) -> str:
    figure, ((axes,),) = plots(1)
    estimates = [estimate(each) for each in shares.values()]
    means = np.array([each.mean for each in estimates])
    errors = np.array([[each.mean - each.low, each.high - each.mean] for each in estimates]).T
    axes.barh(range(len(means)), means, xerr=errors, color=GREY)
    axes.set(yticks=range(len(means)), xlabel="points found, of objects never seen")
    axes.set_yticklabels(list(shares), fontsize=9)
    axes.invert_yaxis()
    return save(figure, folder, "12-features.png")
