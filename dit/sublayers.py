"""A block's sublayers: their outputs before the residual gates, and the inputs of its linear layers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .anatomy import Anatomy

# (block, sublayer, output) → the output in its place; None leaves it. Sublayers are numbered as in Stage.sublayers.
OnSublayer = Callable[[int, int, Tensor], Tensor | None]


@contextmanager
def on_sublayers(anatomy: Anatomy, numbers: Iterable[int], on_output: OnSublayer) -> Iterator[None]:
    """While it lasts, the outputs of these blocks' sublayers are shown to `on_output` before the residual gate α
    multiplies them, and what it answers takes their place.

    Args:
        numbers: the blocks' numbers.

    Raises:
        ValueError: the family's row names no sublayers for one of the blocks.
    """
    with ExitStack() as stack:
        for number in numbers:
            block = anatomy.blocks[number]
            if not block.stage.sublayers:
                raise ValueError(f"The sublayers of {block.name} of {anatomy.family.name} are not known.")
            for sublayer, name in enumerate(block.stage.sublayers):
                module: nn.Module = anatomy.block(number).get_submodule(name)

                def hook(
                    module: nn.Module, args: object, output: Tensor, where: tuple[int, int] = (number, sublayer)
                ) -> Tensor | None:
                    return on_output(*where, output)

                stack.enter_context(_removed_after(module.register_forward_hook(hook)))
        yield


@dataclass
class InputStatistics:
    """Statistics of one linear layer's inputs, over all tokens that it was given.

    Attributes:
        tokens: how many.
        peak: greatest |x| of each input channel, float32 (channels,).
        square: sum of x² of each input channel, float32 (channels,).
    """

    tokens: int = 0
    peak: Tensor = field(default_factory=lambda: torch.zeros(0))
    square: Tensor = field(default_factory=lambda: torch.zeros(0))

    def add(self, x: Tensor) -> None:
        """Take in the inputs (…, channels) of one call, without waiting for the device."""
        rows = x.detach().flatten(0, -2)
        peak, square = rows.abs().amax(dim=0).float(), rows.float().square().sum(dim=0)
        if self.tokens:
            peak, square = torch.maximum(self.peak.to(peak), peak), self.square.to(square) + square
        self.tokens, self.peak, self.square = self.tokens + len(rows), peak, square

    def to_cpu(self) -> None:
        """Move the statistics off the device."""
        self.peak, self.square = self.peak.cpu(), self.square.cpu()


@contextmanager
def observing_linear_inputs(
    anatomy: Anatomy, numbers: Iterable[int], statistics: dict[str, InputStatistics]
) -> Iterator[None]:
    """While it lasts, the inputs of all linear layers below these blocks are taken into `statistics`, by the layer's
    name in the network: "joint_blocks.3.x_block.mlp.fc1". At the end the statistics are on the CPU."""
    with ExitStack() as stack:
        for number in numbers:
            block = anatomy.blocks[number]
            for name, module in anatomy.block(number).named_modules():
                if isinstance(module, nn.Linear):
                    seen = statistics.setdefault(f"{block.stage.blocks}.{block.key[1]}.{name}", InputStatistics())

                    def hook(module: nn.Module, args: tuple[Tensor, ...], seen: InputStatistics = seen) -> None:
                        seen.add(args[0])

                    stack.enter_context(_removed_after(module.register_forward_pre_hook(hook)))
        try:
            yield
        finally:
            for each in statistics.values():
                each.to_cpu()


@contextmanager
def _removed_after(handle: torch.utils.hooks.RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
