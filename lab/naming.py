"""What a picture of a drawing shows, named by a network: a linear layer on EfficientNet-Lite0's features.

It is fitted to drawn scenes of one thing each, as the autoencoder gives them back, so that the decoder's look is no
clue.
"""

from collections.abc import Iterator
from itertools import count

import drawings
import numpy as np
import perceptual
import torch
from torch import Tensor, nn

FITTED, CHECKED = 6, 2  # scenes of each thing
STEPS, RATE, DECAY = 300, 0.01, 1e-4


class Namer:
    """Names things among `drawings.THINGS`.

    Attributes:
        held_out: the share of drawn scenes named rightly that it was not fitted to.
    """

    def __init__(self, autoencoder: nn.Module) -> None:
        self.names = list(drawings.THINGS)
        inputs = _features(_pictures(autoencoder))
        things = torch.arange(len(self.names)).repeat_interleave(FITTED + CHECKED)
        fitted = torch.arange(len(inputs)) % (FITTED + CHECKED) < FITTED
        self.mean, self.deviation = inputs[fitted].mean(dim=0), inputs[fitted].std(dim=0) + 1e-6
        torch.manual_seed(0)
        self.layer = nn.Linear(inputs.shape[1], len(self.names))
        optimizer = torch.optim.AdamW(self.layer.parameters(), lr=RATE, weight_decay=DECAY)
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(self._scores(inputs[fitted]), things[fitted])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        named = self._scores(inputs[~fitted]).argmax(dim=1)
        self.held_out = (named == things[~fitted]).double().mean().item()

    @torch.inference_mode()
    def right(self, pictures: np.ndarray, things: list[str]) -> np.ndarray:
        """Whether each picture (n, height, width, 3), 0 to 1, is named rightly, (n,)."""
        named = self._scores(_features(pictures)).argmax(dim=1)
        return np.array([self.names[index] == thing for index, thing in zip(named.tolist(), things, strict=True)])

    def _scores(self, inputs: Tensor) -> Tensor:
        return self.layer((inputs - self.mean) / self.deviation)


@torch.inference_mode()
def _features(pictures: np.ndarray) -> Tensor:
    """What the network classifies by, of each picture, (n, features)."""
    parts = (pictures[first : first + perceptual.BATCH] for first in range(0, len(pictures), perceptual.BATCH))
    return torch.cat([perceptual.features(part)[-1].mean(dim=(2, 3)) for part in parts]).clone()


@torch.inference_mode()
def _pictures(autoencoder: nn.Module) -> np.ndarray:
    """Scenes of one thing each, FITTED + CHECKED of every thing in order, (n, height, width, 3)."""
    given_back = []
    for name in drawings.THINGS:
        scenes = _scenes_of(name)
        drawn = torch.stack([drawings.draw(next(scenes))[0] for _ in range(FITTED + CHECKED)])
        numbers = autoencoder.taesd_encoder(drawn.to(memory_format=torch.channels_last))
        given_back.append(autoencoder.taesd_decoder(numbers).clamp(0, 1).permute(0, 2, 3, 1).float().numpy())
    return np.concatenate(given_back)


def _scenes_of(name: str) -> Iterator[drawings.Scene]:
    """Random scenes of one thing; other seeds than those of scenes to train a diffusion model on."""
    for seed in count():
        scene = drawings.random_scene(np.random.default_rng([11, list(drawings.THINGS).index(name), seed]), [name] * 3)
        if len(scene.placed) == 1:
            yield scene
