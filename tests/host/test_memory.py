"""Peak memory, counted: bytes of all tensors alive after each operation of a step, the weights left out."""

import pytest
import torch
from comparison import PLANS
from family_models import CASES, load, normal
from sampling import detail_guider, sample, stock_guider
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Peak(TorchDispatchMode):
    """The most bytes that tensors made under it held at one time."""

    def __init__(self):
        super().__init__()
        self.alive = {}
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        inputs = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        for leaf in tree_leaves(out):
            if torch.is_tensor(leaf) and leaf.untyped_storage()._cdata not in inputs:
                storage = leaf.untyped_storage()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {key: value for key, value in self.alive.items() if not value[0].expired()}
        self.bytes = max(self.bytes, sum(size for _, size in self.alive.values()))
        return out


def peak(guider, noise):
    sample(guider, noise=noise, steps=1)  # what the host keeps from a first run is not counted
    with Peak() as memory:
        sample(guider, noise=noise, steps=1)
    return memory.bytes


# Larger pictures than elsewhere: beside a few tokens, everything is large.
LATENTS = {"Flux": (16, 32, 32), "Lumina 2": (16, 32, 32), "Wan text to video": (16, 5, 16, 16)}


@PLANS
@pytest.mark.parametrize("name", LATENTS)
def test_peak_memory(pack, name, batching):
    """In turn: one hidden state of the conditional rows above CFG's. Together: half of CFG's activations."""
    case, patcher, batch = CASES[name], load(name), 2
    noise = normal(5, batch, *LATENTS[name])
    inputs = {"positive": case.conditioning(1), "negative": case.conditioning(2)}
    of_cfg = peak(stock_guider(patcher, **inputs), noise)
    options = {"massive_ratio": 1.0, "batching": batching}
    of_detail = peak(detail_guider(pack, patcher, options, layer_start=0.5, layer_end=0.5, **inputs), noise)
    tokens = noise[0, 0].numel() // 4 + case.text
    hidden_state = batch * tokens * 64 * 4  # width 64, float32
    predictions = 4 * noise.nbytes  # D, D_m, their difference, the formula's sum
    if batching == "in turn":
        assert of_detail - of_cfg <= hidden_state + predictions
    else:
        assert of_detail <= 1.5 * of_cfg + predictions
