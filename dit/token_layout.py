"""Where the image tokens lie in the streams of a forward: what the table says, and what the streams show.

Image tokens are those of the picture that is being made: text, register and reference tokens are not. The table is
written after the host's code, and the host changes. So the first guided steps of a run compare the two, at no cost in
forwards: the streams have as many tokens as their parts; where one stage of blocks follows another, the image tokens
are what the stage before returned; and from one step to the next, image tokens change while those of a reference or a
prompt stay.

Every block patch of this pack passes this comparison: see `checked`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Any

import torch
from comfyui_version import __version__ as comfyui_version
from torch import Tensor

from .family import Block, Family, Order, Stage
from .forward import Args, Inner, Patch, unchanged


class UnknownLayout(ValueError):
    """The streams are not what the table says, and do not say what they are."""

    def __init__(self, family: str, block: str, what: str) -> None:
        super().__init__(
            f"Detail Guidance does not know where {family} has its picture in ComfyUI {comfyui_version}: at {block}, "
            f"{what}. Either this ComfyUI has changed the model: update Detail Guidance. Or another node adds tokens: "
            "remove it, or Detail Guidance."
        )


@dataclass(frozen=True)
class TokenCounts:
    """The parts of a forward's image, in tokens.

    Attributes:
        ahead: references, padding and the like before the image tokens.
        image: the image tokens.
        behind: references, padding and the like after them.
        complete: False where further tokens may follow, which the table cannot know.
    """

    ahead: int
    image: int
    behind: int
    complete: bool = True

    @property
    def total(self) -> int:
        return self.ahead + self.image + self.behind

    def image_slice(self, order: Order, length: int) -> slice:
        """The image tokens in a stream of this order and length."""
        if order == "image only":
            return slice(None)
        start = length - self.image - self.behind if order == "text image" else self.ahead
        return slice(start, start + self.image)


def tokens_of(condition: Any, patch_size: int | Sequence[int]) -> int:
    """Number of tokens that a model condition becomes.

    Args:
        condition: a latent (rows, channels, …, height, width); or tokens as they are, (rows, tokens) or (rows, tokens,
            channels); None is no token.
        patch_size: the sides of a token, the last dimension's last.
    """
    if condition is None:
        return 0
    return condition.shape[1] if condition.ndim < 4 else prod(token_grid(condition.shape, patch_size))


def token_grid(latent: Sequence[int], patch_size: int | Sequence[int]) -> tuple[int, ...]:
    """Frames (of a video), rows and columns of tokens of a latent of shape (rows, channels, …, height, width)."""
    sides = [patch_size, patch_size] if isinstance(patch_size, int) else list(patch_size)
    lengths = list(latent[2:])
    sides = ([1] * len(lengths) + sides)[-len(lengths) :]
    return tuple(ceil(length / side) for length, side in zip(lengths, sides, strict=True))


class TokenLayout:
    """The places of one forward's image tokens, as the table says and as its streams show.

    Args:
        family: the family's name, for errors.
        counts: as the table and the model's conditions have them; None where image tokens are not counted.
        orders: kind of block → order that an earlier forward of this run has shown in place of the table's.
        held: parts of the picture may stay as they are from step to step, under a mask.
    """

    def __init__(self, family: str, counts: TokenCounts | None, orders: Mapping[str, Order], held: bool) -> None:
        self.family = family
        self.counts = counts
        self.orders = dict(orders)
        self.held = held
        self._text: int | None = None  # tokens of the text's stream
        self._returned: Tensor | None = None  # first and last image token, as the last block of a stage returned them

    def order(self, stage: Stage) -> Order:
        """What a stage's image stream holds."""
        return self.orders.get(stage.kind, stage.order)

    def image_slice(self, stage: Stage, length: int) -> slice:
        """The image tokens in a stage's image stream of this length."""
        return slice(None) if self.counts is None else self.counts.image_slice(self.order(stage), length)

    def image_tokens(self, stage: Stage, args: Mapping[str, Any], rows: slice) -> Tensor:
        """A view of the image tokens of some rows: (rows, tokens, channels), or (rows, …, channels)."""
        stream = stage.image_stream(args, rows)
        return stream[:, self.image_slice(stage, stream.shape[1])]

    def text_tokens(self, stage: Stage, args: Mapping[str, Any], rows: slice) -> Tensor | None:
        """A view of the text's tokens of some rows; None where the block's text cannot be told apart."""
        if len(stage.hidden_states) > 1:
            return args[stage.hidden_states[1]][rows]
        if self.order(stage) == "text image" and self.counts is not None:
            stream = stage.image_stream(args, rows)
            return stream[:, : stream.shape[1] - self.counts.total]
        return None

    def check_token_count(self, block: Block, args: Mapping[str, Any]) -> None:
        """Compare the length of the streams at a stage's first block with the table's.

        What stands beside the image tokens may be missing, as where a cache has its keys and values; the layout then
        leaves it out.

        Raises:
            UnknownLayout: the image stream's length differs from the layout's.
        """
        stage, counts = block.stage, self.counts
        if len(stage.hidden_states) > 1:
            self._text = args[stage.hidden_states[1]].shape[1]
        if counts is None:
            return
        length = prod(stage.image_stream(args, slice(1)).shape[1:-1])
        if stage.order == "image only":
            right, expected = length == counts.image, counts.image
        elif not stage.joined:
            if length == counts.ahead + counts.image:
                self.counts = counts = replace(counts, behind=0)
            elif length == counts.image:
                self.counts = counts = replace(counts, ahead=0, behind=0)
            right, expected = length == counts.total or (not counts.complete and length > counts.total), counts.total
        elif self._text is not None:
            right, expected = length == self._text + counts.total, self._text + counts.total
        else:
            right, expected = length >= counts.total, counts.total
        if not right:
            raise UnknownLayout(self.family, block.name, f"{length} tokens came where {expected} were expected")

    def remember_output(self, block: Block, out: Mapping[str, Any], rows: slice) -> None:
        """Note the first and the last image token that a stage's last block returns, of the first of some rows."""
        image = self.image_tokens(block.stage, out, slice(rows.start, rows.start + 1))
        self._returned = image[0, [0, -1]].clone() if image.ndim == 3 else None

    def check_order(self, block: Block, args: Mapping[str, Any], rows: slice) -> None:
        """Compare the image tokens at a stage's first block with those that the stage before returned.

        Where the stream shows another order than the table's, the layout follows the stream. Where the tokens are
        nowhere to be found, another node has changed them on their way (a ControlNet, say), and the table is believed.

        Raises:
            UnknownLayout: the tokens are elsewhere, and no order says where.
        """
        ends, stage, counts = self._returned, block.stage, self.counts
        if ends is None or counts is None or stage.order == "image only":
            return
        stream = stage.image_stream(args, rows)[0]

        def shown(order: Order) -> bool:
            """One of the two tokens is enough: a mask may have kept the other node from one of them only."""
            tokens = counts.image_slice(order, len(stream))
            if tokens.start < 0 or tokens.stop > len(stream):
                return False
            return bool((stream[[tokens.start, tokens.stop - 1]] == ends).all(dim=-1).any())

        if shown(self.order(stage)) or not (stream[:, None] == ends).all(dim=-1).any():
            return
        orders: tuple[Order, ...] = ("image text", "text image") if stage.joined else ("image",)
        others = [order for order in orders if shown(order)]
        if len(others) != 1:
            raise UnknownLayout(self.family, block.name, "the picture is not where the blocks before left it")
        self.orders[stage.kind] = others[0]

    def token_sums(self, block: Block, args: Mapping[str, Any], rows: slice) -> Tensor | None:
        """One number for each token at the model's first block, (tokens,), by which two steps are compared; None where
        image tokens are alone in their stream, or may be held by a mask."""
        stream = block.stage.image_stream(args, rows)
        alone = self.counts is None or block.stage.order == "image only" or stream.shape[1] == self.counts.image
        return None if alone or self.held else stream[0].float().sum(dim=-1)

    def check_changes(self, block: Block, now: Tensor, earlier: Tensor) -> None:
        """Compare the token sums of two steps: image tokens change. Others may change too (a token of the timestep, a
        reference with noise), so that this alone says nothing where all tokens are counted.

        Raises:
            UnknownLayout: tokens beside the image tokens change, and image tokens do not.
        """
        changed = (now != earlier.to(now.device)).cpu()
        believed = torch.zeros_like(changed)
        believed[self.image_slice(block.stage, len(changed))] = True
        complete = self.counts is None or self.counts.complete
        if (changed & ~believed).any() and ((believed & ~changed).any() or not complete):
            raise UnknownLayout(self.family, block.name, "other tokens change from step to step than the picture's")


def token_layout(
    family: Family, network: Any, latent: torch.Size, conditions: Mapping[str, Any], orders: Mapping[str, Order]
) -> TokenLayout:
    """The layout of a forward by the family's row.

    Args:
        latent: shape of the forward's latent, (rows, channels, …, height, width).
        conditions: the forward's model conditions by name.
        orders: kind of block → order that this run has shown before.

    Raises:
        ValueError: the image tokens cannot be told from those of a reference image.
    """
    mixed = [name for name in family.inseparable_conditions if conditions.get(name) is not None]
    if mixed:
        raise ValueError(
            f"Detail Guidance cannot tell the picture from its reference image ({mixed[0]}) on {family.name}. Remove "
            "the reference image, or Detail Guidance."
        )
    held = any(name.endswith("denoise_mask") for name in conditions)
    return TokenLayout(family.name, _counts(family, network, latent, conditions), orders, held)


def _counts(family: Family, network: Any, latent: torch.Size, conditions: Mapping[str, Any]) -> TokenCounts | None:
    if family.patch_size is None:
        return None
    patch_size, multiple = family.patch_size(network), vars(network).get(family.padded_to) or 1

    def tokens_each(names: tuple[str, ...]) -> list[int]:
        given = [conditions.get(name) for name in names]
        each = [one for value in given for one in (value if isinstance(value, list) else [value])]
        return [tokens_of(one, patch_size) for one in each]

    # What stands before the image tokens is padded image by image; they are padded with what follows them.
    ahead = sum(tokens + -tokens % multiple for tokens in tokens_each(family.ahead))
    image, behind = prod(token_grid(latent, patch_size)), sum(tokens_each(family.behind))
    padding = -(image + behind) % multiple
    return TokenCounts(ahead, image, behind + padding, complete=not family.uncounted_tail)


RowsOf = Callable[[Args, Stage], slice | None]  # (a block's arguments, its stage) → rows whose order is compared


def checked(
    patches: Mapping[int, Patch],
    blocks: Sequence[Block],
    layout: TokenLayout,
    rows_of: RowsOf | None,
    last: int | None = None,
) -> dict[int, Patch]:
    """Block patches inside the comparison of the streams with the table.

    At each stage's first block the tokens are counted, and the order is compared with what the stage before returned.
    Comparing the order waits for the device: once a run is enough, as the layout's `orders` can be handed to the next
    forward's.

    Args:
        patches: block number → patch.
        rows_of: which rows' order is compared; None compares no order, and a result of None not at that block.
        last: the last block that matters; those behind it are left alone. All blocks without it.

    Raises:
        UnknownLayout: inside the forward, where the streams are not what the table says.
    """
    reached = range(len(blocks) if last is None else last + 1)

    def inside_check(number: int, patch: Patch) -> Patch:
        block = blocks[number]

        def run(args: Args, inner: Inner) -> Args:
            rows = None if rows_of is None else rows_of(args, block.stage)
            if block.first:
                layout.check_token_count(block, args)
                if rows is not None:
                    layout.check_order(block, args, rows)
            out = patch(args, inner)
            if block.last and rows is not None and number != last:
                layout.remember_output(block, out, rows)
            return out

        return run

    ends = [n for n in reached if blocks[n].first or (blocks[n].last and rows_of is not None)]
    return {**patches, **{number: inside_check(number, patches.get(number, unchanged)) for number in ends}}
