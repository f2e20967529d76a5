"""Words, and where a picture has them."""

# [Seg4Diff] is arXiv 2509.18096.

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Words:
    """Words of one prompt.

    Attributes:
        names: as they were asked for.
        places: of each its tokens in the prompt's conditioning; last those of the prompt's other words.
        length: of that conditioning, in tokens.
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

    No matrix of queries and keys is held: a head and some queries at a time, less than the queries themselves take.

    Args:
        q: (rows, heads, queries, d).
        k: (rows, heads, keys, d); or fewer heads, each for several of q's in turn.
        places: keys of each word; of none where it is empty.
        scale: of the scores.
        bias: added to the scores, broadcastable to (rows, heads, queries, keys).

    Returns:
        float32 (rows, words, queries).
    """
    rows, heads, queries, d = q.shape
    keys, share = k.shape[2], heads // k.shape[1]
    at_once = max(1, heads * d * q.element_size() * queries // (16 * keys))
    total = torch.zeros(rows, len(places), queries, device=q.device)
    # Mean over tokens as a product: (keys, words).
    mean = torch.zeros(keys, len(places), device=q.device)
    for word, tokens in enumerate(places):
        for token in tokens:
            mean[token, word] = 1 / len(tokens)
    for row in range(rows):
        for head in range(heads):
            these = k[row, head // share].float().T * scale
            for start in range(0, queries, at_once):
                some = slice(start, start + at_once)
                scores = q[row, head, some].float() @ these
                if bias is not None:
                    scores = scores + bias.expand(rows, heads, queries, keys)[row, head, some]
                total[row, :, some] += (scores.softmax(dim=-1) @ mean).T
    return total / heads


def shares(attention: Tensor) -> Tensor:
    """How much of its attention to words a place gives to each word, against the prompt's other words: 0 to 1.

    Args:
        attention: (pictures, words + 1, …), of the words and of the prompt's others.

    Returns:
        (pictures, words, …). Of a prompt without other words the attention from its lowest to its highest.
    """
    words, others = attention[:, :-1], attention[:, -1:]
    if others.any():
        return words / (words + others).clamp_min(torch.finfo(words.dtype).tiny)
    flat = words.flatten(2)
    low, high = (each.view(*words.shape[:2], *[1] * (words.ndim - 2)) for each in flat.aminmax(dim=2))
    return (words - low) / (high - low).clamp_min(torch.finfo(words.dtype).tiny)


def soft_masks(attention: Tensor, soft: float) -> Tensor:
    """Masks (pictures, words, …) of `shares`: 1 above and 0 below a half, over an edge of this width (0 to 1)."""
    above = shares(attention) - 0.5
    return (above > 0).to(above.dtype) if soft == 0 else (above / soft + 0.5).clamp(0, 1)


def divided(attention: Tensor) -> Tensor:
    """Masks (pictures, words, …) of 0 and 1 that share no place: each is the word's that it gives most attention to, or
    none's ([Seg4Diff], equation 5)."""
    if not attention[:, -1].any():  # no other words: what gets least attention is none's
        attention = torch.cat([shares(attention), torch.full_like(attention[:, :1], 0.5)], dim=1)
    largest = attention.argmax(dim=1, keepdim=True)
    words = torch.arange(attention.shape[1] - 1, device=attention.device)
    return (largest == words.view(1, -1, *[1] * (attention.ndim - 2))).to(attention.dtype)
