"""What every experiment works with: the reference models in the real host, prompts, noise, pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import photographs
import plain_modules  # noqa: F401
import torch
from in_process import Pack, reference_model
from pack.methods.common.layers import block_at
from references import Autoencoder
from torch import Tensor
from weakened import WHOLE, Window

import comfy.samplers  # isort: skip
import nodes as comfy_nodes  # isort: skip

BATCH = 43
LATENT = (16, 16, 16)
CFG = 3.0

Pairs = range  # numbers of prompt–seed pairs: the prompt follows from the number, which is the seed
JUDGING = 10_000  # pairs from here on have chosen nothing: other prompts than those before, and other noise


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        primary: prompt–seed pairs of the primary outcomes.
        half, few: of other judged comparisons; of each setting of a choice.
        crossed: prompts, and noises of each of them, in the decomposition of variance.
        teacher: real pictures that are noised.
        reals: real pictures that the features' judge is fitted to.
        steps: of sampling.
    """

    primary: int
    half: int
    few: int
    crossed: tuple[int, int]
    teacher: int
    reals: int
    steps: int


FULL = Size(primary=126, half=63, few=42, crossed=(16, 8), teacher=129, reals=860, steps=20)
QUICK = Size(primary=6, half=6, few=6, crossed=(3, 2), teacher=6, reals=129, steps=4)


class Laboratory:
    """
    Attributes:
        textures: photographs by prompt.
        deep, shallow, objects: the reference models' names.
        advance: told of each picture that was sampled.
    """

    def __init__(self, size: Size, pack: Pack):
        self.size = size
        self.pack = pack
        self.textures = photographs.load()
        self.advance: Callable[[int], object] = lambda pictures: None
        self._reference = reference_model()
        self.deep, self.shallow = self._reference.DEEP, self._reference.SHALLOW
        self.objects = self._reference.OBJECTS
        self.autoencoder = Autoencoder(self._reference, self.textures)

    def prompt(self, pair: int) -> str:
        """Every second texture is for choosing, the others for judging."""
        names = list(self.textures)[pair >= JUDGING :: 2]
        return names[pair % len(names)]

    def model(self, name: str | Path | None = None) -> Any:
        """One object for each: hooks on it are hooks on what is sampled. A name, or a file that a training has kept."""
        return self._model(name or self.deep)

    @cache  # noqa: B019  there is one laboratory
    def _model(self, name: str | Path) -> Any:
        return self._reference.load_model(name)

    @cache  # noqa: B019
    def clip(self, name: str | Path) -> Any:
        return self._reference.load_clip(name)

    def depth(self, name: str | Path | None = None) -> int:
        return len(self.model(name).model.diffusion_model.joint_blocks)

    def block(self, name: str | Path | None = None) -> int:
        """The block that the nodes' default layer names."""
        return block_at(self.default("DetailGuidance", "layer_start"), self.depth(name))

    def conditioning(self, prompts: list[str], name: str | Path | None = None) -> list[Any]:
        """One conditioning for a batch: each picture has its own prompt."""
        clip = self.clip(name or self.deep)
        each = [comfy_nodes.CLIPTextEncode().encode(clip, prompt)[0][0] for prompt in prompts]
        pooled = torch.cat([extra["pooled_output"] for _, extra in each])
        return [[torch.cat([context for context, _ in each]), {"pooled_output": pooled, "prompts": prompts}]]

    def denoised(self, name: str | Path, x: Tensor, sigma: Tensor, prompts: list[str]) -> Tensor:
        """A model's conditional prediction, without sampling."""
        ((context, extra),) = self.conditioning(prompts, name)
        return self.model(name).model.apply_model(x, sigma, c_crossattn=context, y=extra["pooled_output"])

    def latents(
        self, model: Any, pairs: Pairs, cfg: float = CFG, steps: int | None = None, name: str | Path | None = None
    ) -> Tensor:
        """Sampled by Euler's method, each from the noise of its number."""
        prompts = [self.prompt(pair) for pair in pairs]
        noise = torch.stack([torch.randn(LATENT, generator=torch.Generator().manual_seed(pair)) for pair in pairs])
        return self.sampled(model, prompts, noise, cfg, steps, name)

    def sampled(
        self,
        model: Any,
        prompts: list[str],
        noise: Tensor,
        cfg: float = CFG,
        steps: int | None = None,
        name: str | Path | None = None,
    ) -> Tensor:
        result = []
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps or self.size.steps)
        sampler = comfy.samplers.sampler_object("euler")
        for first in range(0, len(noise), BATCH):
            part = noise[first : first + BATCH]
            guider = comfy.samplers.CFGGuider(model)
            positive = self.conditioning(prompts[first : first + BATCH], name)
            guider.set_conds(positive, self.conditioning([""], name))
            guider.set_cfg(cfg)
            result.append(guider.sample(part, torch.zeros_like(part), sampler, sigmas, disable_pbar=True))
            self.advance(len(part))
        return torch.cat(result)

    def pictures(self, model: Any, pairs: Pairs, **arguments: Any) -> np.ndarray:
        """The same, decoded: (pairs, height, width, 3), 0 to 1."""
        return self.autoencoder.decoded(self.latents(model, pairs, **arguments))

    def detail_guidance(
        self, name: str | Path | None = None, options: dict[str, Any] | None = None, **settings: Any
    ) -> Any:
        """A reference model with this pack's node; what is not given is the node's default."""
        chosen = self.pack.run("DetailGuidanceOptions", **(options or {}))
        return self.pack.run("DetailGuidance", model=self.model(name), options=chosen, **settings)

    def at(
        self,
        block: int,
        w: float,
        options: dict[str, Any] | None = None,
        name: str | Path | None = None,
        window: Window = WHOLE,
    ) -> Any:
        """The same, at one block, in a part of the schedule."""
        layer = block / self.depth(name)
        place = {"layer_start": layer, "layer_end": layer, "start_percent": window[0], "end_percent": window[1]}
        return self.detail_guidance(name, options, dg_scale=w, **place)

    def default(self, node: str, name: str) -> Any:
        """The default of one of the pack's inputs."""
        return next(i.default for i in self.pack.classes[node].GET_SCHEMA().inputs if i.id == name)


def choosing(count: int) -> Pairs:
    return range(count)


def judging(count: int) -> Pairs:
    return range(JUDGING, JUDGING + count)
