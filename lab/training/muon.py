"""Muon. PyTorch's own works in bfloat16 everywhere, which processors without it emulate, more than ten times slower;
this one in float32 there."""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, as in torch.optim.Muon
ITERATIONS = 5
BFLOAT16 = torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Muon(torch.optim.Optimizer):
    """Steps of orthogonalised momentum, for matrices (K. Jordan et al., "Muon: an optimizer for hidden layers", 2024).

    Matrices of one shape are orthogonalised in one batch; a convolution is a matrix of output channels × the rest.

    Args:
        lr: the step's spectral norm, times √(rows / columns) for matrices that are higher than wide.
        momentum: Nesterov's.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0):
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape[matrix.shape].append(matrix)
            for shape, matrices in by_shape.items():
                momenta = torch.stack([self._momentum(each, group["momentum"]) for each in matrices])
                directions = orthogonalised(momenta.flatten(2))
                rows, columns = directions.shape[1:]
                step = group["lr"] * max(1.0, rows / columns) ** 0.5
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction.view(shape), alpha=step)

    def _momentum(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["momentum"] = torch.zeros_like(matrix)
        running = state["momentum"].lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(running, momentum)


def orthogonalised(matrices: Tensor) -> Tensor:
    """The polar factor of each of (n, rows, columns), roughly: singular values come to lie between 0.7 and 1.2."""
    a, b, c = COEFFICIENTS
    high = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if high else matrices).to(torch.bfloat16 if BFLOAT16 else torch.float32)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if high else x).to(matrices.dtype)
