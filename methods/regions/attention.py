"""Reading where the model's attention puts words, in one block, while it computes what it would compute anyway."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any
from uuid import UUID

from torch import Tensor

from ...dit.families import Anatomy
from ...dit.forward import Args, Batch, Inner, Patch, by_key
from ...dit.token_layout import Block, Key, Prompt, Reading, Stage
from ..common.layers import block_at
from .words import Words, word_attention

MIDDLE = 0.4  # of the depth, where no block of the family was published: about where those of SD3 and FLUX.1 are

Shown = Callable[[UUID, int, Tensor], None]  # the condition's id and index, and (pictures, words, tokens)


@dataclass(frozen=True)
class Place:
    """What of one attention is what.

    Attributes:
        picture: its queries.
        text: its keys that are the prompt's.
    """

    picture: slice
    text: slice


def words_block(words: Words, of_model: Anatomy) -> int:
    """The block that is read.

    Raises:
        ValueError: its attention to the prompt cannot be read.
    """
    blocks, family = of_model.blocks, of_model.family
    readable = [at for at, block in enumerate(blocks) if block.stage.prompt is not None]
    if not readable:
        raise ValueError(f"words: {family.name} does not tell its attention to the prompt. Use a mask.")
    if words.layer is None:
        published = family.words_block
        if published is not None and published < len(blocks) and blocks[published].stage is blocks[0].stage:
            return published
        return min(readable, key=lambda at: abs(at - MIDDLE * len(blocks)))
    number = block_at(words.layer, len(blocks))
    if number not in readable:
        raise ValueError(
            f"layer: {words.layer:g} is block {number}, whose attention to the prompt {family.name} does not tell. Set "
            f"it to at most {(readable[-1] + 0.5) / len(blocks):.2f}, or to 0."
        )
    return number


def reading_words(
    words: Words, of_model: Anatomy, batch: Batch, reading: Reading, wanted: Collection[UUID], shown: Shown
) -> dict[Key, Patch]:
    """A block patch that shows how much attention each of the picture's tokens gives to each word, for every condition
    of `wanted` in a forward, and changes nothing: the host's attention, or another node's, runs as it would.

    Raises:
        ValueError: the words are of another prompt, or of a block whose attention cannot be read.
    """
    number = words_block(words, of_model)
    block = of_model.blocks[number]
    stage, prompt = block.stage, block.stage.prompt
    where = "before" if prompt is None else prompt(stage.block_in(of_model.network, block.key[1]))
    length = batch.conditions["context"].shape[1]

    def counting(first: Block) -> Patch:
        def count(args: Args, inner: Inner) -> Args:
            reading.count(first, args)
            return inner(args)

        return count

    def patch(args: Args, inner: Inner) -> Args:
        options = args.get("transformer_options")
        if options is None:  # a model that does not tell its blocks
            return inner(args)
        if block.first:
            reading.count(block, args)
        tokens = prod(stage.image_of(args, slice(1)).shape[1:-1])
        beside = args[stage.streams[1]].shape[1] if len(stage.streams) > 1 else None
        others = options.get("optimized_attention_override")
        calls = 0

        def override(attention: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *rest: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            keys = k.shape[2 if more.get("skip_reshape") else 1]
            place = _place(where, stage, reading, tokens, beside, keys, calls == 1, length)
            if place is not None:
                see(place, q, k, heads, rest[0] if rest else more.get("mask"), more)
            run = attention if others is None else partial(others, attention)
            return run(q, k, v, heads, *rest, **more)

        def see(place: Place, q: Tensor, k: Tensor, heads: int, mask: Tensor | None, more: dict[str, Any]) -> None:
            if not more.get("skip_reshape"):
                q, k = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k))
            places = _keys_of(words, place, length, of_model.family.words_behind(of_model.network))
            told = more["transformer_options"]
            size = len(q) // len(told["uuids"])
            for at, (uuid, index) in enumerate(zip(told["uuids"], told["cond_or_uncond"], strict=True)):
                if uuid in wanted:
                    rows = slice(at * size, (at + 1) * size)
                    bias = None if mask is None else _bias(mask, rows, len(q), place.picture)
                    attention = word_attention(q[rows, :, place.picture], k[rows], places, q.shape[-1] ** -0.5, bias)
                    shown(uuid, index, attention)

        return inner({**args, "transformer_options": {**options, "optimized_attention_override": override}})

    on_the_way = {at: counting(each) for at, each in enumerate(of_model.blocks[:number]) if each.first}
    return by_key({**on_the_way, number: patch}, of_model.blocks)


def _place(
    where: Prompt, stage: Stage, reading: Reading, tokens: int, beside: int | None, keys: int, first: bool, text: int
) -> Place | None:
    """None where this attention does not meet the prompt.

    Args:
        tokens: of the image stream.
        beside: of the text's stream, where there is one.
        first: whether it is the block's first attention.
        text: tokens of the prompt.
    """
    start, stop, _ = reading.tokens(stage, tokens).indices(tokens)
    if where == "across":
        return None if first or keys != text else Place(slice(start, stop), slice(0, keys))
    if not first:
        return None
    if beside is not None and keys != tokens + beside:
        raise ValueError(
            f"words: the attention has {keys} keys where {tokens + beside} were expected: another node adds some, such "
            "as a cache of references. Remove it, or use a mask."
        )
    if where == "behind":
        return Place(slice(start, stop), slice(tokens, keys))
    if stage.joined:
        return Place(slice(start, stop), slice(0, tokens - (reading.layout.image if reading.layout else 0)))
    text = keys - tokens
    return Place(slice(text + start, text + stop), slice(0, text))


def _keys_of(words: Words, place: Place, length: int, behind: bool) -> list[list[int]]:
    """Of each word's tokens.

    Args:
        length: of the prompt that the model is given, in tokens.
        behind: other tokens stand before the prompt's, and not behind them.
    """
    there = place.text.stop - place.text.start
    if there < words.length or (there != length and not behind):
        raise ValueError(
            f"words: their prompt has {words.length} tokens, and this block is given {there} of {length}: where the "
            "words are among them is not known. Remove what adds other tokens to the prompt."
        )
    first = place.text.start + (there - words.length if behind else 0)
    return [[first + token for token in tokens] for tokens in words.places]


def _bias(mask: Tensor, rows: slice, total: int, queries: slice) -> Tensor:
    """An attention mask of the host's, of some rows and queries."""
    if mask.ndim == 2:
        mask = mask[None, None]
    elif mask.ndim == 3:
        mask = mask[:, None]
    if len(mask) == total:
        mask = mask[rows]
    return mask[:, :, queries] if mask.shape[2] > 1 else mask
