"""What one model is made of: its family, its network and its blocks."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

from . import families
from .family import Block, Family
from .token_layout import token_grid


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What one model is made of.

    Attributes:
        network: the diffusion model, without the torch.compile around it.
        family: the network's row of the table.
        blocks: all blocks in execution order; their numbers are 0 … L − 1.
    """

    network: Any
    family: Family
    blocks: tuple[Block, ...]

    @property
    def block_names(self) -> list[str]:
        """The blocks' names for people."""
        return [block.name for block in self.blocks]

    def block(self, number: int) -> Any:
        """The network's module of a block."""
        block = self.blocks[number]
        return block.stage.block_in(self.network, block.key[1])

    def token_grid(self, tokens: int, latent: Sequence[int]) -> tuple[int, ...]:
        """Frames (of a video), rows and columns of the image tokens of a latent (rows, channels, …, height, width).

        Args:
            tokens: number of image tokens of one picture; needed where the table does not count image tokens.

        Raises:
            ValueError: the table does not count them, and no usual patch size gives so many.
        """
        if self.family.patch_size is not None:
            return token_grid(latent, self.family.patch_size(self.network))
        *frames, height, width = latent[2:]
        for side, in_time in itertools.product((1, 2, 4, 8), (1, 2, 4)):
            grid = *(ceil(each / in_time) for each in frames), ceil(height / side), ceil(width / side)
            if prod(grid) == tokens:
                return grid
        raise ValueError(
            f"Where {tokens} tokens lie in a latent of {tuple(latent[2:])} cannot be told: there is no map."
        )


def anatomy_of(model: Any) -> Anatomy:
    """The anatomy of a ModelPatcher's model.

    Raises:
        ValueError: no row of the table fits the model.
    """
    diffusion_model = model.get_model_object("diffusion_model")
    network = getattr(diffusion_model, "_orig_mod", diffusion_model)
    family = family_of(network)
    return Anatomy(network, family, _blocks(family, network))


def family_of(network: Any) -> Family:
    """The row of the table for a network of the host's.

    Raises:
        ValueError: no row fits; the message names the network and the supported families.
    """
    name = f"{type(network).__module__}.{type(network).__qualname__}".removeprefix("comfy.ldm.")
    for family in families.FAMILIES:
        if name in family.model_classes and family.when(network):
            return family
    names = sorted({family.name for family in families.FAMILIES})
    raise ValueError(
        f"Detail Guidance cannot patch this model: its network is {type(network).__name__}. "
        f"Supported: {', '.join(names)}."
    )


def _blocks(family: Family, network: Any) -> tuple[Block, ...]:
    blocks = []
    for stage in family.stages:
        last = len(stage.list_in(network)) - 1
        blocks += [Block((stage.kind, index), stage, index == 0, index == last) for index in range(last + 1)]
    return tuple(blocks)
