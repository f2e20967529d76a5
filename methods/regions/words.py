"""Words, and how much attention a picture pays them."""

# [Seg4Diff] is arXiv 2509.18096.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

PARTS = 8  # of the heads


@dataclass(frozen=True)
class Words:
    """Words of one prompt.

    Attributes:
        names: as they were asked for.
        places: for each word its tokens in the prompt's conditioning; last the tokens of the prompt's other words.
        length: tokens of that conditioning.
        layer: 0 to 1, the block that is read, as a fraction of the depth; None is the model family's own.
        prompt: an id that the prompt's conditions carry.
    """

    names: tuple[str, ...]
    places: tuple[tuple[int, ...], ...]
    length: int
    layer: float | None
    prompt: str | None = None


def word_attention(q: Tensor, k: Tensor, places: Sequence[Sequence[int]], scale: float, bias: Tensor | None) -> Tensor:
    """The share of its attention that each query gives to each word: softmax over all keys, mean over the heads, mean
    over the word's tokens ([Seg4Diff], equation 4).

    Attention whose values say to which word each key belongs answers this share. So PyTorch's own kernels compute it,
    which hold no matrix of queries and keys; some heads at a time, because an answer is as large as the queries.

    Args:
        q: (rows, heads, queries, d).
        k: (rows, heads, keys, d); or fewer heads, each for several of q's in turn.
        places: keys of each word; of none where it is empty.
        scale: factor of the scores q·k.
        bias: added to the scores, or bool, true where a key counts; broadcastable to (rows, heads, queries, keys).

    Returns:
        float32 (rows, words, queries).
    """
    rows, heads, queries, d = q.shape
    if bias is not None and bias.dtype != torch.bool:
        bias = bias.to(q)
    keys, share = k.shape[2], heads // k.shape[1]
    whose = torch.zeros(keys, len(places))
    for word, tokens in enumerate(places):
        whose[list(tokens), word] = 1 / max(1, len(tokens))
    total = torch.zeros(rows, queries, len(places), device=q.device)
    for words in range(0, len(places), d):  # kernels want values as wide as keys
        values = whose[:, words : words + d]
        wide = pad(values, (0, d - values.shape[1])).to(q)
        for some in torch.arange(heads).tensor_split(min(heads, PARTS)):
            these = slice(int(some[0]), int(some[-1]) + 1)
            of_keys = k[:, these] if share == 1 else k[:, (some // share).tolist()]
            of_bias = bias[:, these] if bias is not None and bias.shape[1] > 1 else bias
            answer = scaled_dot_product_attention(q[:, these], of_keys, wide.expand_as(of_keys), of_bias, scale=scale)
            total[..., words : words + d] += answer[..., : values.shape[1]].sum(dim=1, dtype=torch.float32)
    return total.transpose(1, 2) / heads
