"""Weights as their difference from others, in 4 bits: a repository keeps every byte that it was ever given.

    .host/venv/bin/python tests/reference_model/difference.py .host/training/10x192_…_objects/003500.safetensors

writes `weights/10x192_objects.safetensors`, a quarter of the size of both.
"""

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = Path(__file__).resolve().parent / "weights"
GROUP = 64  # numbers with one scale
MOST = 7  # of ± so many steps
STEPS, SCALES = ".steps", ".scales"


def difference(state: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices of the base's shape as steps of their difference from it; what differs otherwise as it is."""
    result = {}
    for name, value in state.items():
        before = base.get(name)
        if before is not None and torch.equal(value, before):
            continue
        if before is None or before.shape != value.shape or value.ndim != 2 or value.shape[1] % GROUP:
            result[name] = value
            continue
        change = (value.float() - before.float()).view(-1, GROUP)
        scales = (change.abs().amax(dim=1) / MOST).half()
        steps = (change / scales.float()[:, None].clamp_min(1e-12)).round().clamp(-MOST, MOST)
        low, high = (steps + MOST).byte().unflatten(1, (-1, 2)).unbind(-1)
        result[name + STEPS], result[name + SCALES] = low | high << 4, scales
    return result


def applied(changes: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights again."""
    state = base | {name: value for name, value in changes.items() if not name.endswith((STEPS, SCALES))}
    for name in (name.removesuffix(STEPS) for name in changes if name.endswith(STEPS)):
        packed = changes[name + STEPS]
        steps = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1).float() - MOST
        change = steps * changes[name + SCALES].float()[:, None]
        state[name] = (base[name].float() + change.view_as(base[name])).to(base[name].dtype)
    return state


def main(arguments: argparse.Namespace) -> None:
    base = load_file(WEIGHTS / f"{arguments.base}.safetensors")
    with safe_open(arguments.weights, framework="pt") as opened:
        about = dict(opened.metadata())
    file = WEIGHTS / f"{arguments.base}_objects.safetensors"
    changes = difference(load_file(arguments.weights), base)
    save_file({name: value.contiguous() for name, value in changes.items()}, file, about | {"base": arguments.base})
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a file that train.py has kept")
    parser.add_argument("--base", default="10x192", help="committed weights")
    main(parser.parse_args())
