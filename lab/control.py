"""The fair control: ordinary channels, at random, that lose as much energy as massive ones."""

import torch
from torch import Tensor

MOST = 0.8  # of what ordinary channels hold: more could not be taken at random


def removed(energy: Tensor, massive: list[int]) -> float:
    """The share of a block's energy that the fair comparison takes from either kind of channel.

    Args:
        energy: mean z² of each channel, (channels,).
    """
    share = float(energy[massive].sum() / energy.sum())
    return min(share, MOST * (1 - share))


def ordinary(energy: Tensor, massive: list[int], seed: int) -> list[int]:
    """Ordinary channels at random that hold together this share."""
    wanted, chosen, held = removed(energy, massive) * float(energy.sum()), [], 0.0
    for channel in torch.randperm(len(energy), generator=torch.Generator().manual_seed(seed)).tolist():
        if channel not in massive and held + float(energy[channel]) / 2 < wanted:
            chosen.append(channel)
            held += float(energy[channel])
    return chosen
