"""What every experiment works with: the reference models in the real host, prompts, noise, pictures."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from in_process import REFERENCE_MODEL, Pack, reference_model
from references import Autoencoder
from rooms import block_at
from torch import Tensor

import comfy.samplers  # isort: skip
import nodes as comfy_nodes  # isort: skip

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REFERENCE_MODEL))
import composites  # noqa: E402

DEPTHS = (2, 3, 4)
DEPTH = 4  # where nothing else is said
BATCH = 64
LATENT = (16, 16, 16)
CFG = 3.0


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        pairs, half, few: prompt–seed pairs of the main comparison, of the others, and of each setting of a sweep.
        prompts: of the decomposition of variance.
        reals: real pictures that the features' judges are fitted to.
        steps: of sampling.
    """

    pairs: int
    half: int
    few: int
    prompts: int
    reals: int
    steps: int


FULL = Size(pairs=128, half=96, few=48, prompts=1024, reals=2400, steps=20)
QUICK = Size(pairs=6, half=6, few=6, prompts=6, reals=96, steps=2)


class Laboratory:
    """
    Attributes:
        data: objects and textures; `prompts` is drawn from them once, an experiment takes the first so many.
        advance: told of each picture that was sampled.
    """

    def __init__(self, size: Size, pack: Pack):
        self.size = size
        self.pack = pack
        self.data = composites.load()
        drawn = self.data.prompts(2 * max(size.pairs, size.prompts), torch.Generator().manual_seed(1))
        self.prompts = list(dict.fromkeys(drawn))[: max(size.pairs, size.prompts)]  # all different
        self.advance: Callable[[int], object] = lambda pictures: None
        self._reference = reference_model()
        self.autoencoder = Autoencoder(self._reference, self.data.textures)

    def model(self, depth: int = DEPTH) -> Any:
        """One object for each depth: hooks on it are hooks on what is sampled."""
        return self._model(depth)

    @cache  # noqa: B019  there is one laboratory
    def _model(self, depth: int) -> Any:
        return self._reference.load_model(depth)

    @cache  # noqa: B019
    def _clip(self, depth: int) -> Any:
        return self._reference.load_clip(depth)

    def default_block(self, depth: int = DEPTH) -> int:
        """The block that the nodes' default layer names."""
        return block_at(self.default("DetailGuidance", "layer_start"), depth)

    def conditioning(self, prompts: list[str], depth: int = DEPTH) -> list[Any]:
        """One conditioning for a batch: each picture has its own prompt."""
        each = [comfy_nodes.CLIPTextEncode().encode(self._clip(depth), prompt)[0][0] for prompt in prompts]
        pooled = torch.cat([extra["pooled_output"] for _, extra in each])
        return [[torch.cat([context for context, _ in each]), {"pooled_output": pooled}]]

    def latents(self, model: Any, count: int, cfg: float = CFG, steps: int | None = None, depth: int = DEPTH) -> Tensor:
        """Sampled by Euler's method, a pair after the other: prompt n with noise of seed n."""
        result = []
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps or self.size.steps)
        sampler = comfy.samplers.sampler_object("euler")
        for first in range(0, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            noise = torch.stack(
                [torch.randn(LATENT, generator=torch.Generator().manual_seed(number)) for number in numbers]
            )
            guider = comfy.samplers.CFGGuider(model)
            positive = self.conditioning([self.prompts[number] for number in numbers], depth)
            guider.set_conds(positive, self.conditioning([""], depth))
            guider.set_cfg(cfg)
            result.append(guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True))
            self.advance(len(noise))
        return torch.cat(result)

    def pictures(self, model: Any, count: int, **arguments: Any) -> np.ndarray:
        """The same, decoded: (count, height, width, 3), 0 to 1."""
        return self.autoencoder.decoded(self.latents(model, count, **arguments))

    def detail_guidance(self, depth: int = DEPTH, options: dict[str, Any] | None = None, **settings: Any) -> Any:
        """The reference model with this pack's node; what is not given is the node's default."""
        chosen = self.pack.run("DetailGuidanceOptions", **(options or {}))
        return self.pack.run("DetailGuidance", model=self.model(depth), options=chosen, **settings)

    def default(self, node: str, name: str) -> Any:
        """The default of one of the pack's inputs."""
        return next(i.default for i in self.pack.classes[node].GET_SCHEMA().inputs if i.id == name)
