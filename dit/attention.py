"""Reading or replacing one block's attention while the model computes it.

The host gives attention an override in the block's transformer_options. This layer puts itself there, tells which
queries are image tokens and which keys are the prompt's, and hands on to another node's override or to the host's own
attention.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any
from uuid import UUID

import torch
from torch import Tensor

from .anatomy import Anatomy
from .family import PromptKeys, Stage
from .forward import Args, Batch, Inner, Patch
from .token_layout import TokenLayout


@dataclass(frozen=True)
class AttentionSlices:
    """Which tokens of one attention are what.

    Attributes:
        image: the image tokens among the queries; in joint attention also among the keys.
        prompt: the prompt's tokens among the keys.
    """

    image: slice
    prompt: slice


@dataclass(frozen=True)
class AttentionCall:
    """One call of the host's attention.

    Attributes:
        q, k, v: (rows, heads, tokens, d); k and v may have fewer heads, each for several of q's in turn.
        mask: added to the scores, or bool, true where a key counts; (1 or rows, 1 or heads, 1 or queries, keys); None
            is no mask.
        slices: where its image and prompt tokens are; None where the attention does not meet the prompt.
        image: the image tokens among the queries and among the keys, in a block's first attention; None in others, and
            where the keys are not known to hold them.
        uuids, indices: for each chunk of rows, its condition's id and its group's place in the host's list.
        run: the rest of the chain on other q, k, v of the same shape: another node's override or the host's attention.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None
    slices: AttentionSlices | None
    image: tuple[slice, slice] | None
    uuids: list[UUID]
    indices: list[int]
    run: Callable[[Tensor, Tensor, Tensor], Tensor]

    @property
    def scale(self) -> float:
        """The factor of the scores q·k."""
        return self.q.shape[-1] ** -0.5

    def rows_of_chunk(self, number: int) -> slice:
        """The rows of the chunk of this number."""
        size = len(self.q) // len(self.uuids)
        return slice(number * size, (number + 1) * size)

    def mask_of(self, rows: slice, queries: slice) -> Tensor | None:
        """The part of the mask for some rows and queries."""
        if self.mask is None:
            return None
        mask = self.mask[rows] if len(self.mask) == len(self.q) else self.mask
        return mask[:, :, queries] if mask.shape[2] > 1 else mask


# Given a call, answers the attention's output (rows, heads, queries, d); None leaves it to the rest of the chain.
OnAttention = Callable[[AttentionCall], Tensor | None]


def attention_patch(anatomy: Anatomy, number: int, layout: TokenLayout, batch: Batch, on_call: OnAttention) -> Patch:
    """A block patch under which every attention of a block is shown to `on_call`, which may answer in its place.

    Blocks that are not given transformer_options run unobserved.

    Args:
        number: the block's number.
        layout: the forward's; its checks are the caller's (`token_layout.checked`).

    Raises:
        ValueError: inside the forward, where another node has added keys.
    """
    block = anatomy.blocks[number]
    stage, prompt_keys = block.stage, block.stage.prompt_keys
    where = None if prompt_keys is None else prompt_keys(anatomy.block(number))
    context = batch.conditions.get("context")
    prompt_tokens = 0 if context is None else context.shape[1]

    def patch(args: Args, inner: Inner) -> Args:
        options = args.get("transformer_options")
        if options is None:
            return inner(args)
        image_stream = prod(stage.image_stream(args, slice(1)).shape[1:-1])
        text_stream = args[stage.hidden_states[1]].shape[1] if len(stage.hidden_states) > 1 else None
        others = options.get("optimized_attention_override")
        calls = 0

        def override(attention: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *rest: Any, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            by_head = bool(more.get("skip_reshape"))
            keys = k.shape[2 if by_head else 1]
            slices = None
            if where is not None:
                slices = _slices(where, stage, layout, image_stream, text_stream, keys, calls == 1, prompt_tokens)
            chain = attention if others is None else partial(others, attention)
            given = [q, k, v] if by_head else [_by_head(each, heads) for each in (q, k, v)]
            labels: dict[str, Any] = more.get("transformer_options") or options

            def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                if not by_head:
                    q, k, v = (each.transpose(1, 2).flatten(2) for each in (q, k, v))
                return _answered_by_head(chain(q, k, v, heads, *rest, **more), heads, more)

            mask = _four_dimensional(rest[0] if rest else more.get("mask"))
            image = _image_of_itself(stage, layout, image_stream, given[0], given[1], slices) if calls == 1 else None
            call = AttentionCall(
                given[0], given[1], given[2], mask, slices, image, labels["uuids"], labels["cond_or_uncond"], run
            )
            answer = on_call(call)
            if answer is None:
                return chain(q, k, v, heads, *rest, **more)
            return answer if more.get("skip_output_reshape") else answer.transpose(1, 2).flatten(2)

        return inner({**args, "transformer_options": {**options, "optimized_attention_override": override}})

    return patch


def attention_with_lse(call: AttentionCall, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention in full precision, and the log-sum-exp of its scores.

    Args:
        allowed: bool, broadcastable to (rows, heads, queries, keys), the keys that count beside the call's mask; all
            without it.

    Returns:
        The output, (rows, heads, queries, d) in v's dtype, and the log-sum-exp over the allowed keys, float32 (rows,
        heads, queries).
    """
    share = call.q.shape[1] // call.k.shape[1]
    k, v = (each.repeat_interleave(share, dim=1) if share > 1 else each for each in (call.k, call.v))
    scores = (call.q.float() @ k.float().transpose(-1, -2)) * call.scale
    for mask in (call.mask, allowed):
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()
    lse = scores.logsumexp(dim=-1)
    return ((scores - lse[..., None]).exp() @ v.float()).to(call.v.dtype), lse


def _by_head(tokens: Tensor, heads: int) -> Tensor:
    """(rows, tokens, heads · d), or (rows, tokens, heads, d) as SD3's values are → (rows, heads, tokens, d)."""
    return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)


def _answered_by_head(out: Tensor, heads: int, more: dict[str, Any]) -> Tensor:
    return out if more.get("skip_output_reshape") else _by_head(out, heads)


def _four_dimensional(mask: Tensor | None) -> Tensor | None:
    """The host's masks, (queries, keys) or (rows, queries, keys) or with heads, with all four dimensions."""
    if mask is None or mask.ndim == 4:
        return mask
    return mask[None, None] if mask.ndim == 2 else mask[:, None]


def _image_of_itself(
    stage: Stage, layout: TokenLayout, image_stream: int, q: Tensor, k: Tensor, slices: AttentionSlices | None
) -> tuple[slice, slice] | None:
    """The image tokens among the queries and the keys of a block's first attention; None where they are not known."""
    if q.shape[2] == k.shape[2] == image_stream:
        start, stop, _ = layout.image_slice(stage, image_stream).indices(image_stream)
        return slice(start, stop), slice(start, stop)
    joint = slices is not None and q.shape[2] == k.shape[2]
    return (slices.image, slices.image) if joint and slices is not None else None


def _slices(
    where: PromptKeys,
    stage: Stage,
    layout: TokenLayout,
    image_stream: int,
    text_stream: int | None,
    keys: int,
    first: bool,
    prompt_tokens: int,
) -> AttentionSlices | None:
    """The slices of one attention; None where it does not meet the prompt.

    Args:
        image_stream, text_stream: tokens of the streams; text_stream is None where the block has one stream.
        keys: number of keys of this attention.
        first: whether it is the block's first attention.
        prompt_tokens: tokens of the prompt that the model is given.
    """
    start, stop, _ = layout.image_slice(stage, image_stream).indices(image_stream)
    if where == "across":
        return None if first or keys != prompt_tokens else AttentionSlices(slice(start, stop), slice(0, keys))
    if not first:
        return None
    if text_stream is not None and keys != image_stream + text_stream:
        raise ValueError(
            f"words: the attention has {keys} keys where {image_stream + text_stream} were expected: another node adds "
            "some, such as a cache of references. Remove it, or use a mask."
        )
    if where == "behind":
        return AttentionSlices(slice(start, stop), slice(image_stream, keys))
    if stage.joined:
        text = image_stream - (layout.counts.total if layout.counts else 0)
        after = layout.order(stage) == "image text"
        return AttentionSlices(
            slice(start, stop), slice(image_stream - text, image_stream) if after else slice(0, text)
        )
    text = keys - image_stream
    return AttentionSlices(slice(text + start, text + stop), slice(0, text))
