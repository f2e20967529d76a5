"""Attention of the image tokens that is the identity, or is blurred."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from ...dit import Args, AttentionCall, PerturbedCall, attention_patch
from .grid import blurred

# Given an attention, its output (rows, heads, queries, d) and a chunk's rows, returns the perturbed output of their
# image tokens and the queries that these are; None where the attention is not the one to perturb.
Perturbed = Callable[[AttentionCall, Tensor, slice], tuple[Tensor, slice] | None]


@dataclass(frozen=True)
class IdentityAttention:
    """Each image token attends to itself alone, as in Perturbed-Attention Guidance."""

    # Ahn et al., arXiv 2403.17377

    def run(self, call: PerturbedCall, keep: float) -> Args:
        """The block with ρ of its own attention, and the rest of the identity's."""

        def identity(attention: AttentionCall, out: Tensor, rows: slice) -> tuple[Tensor, slice] | None:
            if attention.image is None:
                return None
            queries, keys = attention.image
            values = attention.v[rows, :, keys]
            return values.repeat_interleave(out.shape[1] // values.shape[1], dim=1), queries

        return _with_attention(call, "identity attention", identity, keep)


@dataclass(frozen=True)
class BlurredAttention:
    """The image tokens' queries are blurred over the picture, which flattens what they attend to, as in Smoothed
    Energy Guidance.

    Attributes:
        sigma: deviation of the Gaussian, in tokens; infinity is the mean over the picture.
    """

    # Hong, arXiv 2408.00760

    sigma: float = inf

    def run(self, call: PerturbedCall, keep: float) -> Args:
        """The block with ρ of its own attention, and the rest of the blurred one's."""

        def flattened(attention: AttentionCall, out: Tensor, rows: slice) -> tuple[Tensor, slice] | None:
            if attention.image is None:
                return None
            queries, _ = attention.image
            q = attention.q.clone()
            q[rows, :, queries] = _blurred(call, q[rows, :, queries], self.sigma)
            return attention.run(q, attention.k, attention.v)[rows, :, queries], queries

        return _with_attention(call, "blurred attention", flattened, keep)


@dataclass(frozen=True)
class BlurredWordAttention:
    """What the image tokens take from the prompt is blurred over the picture, after Seg4Diff.

    Attributes:
        sigma: deviation of the Gaussian, in tokens.
    """

    # arXiv 2509.18096

    sigma: float = 2.0

    def run(self, call: PerturbedCall, keep: float) -> Args:
        """The block with ρ of its own attention to the prompt, and the rest of the blurred one."""

        def of_prompt(attention: AttentionCall, out: Tensor, rows: slice) -> tuple[Tensor, slice] | None:
            if attention.slices is None:
                return None
            queries, prompt = attention.slices.image, attention.slices.prompt
            values = torch.zeros_like(attention.v)
            values[:, :, prompt] = attention.v[:, :, prompt]
            # Attention is linear in the values: with the prompt's alone it gives the prompt's part of its output.
            part = attention.run(attention.q, attention.k, values)[rows, :, queries]
            return out[rows, :, queries] + _blurred(call, part, self.sigma) - part, queries

        return _with_attention(call, "blurred word attention", of_prompt, keep)


def _blurred(call: PerturbedCall, heads: Tensor, sigma: float) -> Tensor:
    """Image tokens (rows, heads, tokens, d), blurred over the picture."""
    tokens = heads.transpose(1, 2).flatten(2)
    return blurred(tokens, call.token_grid(tokens.shape[1]), sigma).unflatten(2, (heads.shape[1], -1)).transpose(1, 2)


def _with_attention(call: PerturbedCall, name: str, perturbed: Perturbed, keep: float) -> Args:
    """What a block returns with another attention for the perturbed chunks' image tokens.

    Args:
        name: of the perturbation, for errors.
        keep: ρ, how much of the model's own attention is kept.

    Raises:
        ValueError: the block has no attention in which its image tokens could be told.
    """
    done = False

    def on_call(attention: AttentionCall) -> Tensor | None:
        nonlocal done
        if len(attention.q) != call.batch.latent[0]:
            return None  # its rows are not the batch's
        out = None
        for chunk in call.chunks:
            own = attention.run(attention.q, attention.k, attention.v) if out is None else out
            answer = perturbed(attention, own, chunk.rows)
            if answer is None:
                return None
            out = own.clone() if out is None else out
            image, queries = answer
            out[chunk.rows, :, queries] = image.lerp(out[chunk.rows, :, queries], keep)
            done = True
        return out

    out = attention_patch(call.anatomy, call.number, call.layout, call.batch, on_call)(call.args, call.inner)
    if not done:
        raise ValueError(
            f"perturbation: {name} is not possible at {call.anatomy.blocks[call.number].name} of "
            f"{call.anatomy.family.name}, whose attention does not say where its image tokens are. Choose another one."
        )
    return out
