"""Trainings that are interrupted."""

import pytest
import torch
from muon import Muon
from training import Training


def trained(file, steps, optimizer_of, stop=None):
    """Weights after `steps`; or nothing, stopped after `stop`."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 3)
    training = Training(file, steps, layer=layer, optimizer=optimizer_of(layer))
    training.WARM_UP, training.SAVED_EVERY = 4, 5
    for _ in training.steps():
        if training.step == stop:
            return None
        loss = (layer(torch.randn(8, 3)) - 1).square().mean()
        layer.zero_grad()
        loss.backward()
        training.parts["optimizer"].step()
        training.lost(loss)
    assert training.parts["optimizer"].param_groups[0]["lr"] < 0.004, "the rate has fallen"
    return layer.weight.detach()


OPTIMIZERS = [lambda layer: torch.optim.AdamW(layer.parameters(), lr=0.02), lambda layer: Muon([layer.weight], lr=0.02)]


@pytest.mark.parametrize("optimizer_of", OPTIMIZERS, ids=["AdamW", "Muon"])
def test_an_interrupted_training_gives_the_same_weights(tmp_path, optimizer_of):
    """Its learning rate falls as if it had not been interrupted."""
    expected = trained(tmp_path / "whole.pt", 20, optimizer_of)
    assert trained(tmp_path / "parts.pt", 20, optimizer_of, stop=12) is None
    assert torch.equal(trained(tmp_path / "parts.pt", 20, optimizer_of), expected)
