"""13. Where things are: masks of words and of the foreground against the true ones."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import objects
import photographs
import torch
from finding import BLUE, GREY, Finding, above, plots, save, strips, table
from in_process import Pack
from judge import Estimate, Judge, estimate
from laboratory import Laboratory, Size
from torch import Tensor
from torch.nn.functional import interpolate

import comfy.utils  # isort: skip
import nodes as comfy_nodes  # isort: skip

TITLE = "13. Where: do attention and massive channels show where a thing is?"
SIDE = photographs.PICTURE
LEVELS, BLOCKS = (0.3, 0.6), range(10)
AFTER = (1, 2, 5, 10, 15, 20)  # steps
IN_SAMPLING = (2, 5, 7)  # blocks that are tried there
DENOISE, STEPS, SCALE = 0.6, 20, 0.5  # of the pictures that are sampled anew from the middle of the schedule
FACTOR = 3.0  # inside the object against outside: what issue and page call "on the object"
CLOSE = 0.05  # two overlaps that a user could take for each other
CHANNELS = (1, 8)  # of the largest; 8 is Foreground's default


@dataclass(frozen=True)
class Scene:
    """A drawing on a texture, and its name.

    Attributes:
        words: Prompt Words' inputs.
    """

    placed: objects.Placed
    words: dict[str, str]

    @property
    def image(self) -> Tensor:
        return self.placed.picture.permute(1, 2, 0)[None]

    @property
    def truth(self) -> Tensor:
        return self.placed.mask > 0.5


def scenes_of(count: int, textures: dict[str, Tensor], seed: int) -> list[Scene]:
    generator = torch.Generator().manual_seed(seed)
    scenes = []
    for number in range(count):
        name = objects.TRAINED[number % len(objects.TRAINED)]
        texture = list(textures)[int(torch.randint(len(textures), (), generator=generator))]
        crop = photographs.crops(textures[texture], 1, generator)[0]
        placed = objects.place(name, crop, objects.random_size(generator), generator)
        scenes.append(Scene(placed, {"text": objects.prompt_of(name, texture), "words": name}))
    return scenes


def overlap(mask: Tensor, truth: Tensor) -> float:
    """Intersection over union."""
    found = mask > 0.5
    return float((found & truth).sum() / (found | truth).sum())


def salient(image: Tensor) -> Tensor:
    """What stands out by colour alone: further from the picture's mean than a threshold that parts the distances best
    (Otsu's)."""
    distance = (image[0] - image.mean(dim=(1, 2))[0]).norm(dim=-1)
    candidates = distance.flatten().quantile(torch.linspace(0.02, 0.98, 49))

    def between(threshold: Tensor) -> float:
        above = distance > threshold
        share = above.float().mean()
        return float(share * (1 - share) * (distance[above].mean() - distance[~above].mean()).square())

    return (distance > max(candidates, key=between)).float()


@dataclass(frozen=True)
class Aimed:
    """Mean absolute change of a picture inside and outside the true object, and the mask that was used, where the run
    made one."""

    inside: float
    outside: float
    mask: Tensor | None


@dataclass
class States:
    """Keeps what every block is given."""

    sigmas: list[float] = field(default_factory=list)
    seen: dict[int, list[Tensor]] = field(default_factory=dict)

    def on_block(self, number: int, given: Any) -> None:
        self.seen.setdefault(number, []).append(given.image.float().clone())


@dataclass(frozen=True)
class Reader:
    """The nodes, on one model."""

    pack: Pack
    model: Any
    clip: Any
    vae: Any

    def region(self, scene: Scene, layer: float, foreground: bool) -> tuple[Any, Any]:
        """Words or the foreground, and the prompt's conditioning."""
        words, positive = self.pack.outputs("PromptWords", clip=self.clip, **scene.words, layer=layer).args
        return (self.pack.run("DetailForeground", layer=layer) if foreground else words), positive

    def mask(self, scene: Scene, layer: float, level: float, foreground: bool = False) -> Tensor:
        """A hard one of the noised picture, (height, width)."""
        words, positive = self.region(scene, layer, foreground)
        given = {"model": self.model, "vae": self.vae, "words": words, "positive": positive, "image": scene.image}
        return self.pack.outputs("PromptWordMask", **given, noise_level=level, softness=0.0).args[0][0]

    def sampled_anew(self, scene: Scene, model: Any, positive: Any) -> Tensor:
        """The scene from the middle of the schedule on, (height, width, 3)."""
        (negative,) = comfy_nodes.CLIPTextEncode().encode(self.clip, "")
        latent = {"samples": self.vae.encode(scene.image)}
        sampling = (1, STEPS, 3.0, "euler", "simple", positive, negative, latent, DENOISE)
        (samples,) = comfy_nodes.KSampler().sample(model, *sampling)
        return self.vae.decode(samples["samples"])[0]

    def aimed(self, scene: Scene, layer: float, options: Callable[[Any], dict[str, Any]]) -> Aimed:
        """Detail Guidance, while the scene is sampled anew, with options that may use its words."""
        words, positive = self.region(scene, layer, False)
        chosen = self.pack.run("DetailGuidanceOptions", **options(words))
        guided = self.pack.run("DetailGuidance", model=self.model, options=chosen, dg_scale=SCALE)
        with self.pack.reports() as reports:
            with_detail = self.sampled_anew(scene, guided, positive)
        difference = (with_detail - self.sampled_anew(scene, self.model, positive)).abs().mean(dim=-1)
        change = float(difference[scene.truth].mean()), float(difference[~scene.truth].mean())
        (report,) = reports
        if report.mask is None:
            return Aimed(*change, None)
        shown = interpolate(
            torch.tensor(report.mask, dtype=torch.float32)[None, None] / 100, (SIDE, SIDE), mode="bilinear"
        )
        return Aimed(*change, shown[0, 0])

    def by_step(self, scene: Scene, layer: float) -> np.ndarray:
        """How the word's hard mask overlaps the truth while the scene is sampled anew, (steps, 2): the mask of each
        step alone, and of the mean of the steps so far."""
        words, positive = self.region(scene, layer, False)
        seen: list[Tensor] = []
        watched = self.pack.module("methods.regions.reader").read_each_step(self.model, words, seen.append)
        self.sampled_anew(scene, watched, positive)
        hard = self.pack.module("methods.regions.masks").soft_masks

        def overlapping(maps: Tensor) -> float:
            return overlap(hard(interpolate(maps, (SIDE, SIDE), mode="bilinear"), 0.0)[0, 0], scene.truth)

        means = [torch.stack(seen[: number + 1]).mean(dim=0) for number in range(len(seen))]
        return np.array([[overlapping(maps), overlapping(mean)] for maps, mean in zip(seen, means, strict=True)])

    def states(self, scene: Scene, level: float) -> dict[int, Tensor]:
        """What each block is given of the noised picture: (draws, tokens, channels)."""
        _, positive = self.region(scene, 0.0, False)
        states = States()
        watched = self.pack.module("dit").observed(self.model, states)
        for _ in self.pack.module("dit").forward_noised(watched, positive, self.vae.encode(scene.image), level, 4, 0):
            pass
        return {block: torch.cat(seen) for block, seen in states.seen.items()}

    def value_norms(self, scene: Scene, level: float) -> np.ndarray:
        """Of each block's attention, the mean norm of the prompt's values over that of the picture's, (blocks,)."""
        _, positive = self.region(scene, 0.0, False)
        length, ratios = positive[0][0].shape[1], []

        def noting(attention: Callable, q: Tensor, k: Tensor, v: Tensor, *rest: Any, **more: Any) -> Any:
            norms = (v.transpose(1, 2).flatten(2) if more.get("skip_reshape") else v).norm(dim=-1)
            ratios.append(float(norms[:, :length].mean() / norms[:, length:].mean()))
            return attention(q, k, v, *rest, **more)

        model = self.model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = noting
        for _ in self.pack.module("dit").forward_noised(model, positive, self.vae.encode(scene.image), level, 1, 0):
            pass
        return np.array(ratios)

    def divided(self, z: Tensor, channels: slice) -> Tensor:
        """A hard mask of the foreground by some of the channels, ranked by magnitude."""
        largest = self.pack.module("methods.regions.foreground").largest_channels(z, z.shape[-1])
        side = math.isqrt(z.shape[1])
        near = self.pack.module("methods.regions.foreground").nearness(largest[:, channels].unflatten(-1, (side, side)))
        return (interpolate(near.mean(dim=0, keepdim=True)[:, :1], (SIDE, SIDE), mode="bilinear")[0, 0] > 0.5).float()


Grid = dict[tuple[float, int], float]  # noise level and block → mean overlap


def pictures(size: Size) -> int:
    return (len(LEVELS) * (len(BLOCKS) + 2) + 5 + len(IN_SAMPLING)) * (size.few // 2) + 4 * size.half


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    size, name = laboratory.size, laboratory.objects
    comfy.utils.set_progress_bar_enabled(False)  # the page has its own
    reader = Reader(laboratory.pack, laboratory.model(name), laboratory.clip(name), laboratory.autoencoder.vae)
    choosing, judging = (
        scenes_of(count, laboratory.textures, seed) for count, seed in ((size.few // 2, 1), (size.half, 2))
    )

    def layer(block: int) -> float:
        return (block + 0.5) / laboratory.depth(name)

    def each(scenes: list[Scene], does: Callable[[Scene], Any]) -> list[Any]:
        laboratory.advance(len(scenes))
        return [does(scene) for scene in scenes]

    def mean_overlap(masks: list[Tensor]) -> float:
        return float(np.mean([overlap(mask, scene.truth) for mask, scene in zip(masks, choosing, strict=True)]))

    of_words = {
        (at, block): mean_overlap(
            each(choosing, lambda scene, at=at, block=block: reader.mask(scene, layer(block), at))
        )
        for at, block in itertools.product(LEVELS, BLOCKS)
    }
    norms = {at: np.mean(each(choosing, lambda scene, at=at: reader.value_norms(scene, at)), axis=0) for at in LEVELS}
    states = {at: each(choosing, lambda scene, at=at: reader.states(scene, at)) for at in LEVELS}
    of_channels = {
        (at, block): mean_overlap([reader.divided(z[block], slice(CHANNELS[-1])) for z in states[at]])
        for at, block in itertools.product(LEVELS, BLOCKS)
    }
    by_norm = {(at, int(norms[at].argmax())): float(norms[at].max()) for at in LEVELS}
    (level, block), (its_level, its_block) = (max(grid, key=grid.__getitem__) for grid in (of_words, of_channels))

    found = each(judging, lambda scene: reader.mask(scene, layer(block), level))
    divided = each(judging, lambda scene: reader.mask(scene, layer(its_block), its_level, foreground=True))
    seen = each(judging, lambda scene: reader.states(scene, its_level)[its_block])
    masks = {
        "the word's attention": found,
        f"the foreground, by the {CHANNELS[-1]} largest channels": divided,
        "by the largest channel alone": [reader.divided(z, slice(CHANNELS[0])) for z in seen],
        f"by {CHANNELS[-1]} ordinary channels": [reader.divided(z, _ordinary(z)) for z in seen],
        "what stands out by colour": each(judging, lambda scene: salient(scene.image)),
        "everything": [torch.ones(SIDE, SIDE)] * len(judging),
    }
    overlaps = {
        what: np.array([overlap(*both) for both in zip(these, [scene.truth for scene in judging], strict=True)])
        for what, these in masks.items()
    }
    word, foreground, _, ordinary, colour, _ = overlaps.values()

    few = judging[: size.few // 2]

    def aimed(scenes: list[Scene], block: int, options: Callable[[Any], dict[str, Any]]) -> list[Aimed]:
        return each(scenes, lambda scene: reader.aimed(scene, layer(block), options))

    def masks_in_sampling(block: int) -> float:
        return mean_overlap([one.mask for one in aimed(choosing, block, lambda words: {"words": words})])

    sampled = {block: masks_in_sampling(block) for block in IN_SAMPLING}
    best = max(sampled, key=sampled.__getitem__)
    steps = np.mean(each(choosing, lambda scene: reader.by_step(scene, layer(best))), axis=0)
    finished = iter(found)
    foreground_of = laboratory.pack.run("DetailForeground", layer=layer(its_block))
    ways = {
        "everywhere": aimed(few, best, lambda words: {}),
        "`words`: the word": aimed(few, best, lambda words: {"words": words}),
        "`words`: the foreground": aimed(few, best, lambda words: {"words": foreground_of}),
        "`mask`: the word in the finished picture": aimed(few, best, lambda words: {"mask": next(finished)[None]}),
    }
    ratios = {what: _ratio(changes) for what, changes in ways.items()}
    in_sampling = {
        what: estimate(np.array([overlap(one.mask, scene.truth) for one, scene in zip(changes, few, strict=True)]))
        for what, changes in ways.items()
        if changes[0].mask is not None
    }
    by_word, by_foreground = ratios["`words`: the word"], ratios["`words`: the foreground"]
    return Finding(
        TITLE,
        "in one block of a multimodal DiT the image tokens' attention to a word's tokens segments the picture "
        "([Seg4Diff], arXiv 2509.18096): block 9 of SD3 and SD3.5, 12 of FLUX.1, the one where the values of the text "
        "are large beside those of the picture. The few channels of greatest "
        "magnitude, in two clusters, give foreground and background (Few Channels, arXiv 2605.13974).",
        f"The model of objects: a drawing on a texture, {SIDE} × {SIDE} pixels, its prompt names both; the picture is "
        "noised and read by `PromptWordMask`, hard masks. Blocks and noise levels are chosen by "
        f"{size.few // 2} pictures (the word: block {block}, level {level:g}; the foreground: block {its_block}, "
        f"level {its_level:g}), the first table is of {size.half} others. *Aimed*: {len(few)} of them, sampled anew "
        f"(the word is read at block {best} of {', '.join(map(str, IN_SAMPLING))}, by the first ones' masks then) "
        f"from noise level {DENOISE:g} with Detail Guidance (w = {SCALE:g}, cfg 3): the mean change inside the true "
        "object over that outside, and the overlap of the run's own last mask.",
        {
            "Masks of words overlap the truth by more than a half": (above(estimate(word), 0.5), f"{estimate(word)}."),
            "So do masks of the foreground": (above(estimate(foreground), 0.5), f"{estimate(foreground)}."),
            "Words overlap it more than what stands out by colour does": (
                above(estimate(word - colour), 0.0),
                f"{estimate(word - colour).signed}.",
            ),
            "The block where the prompt's values are largest beside the picture's shows words best": (
                "holds" if all(of_words[at] > max(of_words.values()) - CLOSE for at in by_norm) else "contradicted",
                "; ".join(
                    f"at noise level {at:g} it is block {number} ({ratio:.2f}), whose masks overlap by "
                    f"{of_words[at, number]:.2f}; the best overlap is {max(of_words.values()):.2f}"
                    for (at, number), ratio in by_norm.items()
                )
                + ".",
            ),
            "The largest channels divide better than as many ordinary ones": (
                above(estimate(foreground - ordinary), 0.0),
                f"{estimate(foreground - ordinary).signed}.",
            ),
            f"Detail on the word changes the object at least {FACTOR:g} times as much as the rest": (
                above(by_word, FACTOR),
                f"{by_word} times; everywhere {ratios['everywhere']} times.",
            ),
            "So does detail on the foreground": (above(by_foreground, FACTOR), f"{by_foreground} times."),
        },
        [
            table(["mask", "intersection over union"], [[what, f"{estimate(o)}"] for what, o in overlaps.items()]),
            table(
                ["aimed by", "change inside over outside", "overlap of the mask"],
                [[what, f"{ratio}", f"{in_sampling.get(what, '')}"] for what, ratio in ratios.items()],
            ),
            table(
                ["the word's overlap (choosing) after step", *(f"{step}" for step in AFTER)],
                [
                    [what, *(f"{steps[step - 1, number]:.2f}" for step in AFTER)]
                    for number, what in enumerate(("by that step alone", "by the mean so far, which *Options* takes"))
                ],
            ),
            *(
                table(
                    [f"{what}, noise level", *(f"block {number}" for number in BLOCKS)],
                    [[f"{at:g}", *(f"{grid[at, number]:.2f}" for number in BLOCKS)] for at in LEVELS],
                )
                for what, grid in (("the word", of_words), ("the foreground", of_channels))
            ),
        ],
        [_strip(judging, found, divided, folder), _draw({"word": of_words, "foreground": of_channels}, folder)],
    )


def _ordinary(z: Tensor) -> slice:
    """As many channels from the middle of the ranks."""
    start = z.shape[-1] // 2
    return slice(start, start + CHANNELS[-1])


def _ratio(changes: list[Aimed]) -> Estimate:
    """Inside over outside, by bootstrap over scenes."""
    both = np.array([[each.inside, each.outside] for each in changes])
    drawn = np.random.default_rng(0).integers(len(both), size=(1000, len(both)))
    inside, outside = both[drawn].mean(axis=1).T
    whole = both.mean(axis=0)
    return Estimate(float(whole[0] / whole[1]), *np.percentile(inside / outside, [2.5, 97.5]))


def _strip(scenes: list[Scene], words: list[Tensor], foreground: list[Tensor], folder: Path) -> str:
    shown = range(min(9, len(scenes)))
    images = np.stack([scenes[number].image[0].numpy() for number in shown])

    def drawn(masks: list[Tensor]) -> np.ndarray:
        return np.stack([np.repeat(masks[number].numpy()[..., None], 3, axis=-1) for number in shown])

    rows = {"picture": images, "its word": drawn(words), "foreground": drawn(foreground)}
    return strips(rows, folder, "13-words.png")


def _draw(grids: dict[str, Grid], folder: Path) -> str:
    figure, ((axes,),) = plots(1)
    for (what, grid), colour in zip(grids.items(), (GREY, BLUE), strict=True):
        for level, line in zip(LEVELS, ("-o", "--s"), strict=True):
            overlaps = [grid[level, block] for block in BLOCKS]
            axes.plot(BLOCKS, overlaps, line, color=colour, label=f"{what}, noise level {level:g}")
    axes.set(xlabel="block", ylabel="intersection over union (choosing)", ylim=(0, 1))
    axes.legend(frameon=False)
    return save(figure, folder, "13-blocks.png")
