"""Weights as their difference from others: what a matrix has changed by, of low rank; everything else as it is.

    .host/venv/bin/python tests/reference_model/difference.py .host/training/10x192_…_objects/003500.safetensors

writes `weights/10x192_objects.safetensors`, a third of the size: a repository keeps every byte that it was ever given.
"""

import argparse
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = Path(__file__).resolve().parent / "weights"
RANK = 48
UP, DOWN = ".up", ".down"


def difference(state: dict[str, Tensor], base: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Matrices of the base's shape as two factors of their difference from it; the rest that differs as it is."""
    result = {}
    for name, value in state.items():
        before = base.get(name)
        if before is not None and torch.equal(value, before):
            continue
        if before is None or before.shape != value.shape or value.ndim != 2 or min(value.shape) <= 2 * rank:
            result[name] = value
            continue
        left, scales, right = torch.linalg.svd(value.float() - before.float(), full_matrices=False)
        root = scales[:rank].sqrt()
        result[name + UP], result[name + DOWN] = left[:, :rank] * root, root[:, None] * right[:rank]
    return {name: value.half().contiguous() for name, value in result.items()}


def applied(changes: dict[str, Tensor], base: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights again."""
    state = base | {name: value for name, value in changes.items() if not name.endswith((UP, DOWN))}
    for name in changes:
        if name.endswith(UP):
            matrix = name.removesuffix(UP)
            product = changes[name].float() @ changes[matrix + DOWN].float()
            state[matrix] = (base[matrix].float() + product).to(base[matrix].dtype)
    return state


def main(arguments: argparse.Namespace) -> None:
    base = load_file(WEIGHTS / f"{arguments.base}.safetensors")
    with safe_open(arguments.weights, framework="pt") as opened:
        about = dict(opened.metadata())
    changes = difference(load_file(arguments.weights), base, arguments.rank)
    file = WEIGHTS / f"{arguments.base}_objects.safetensors"
    save_file(changes, file, about | {"base": arguments.base})
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="a file that train.py has kept")
    parser.add_argument("--base", default="10x192", help="committed weights")
    parser.add_argument("--rank", type=int, default=RANK)
    main(parser.parse_args())
