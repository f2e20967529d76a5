"""The formula of Detail Guidance."""

import torch
from torch import Tensor

MOST_W = 20.0


def detail_guidance(
    x: Tensor,
    base: Tensor,
    cond: Tensor,
    disrupted: Tensor,
    w: float,
    mask: Tensor | None = None,
    limit: float = 0.0,
    rescale: float = 0.0,
    as_strength: bool = False,
    across_cfg: bool = False,
) -> tuple[Tensor, Tensor]:
    """Detail Guidance ([DG], its formulas for DG and for DG + CFG):

        D̂ = D + λ(D − D_∅) + w(D − D_m)

    Linear, so the same on noise, velocity and denoised predictions of one timestep. Shapes are (pictures, …).

    Args:
        x: the noisy pictures that the denoised predictions are of.
        base: D + λ(D − D_∅), what the sampler would use without Detail Guidance; D itself without CFG.
        cond: D, the conditional prediction.
        disrupted: D_m, the conditional prediction with the massive activations of layer m disrupted.
        w: detail scale, ≥ 0. More sharpens local detail; too much over-sharpens and breaks textures.
        mask: 0 to 1, broadcastable to base: where detail is added.
        limit: the greatest relative strength of the detail term; 0 is off.
        rescale: 0 to 1, how much of the contrast that the detail term adds is taken back.
        as_strength: w is not the paper's factor but the relative strength that the detail term gets.
        across_cfg: only the part of D − D_m that is orthogonal to λ(D − D_∅) in each picture is added.

    Returns:
        D̂, and the detail term's relative strength in each picture, (pictures,).
    """
    difference = cond - disrupted
    if across_cfg:
        difference = across(difference, base - cond)
    term = at_strength(difference, x - cond, w) if as_strength else w * difference
    if limit > 0:
        term = limited(term, x - cond, limit)
    guided = base + term
    if rescale > 0:
        guided = rescaled(guided, base, rescale)
    if mask is not None:  # last, so that nothing changes where it is 0
        guided = base + mask * (guided - base)
        term = mask * term
    return guided, relative_strength(term, x - cond)


def relative_strength(term: Tensor, update: Tensor) -> Tensor:
    """‖term‖ / ‖update‖ of each picture: the detail term as a share of the model's own update x − D.

    A scale w means different things in different models; this does less so. It is the same in noise, velocity and
    denoised space, which differ from each other by x and by a factor, and does not move with the latent's zero.
    """
    return _norm(term) / _norm(update).clamp(min=torch.finfo(torch.float32).tiny)


def disrupted_share(w: float, cfg: float) -> float:
    """How much of the massive activations to take from the negative's own prediction, 0 to 1, so that

        D̂ = D + λ(D − D_∅,m),  λ = cfg − 1

    adds about as much detail as w does in the paper's form: D_∅,m departs from D_∅ in proportion to what is taken, to
    first order, so that λ times the share is w.

    Args:
        cfg: > 1.
    """
    return min(w / (cfg - 1), 1.0)


def across(difference: Tensor, direction: Tensor) -> Tensor:
    """The part of each picture's difference that is orthogonal to its direction; all of it where that is zero."""
    dims = tuple(range(1, direction.ndim))
    length = direction.float().square().sum(dim=dims, keepdim=True)
    along = (difference.float() * direction.float()).sum(dim=dims, keepdim=True)
    share = along / length.clamp(min=torch.finfo(torch.float32).tiny)
    return difference - share.to(difference.dtype) * direction


def at_strength(difference: Tensor, update: Tensor, strength: float) -> Tensor:
    """w(D − D_m) with the w that gives each picture's term this relative strength; at most MOST_W, so that the rounding
    error that D − D_m is where nothing was disrupted stays one. Solved on the device, without waiting for it."""
    w = (strength / relative_strength(difference, update)).clamp(max=MOST_W)
    return _per_picture(w, difference) * difference


def limited(term: Tensor, update: Tensor, limit: float) -> Tensor:
    """The term, scaled down in those pictures whose relative strength exceeds the limit (> 0)."""
    factor = limit / relative_strength(term, update).clamp(min=limit)
    return term * _per_picture(factor, term)


def rescaled(guided: Tensor, base: Tensor, amount: float) -> Tensor:
    """Move each picture's standard deviation from the guided prediction's to that of base, as guidance rescale does for
    CFG (Lin et al., arXiv 2305.08891, section 3.4).

    Args:
        amount: how far, none of the way at zero and all of it at one.
    """
    deviation = _deviation(guided).clamp(min=torch.finfo(guided.dtype).tiny)
    factor = amount * _deviation(base) / deviation + (1 - amount)
    return guided * _per_picture(factor, guided)


def _norm(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return torch.linalg.vector_norm(flat, dim=1, dtype=torch.promote_types(flat.dtype, torch.float32))


def _deviation(x: Tensor) -> Tensor:
    return x.flatten(1).std(dim=1)


def _per_picture(factor: Tensor, like: Tensor) -> Tensor:
    return factor.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
