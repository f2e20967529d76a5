"""Weights as their difference from others, in 2 bits: a repository keeps every byte that it was ever given.

    .host/venv/bin/python tests/reference_model/difference.py .host/training/10x192_…_objects/003500.safetensors

writes `weights/10x192_objects.safetensors`, a seventh of the size of both.
"""

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = Path(__file__).resolve().parent / "weights"
GROUP = 192  # numbers with one scale, their deviation: the best step for four levels of a normal distribution
LEVELS = (-1.5, -0.5, 0.5, 1.5)
STEPS, SCALES = ".steps", ".scales"


def difference(state: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices of the base's shape as levels of their difference from it; what differs otherwise as it is."""
    result = {}
    for name, value in state.items():
        before = base.get(name)
        if before is not None and torch.equal(value, before):
            continue
        if before is None or before.shape != value.shape or value.ndim != 2 or value.shape[1] % GROUP:
            result[name] = value
            continue
        change = (value.float() - before.float()).view(-1, GROUP)
        scales = change.square().mean(dim=1).sqrt().half()
        levels = (change / scales.float()[:, None].clamp_min(1e-12) + 1.5).round().clamp(0, 3).byte()
        first, second, third, fourth = levels.unflatten(1, (-1, 4)).unbind(-1)
        result[name + STEPS], result[name + SCALES] = first | second << 2 | third << 4 | fourth << 6, scales
    return result


def applied(changes: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights again."""
    state = base | {name: value for name, value in changes.items() if not name.endswith((STEPS, SCALES))}
    for name in (name.removesuffix(STEPS) for name in changes if name.endswith(STEPS)):
        packed = changes[name + STEPS]
        levels = torch.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], dim=-1).flatten(1)
        change = torch.tensor(LEVELS)[levels.long()] * changes[name + SCALES].float()[:, None]
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
