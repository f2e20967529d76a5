"""Which object perturbs a prediction, by the options' words."""

from collections.abc import Callable, Mapping, Sequence

import torch

from ...dit import BlockPerturbation
from ..massive_activations.perturbations import ReportedPerturbation
from ..perturbations.attention import BlurredAttention, BlurredWordAttention, IdentityAttention
from ..perturbations.blocks import SkippedBlock
from ..perturbations.tokens import BlurredTokens, ShuffledTokens
from .settings import Options, PerturbationKind

# What is done to a block.
BLOCKS: Mapping[PerturbationKind, Callable[[], BlockPerturbation]] = {
    "skipped block": SkippedBlock,
    "random blocks": SkippedBlock,
    "blurred tokens": BlurredTokens,
    "shuffled tokens": ShuffledTokens,
    "identity attention": IdentityAttention,
    "blurred attention": BlurredAttention,
    "blurred word attention": BlurredWordAttention,
}
RANDOM_SHARE = 0.1  # of the blocks, which S²-Guidance drops in each step (arXiv 2508.12880)


def perturbation_at(options: Options, block: int) -> ReportedPerturbation | BlockPerturbation:
    """What perturbs the prediction at a block."""
    if options.of_channels:
        return options.channels_at(block)
    return BLOCKS[options.perturbation]()


def blocks_of_step(options: Options, layers: Sequence[int], step: int) -> Sequence[int]:
    """The blocks that are perturbed in one step: all of the layers, or some of them at random, others in each step.

    Args:
        layers: numbers of successive blocks; the model's first block is among those at random only
            where there is no other.
        step: number of the guided step, of which the choice depends alone: equal runs are equal.
    """
    if options.perturbation != "random blocks":
        return layers
    candidates = [block for block in layers if block > 0] or list(layers)
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(step)).tolist()
    return sorted(candidates[n] for n in order[: max(1, round(RANDOM_SHARE * len(candidates)))])
