"""13. Where words are: masks of the model's own attention against the true ones."""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import objects
import photographs
import torch
from finding import GREY, Finding, above, plots, save, strips, table
from in_process import Pack
from judge import Estimate, Judge, estimate
from laboratory import Laboratory, Size
from torch import Tensor

import comfy.utils  # isort: skip
import nodes as comfy_nodes  # isort: skip

TITLE = "13. Words: does attention show where a thing is?"
SIDE = photographs.PICTURE
LEVELS, BLOCKS = (0.3, 0.6), range(10)
DENOISE, STEPS, SCALE = 0.6, 20, 0.5  # of the pictures that are sampled anew from the middle of the schedule
FACTOR = 3.0  # inside the object against outside: what issue and page call "on the object"


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
class Reader:
    """The nodes, on one model."""

    pack: Pack
    model: Any
    clip: Any
    vae: Any

    def prompt(self, scene: Scene, layer: float) -> Any:
        return self.pack.outputs("PromptWords", clip=self.clip, **scene.words, layer=layer).args

    def mask(self, scene: Scene, layer: float, level: float, softness: float = 0.0) -> Tensor:
        """(height, width)."""
        words, positive = self.prompt(scene, layer)
        given = {"model": self.model, "vae": self.vae, "words": words, "positive": positive, "image": scene.image}
        return self.pack.outputs("PromptWordMask", **given, noise_level=level, softness=softness).args[0][0]

    def sampled_anew(self, scene: Scene, model: Any, layer: float) -> Tensor:
        """The scene from the middle of the schedule on, (height, width, 3)."""
        _, positive = self.prompt(scene, layer)
        (negative,) = comfy_nodes.CLIPTextEncode().encode(self.clip, "")
        latent = {"samples": self.vae.encode(scene.image)}
        sampling = (1, STEPS, 3.0, "euler", "simple", positive, negative, latent, DENOISE)
        (samples,) = comfy_nodes.KSampler().sample(model, *sampling)
        return self.vae.decode(samples["samples"])[0]

    def change(self, scene: Scene, mask: Tensor | None, layer: float) -> tuple[float, float]:
        """How much Detail Guidance changes the scene inside and outside the true object, mean absolute difference."""
        options = {} if mask is None else {"mask": mask[None]}
        chosen = self.pack.run("DetailGuidanceOptions", **options)
        guided = self.pack.run("DetailGuidance", model=self.model, options=chosen, dg_scale=SCALE)
        pictures = (self.sampled_anew(scene, model, layer) for model in (guided, self.model))
        difference = torch.sub(*pictures).abs().mean(dim=-1)
        return float(difference[scene.truth].mean()), float(difference[~scene.truth].mean())


def pictures(size: Size) -> int:
    return len(LEVELS) * len(BLOCKS) * (size.few // 2) + size.half + 3 * (size.few // 2)


def run(laboratory: Laboratory, judge: Judge, folder: Path) -> Finding:
    size, name = laboratory.size, laboratory.objects
    comfy.utils.set_progress_bar_enabled(False)  # the page has its own
    reader = Reader(laboratory.pack, laboratory.model(name), laboratory.clip(name), laboratory.autoencoder.vae)
    choosing, judging = (
        scenes_of(count, laboratory.textures, seed) for count, seed in ((size.few // 2, 1), (size.half, 2))
    )

    def layer(block: int) -> float:
        return (block + 0.5) / laboratory.depth(name)

    def masks(scenes: list[Scene], block: int, level: float) -> list[Tensor]:
        laboratory.advance(len(scenes))
        return [reader.mask(scene, layer(block), level) for scene in scenes]

    grid = {
        (level, block): np.mean([overlap(*each) for each in zip(masks(choosing, block, level), truths, strict=True)])
        for truths in [[scene.truth for scene in choosing]]
        for level, block in itertools.product(LEVELS, BLOCKS)
    }
    level, block = max(grid, key=grid.__getitem__)
    found = masks(judging, block, level)
    overlaps = {
        "the word's attention": np.array([overlap(m, s.truth) for m, s in zip(found, judging, strict=True)]),
        "what stands out by colour": np.array([overlap(salient(s.image), s.truth) for s in judging]),
        "everything": np.array([float(s.truth.float().mean()) for s in judging]),
    }
    of_words = estimate(overlaps["the word's attention"])
    over_colour = estimate(overlaps["the word's attention"] - overlaps["what stands out by colour"])
    few = judging[: size.few // 2]
    changes = {}
    for what, given in {"with the word's mask": found, "without a mask": [None] * len(few)}.items():
        changes[what] = np.array([reader.change(s, m, layer(block)) for s, m in zip(few, given, strict=False)])
        laboratory.advance(len(few))
    ratios = {what: _ratio(each) for what, each in changes.items()}
    aimed = ratios["with the word's mask"]
    laboratory.advance(len(few))
    return Finding(
        TITLE,
        "in one block of a multimodal DiT the image tokens' attention to a word's tokens segments the picture "
        "([Seg4Diff], arXiv 2509.18096): block 9 of SD3 and SD3.5, 12 of FLUX.1.",
        f"The model of objects: a drawing on a texture, {SIDE} × {SIDE} pixels, its prompt names both; the picture is "
        "noised and read by `PromptWordMask`, hard masks. Block and noise level are chosen by "
        f"{size.few // 2} pictures (block {block}, level {level:g}), the table is of {size.half} others. *Aimed*: of "
        f"{len(few)} of them, sampled anew from noise level {DENOISE:g} with Detail Guidance (w = {SCALE:g}, cfg 3), "
        "the mean change inside the true object over that outside.",
        {
            "Masks of words overlap the truth by more than a half": (above(of_words, 0.5), f"{of_words}."),
            "More than what stands out by colour does": (above(over_colour, 0.0), f"{over_colour.signed}."),
            f"Detail on the word changes the object at least {FACTOR:g} times as much as the rest": (
                above(aimed, FACTOR),
                f"{aimed} times; without a mask {ratios['without a mask']} times.",
            ),
        },
        [
            table(
                ["mask", "intersection over union"], [[what, f"{estimate(each)}"] for what, each in overlaps.items()]
            ),
            table(
                ["noise level", *(f"block {each}" for each in BLOCKS)],
                [[f"{at:g}", *(f"{grid[at, each]:.2f}" for each in BLOCKS)] for at in LEVELS],
            ),
        ],
        [_strip(judging, found, folder), _draw(grid, folder)],
    )


def _ratio(changes: np.ndarray) -> Estimate:
    """Inside over outside, of (scenes, 2), by bootstrap over scenes."""
    drawn = np.random.default_rng(0).integers(len(changes), size=(1000, len(changes)))
    inside, outside = changes[drawn].mean(axis=1).T
    whole = changes.mean(axis=0)
    return Estimate(float(whole[0] / whole[1]), *np.percentile(inside / outside, [2.5, 97.5]))


def _strip(scenes: list[Scene], masks: list[Tensor], folder: Path) -> str:
    shown = range(min(9, len(scenes)))
    images = np.stack([scenes[number].image[0].numpy() for number in shown])
    found = np.stack([np.repeat(masks[number].numpy()[..., None], 3, axis=-1) for number in shown])
    return strips({"picture": images, "its word": found}, folder, "13-words.png")


def _draw(grid: dict[tuple[float, int], float], folder: Path) -> str:
    figure, ((axes,),) = plots(1)
    for level, line in zip(LEVELS, ("-o", "--s"), strict=True):
        axes.plot(BLOCKS, [grid[level, block] for block in BLOCKS], line, color=GREY, label=f"noise level {level:g}")
    axes.set(xlabel="block", ylabel="intersection over union (choosing)", ylim=(0, 1))
    axes.legend(frameon=False)
    return save(figure, folder, "13-blocks.png")
