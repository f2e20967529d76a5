"""Where the picture's tokens lie in the streams of a forward: what the table believes, and what the streams show.

The table is written after the host's code, and the host changes. So the first guided steps of a run compare the two, at
no cost in forwards: the streams have as many tokens as their parts; where one kind of block follows another, the
picture is what the one before returned; and from one step to the next, the picture's tokens change while those of a
reference or a prompt stay.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, prod
from operator import attrgetter
from typing import Any, Literal

import torch
from comfyui_version import __version__ as comfyui_version
from torch import Tensor

Key = tuple[str, int]
Order = Literal["picture", "image", "image text", "text image"]
Prompt = Literal["before", "behind", "across"]


@dataclass(frozen=True)
class Stage:
    """Successive blocks of one kind.

    Attributes:
        kind: of the blocks' keys, (kind, index), in the host's patches_replace.
        blocks: the model's attribute with them.
        streams: block arguments that the blocks update and return; the first one holds the picture's tokens. Its shape
            is (rows, tokens, channels), or (…, channels) with rows at `row_dim` where it holds nothing else. Of a tuple
            it is the first tensor.
        rows: block arguments with one row per picture in the batch.
        order: what the image stream holds, from its first token to its last. "picture": nothing but the picture;
            "image": the picture and what stands beside it (see `Layout`); with text joined, before or after it.
        row_dim: which dimension of an argument the rows are, where it is not the first; None where there are no rows.
        packed: arguments with all the tokens of all rows in that dimension.
        grouped: arguments that may hold all rows several times over, one group after another.
        hooked: the host gives these blocks no block-replace hook, so this pack does (block_hooks.py).
        modulation: (block, its arguments) → AdaLN's numbers for the image stream, (rows, branches, 3, channels): shift,
            scale and residual gate α, the attention's branch first. None where they are not to be had, or differ from
            token to token.
        prompt: block → where the picture's attention meets the prompt's tokens: among its keys, before or behind the
            picture's; or across, in an attention of its own. None where the host does not tell.
    """

    kind: str
    blocks: str
    streams: tuple[str, ...]
    rows: tuple[str, ...]
    order: Order = "picture"
    row_dim: Mapping[str, int | None] = field(default_factory=dict)
    packed: tuple[str, ...] = ()
    grouped: tuple[str, ...] = ()
    hooked: bool = False
    modulation: Callable[[Any, Mapping[str, Any]], Tensor | None] | None = None
    prompt: Callable[[Any], Prompt] | None = None

    @property
    def image(self) -> str:
        return self.streams[0]

    @property
    def joined(self) -> bool:
        """Whether text is in the image stream."""
        return self.order in ("image text", "text image")

    def list_in(self, network: Any) -> Any:
        """A network's list of these blocks."""
        return attrgetter(self.blocks)(network)

    def block_in(self, network: Any, index: int) -> Any:
        """One of a network's blocks of these, which may have names."""
        blocks = self.list_in(network)
        return [*blocks.values()][index] if hasattr(blocks, "values") else blocks[index]

    def row_dim_of(self, name: str) -> int | None:
        return self.row_dim.get(name, 0)

    def image_of(self, args: Mapping[str, Any], rows: slice) -> Tensor:
        """A view of some rows of the image stream, rows first."""
        stream = args[self.image]
        if isinstance(stream, tuple):
            stream = stream[0]
        dim = self.row_dim_of(self.image)
        return stream.unsqueeze(0) if dim is None else stream.movedim(dim, 0)[rows]


@dataclass(frozen=True)
class Block:
    """One block: its key in the host's patches_replace, its stage, and whether it is the stage's first or last."""

    key: Key
    stage: Stage
    first: bool
    last: bool

    @property
    def name(self) -> str:
        """For people: "double 12", "single 3"."""
        kind, index = self.key
        return f"{kind.removesuffix('_block').replace('_', ' ')} {index}"


@dataclass(frozen=True)
class Layout:
    """The parts of a forward's image, in tokens.

    Attributes:
        ahead, picture, behind: in their order; ahead and behind are references, padding and the like.
        counted: whether that is all of it: False where the table cannot know what follows.
    """

    ahead: int
    picture: int
    behind: int
    counted: bool = True

    @property
    def image(self) -> int:
        return self.ahead + self.picture + self.behind

    def tokens(self, order: Order, length: int) -> slice:
        """The picture's, in a stream of this order and length."""
        if order == "picture":
            return slice(None)
        start = length - self.picture - self.behind if order == "text image" else self.ahead
        return slice(start, start + self.picture)


def tokens_of(condition: Any, patch: int | Sequence[int]) -> int:
    """How many tokens a model condition becomes: a latent (rows, channels, …, height, width), or tokens as they are,
    (rows, tokens) or (rows, tokens, channels); None is none.

    Args:
        patch: the sides of a token, the last dimensions' last.
    """
    if condition is None:
        return 0
    return condition.shape[1] if condition.ndim < 4 else tokens_in(condition.shape, patch)


def tokens_in(latent: Sequence[int], patch: int | Sequence[int]) -> int:
    """How many tokens a latent of this shape becomes."""
    return prod(grid_in(latent, patch))


def grid_in(latent: Sequence[int], patch: int | Sequence[int]) -> tuple[int, ...]:
    """How many frames, of a video, rows and columns of tokens a latent (rows, channels, …, height, width) becomes."""
    sides = [patch, patch] if isinstance(patch, int) else list(patch)
    lengths = list(latent[2:])
    sides = ([1] * len(lengths) + sides)[-len(lengths) :]
    return tuple(ceil(length / side) for length, side in zip(lengths, sides, strict=True))


class UnknownLayout(ValueError):
    """The streams are not what the table says, and do not say what they are."""

    def __init__(self, family: str, block: str, what: str) -> None:
        super().__init__(
            f"Detail Guidance does not know where {family} has its picture in ComfyUI {comfyui_version}: at {block}, "
            f"{what}. Either this ComfyUI has changed the model: update Detail Guidance. Or another node adds tokens: "
            "remove it, or Detail Guidance."
        )


class Reading:
    """The streams of one forward, read as the table says, and compared with what they show.

    Args:
        family: its name.
        layout: as the table and the model's conditions have it; None where that is not counted.
        orders: of kinds of blocks, where an earlier forward of this run has shown another one than the table's.
        held: parts of the picture may stay as they are from step to step, under a mask.
    """

    def __init__(self, family: str, layout: Layout | None, orders: Mapping[str, Order], held: bool) -> None:
        self.family = family
        self.layout = layout
        self.orders = dict(orders)
        self.held = held
        self.text: int | None = None  # tokens of the text's stream
        self.returned: Tensor | None = None  # the picture's first and last token, as the last block of a stage had them

    def order(self, stage: Stage) -> Order:
        return self.orders.get(stage.kind, stage.order)

    def picture(self, stage: Stage, args: Mapping[str, Any], rows: slice) -> Tensor:
        """A view of the picture's tokens of some rows: (rows, tokens, channels), or (rows, …, channels)."""
        image = stage.image_of(args, rows)
        return image[:, self.tokens(stage, image.shape[1])]

    def text_of(self, stage: Stage, args: Mapping[str, Any], rows: slice) -> Tensor | None:
        """A view of the text's tokens of some rows, where the block has them."""
        if len(stage.streams) > 1:
            return args[stage.streams[1]][rows]
        if self.order(stage) == "text image" and self.layout is not None:
            stream = stage.image_of(args, rows)
            return stream[:, : stream.shape[1] - self.layout.image]
        return None

    def tokens(self, stage: Stage, length: int) -> slice:
        """The picture's, in an image stream of this length."""
        if self.layout is None:
            return slice(None)
        return self.layout.tokens(self.order(stage), length)

    def count(self, block: Block, args: Mapping[str, Any]) -> None:
        """At the first block of a stage: are there as many tokens as the parts have? What stands beside the picture may
        be missing, as where a cache has its keys and values; it is then left out of the layout.

        Raises:
            UnknownLayout: no.
        """
        stage, layout = block.stage, self.layout
        if len(stage.streams) > 1:
            self.text = args[stage.streams[1]].shape[1]
        if layout is None:
            return
        image = stage.image_of(args, slice(1))
        length = prod(image.shape[1:-1])
        if stage.order == "picture":
            right, expected = length == layout.picture, layout.picture
        elif not stage.joined:
            if length == layout.ahead + layout.picture:
                self.layout = layout = replace(layout, behind=0)
            elif length == layout.picture:
                self.layout = layout = replace(layout, ahead=0, behind=0)
            right, expected = length == layout.image or (not layout.counted and length > layout.image), layout.image
        elif self.text is not None:
            right, expected = length == self.text + layout.image, self.text + layout.image
        else:
            right, expected = length >= layout.image, layout.image
        if not right:
            raise UnknownLayout(self.family, block.name, f"{length} tokens came where {expected} were expected")

    def leave(self, block: Block, out: Mapping[str, Any], rows: slice) -> None:
        """At the last block of a stage: note what it returns."""
        picture = self.picture(block.stage, out, slice(rows.start, rows.start + 1))
        self.returned = picture[0, [0, -1]].clone() if picture.ndim == 3 else None

    def follow(self, block: Block, args: Mapping[str, Any], rows: slice) -> None:
        """At the first block of a stage that follows another: is the picture what the last block returned?

        Where another order than the table's shows it, that is taken up. Where its tokens are nowhere to be found,
        another node has changed them on their way (a ControlNet, say); then the table is believed.

        Raises:
            UnknownLayout: it is elsewhere, and no order says where.
        """
        ends, stage, layout = self.returned, block.stage, self.layout
        if ends is None or layout is None or stage.order == "picture":
            return
        stream = stage.image_of(args, rows)[0]

        def shown(order: Order) -> bool:
            """One of the two tokens is enough: a mask may have kept the other node from one of them only."""
            tokens = layout.tokens(order, len(stream))
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

    def fingerprint(self, block: Block, args: Mapping[str, Any], rows: slice) -> Tensor | None:
        """At the first block: one number for each token, (tokens,); None where the picture is alone, or held."""
        stream = block.stage.image_of(args, rows)
        alone = self.layout is None or block.stage.order == "picture" or stream.shape[1] == self.layout.picture
        return None if alone or self.held else stream[0].float().sum(dim=-1)

    def compare(self, block: Block, now: Tensor, earlier: Tensor) -> None:
        """Two steps' fingerprints: what changes is the picture. Others may change too (a token of the timestep, a
        reference with noise), so that alone says nothing where all tokens are counted.

        Raises:
            UnknownLayout: tokens beside the picture change, and tokens of the picture do not.
        """
        changed = (now != earlier.to(now.device)).cpu()
        believed = torch.zeros_like(changed)
        believed[self.tokens(block.stage, len(changed))] = True
        counted = self.layout is None or self.layout.counted
        if (changed & ~believed).any() and ((believed & ~changed).any() or not counted):
            raise UnknownLayout(self.family, block.name, "other tokens change from step to step than the picture's")
