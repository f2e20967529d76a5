"""One forward of pictures that are noised to one level, which an observer of the model sees."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import comfy.sample
import torch
from comfy import model_management
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSAMPLER, CFGGuider
from torch import Tensor

from .anatomy import anatomy_of
from .family import Family

MOST_ROWS = 8  # at once: between forwards the run can be interrupted


def forward_noised(
    model: ModelPatcher, positive: list[list[Any]], latent: Tensor, noise_level: float, draws: int, seed: int
) -> Iterator[list[int]]:
    """Forward pictures through a model, each in several draws of noise, by the host's own sampling. What the model
    predicts is dropped.

    Args:
        model: with something on it that observes its forwards (`observed`).
        positive: one condition, what the pictures show.
        latent: (pictures, channels, …, height, width), as a VAE gives them.
        noise_level: between 0 and 1, the noise's share in what the model is given.
        draws: number of noises for each picture, ≥ 1.

    Yields:
        After each forward: which picture each of its rows was.
    """
    forwarding = model.clone()
    forwarding.model_options.pop("context_handler", None)  # each picture is forwarded as a whole
    guider = CFGGuider(forwarding)
    guider.inner_set_conds({"positive": [_at_all_levels(*each) for each in positive]})
    guider.set_cfg(1.0)
    sigmas = torch.tensor([sigma_of(noise_level, model.get_model_object("model_sampling")), 0.0])
    pictures = list(range(len(latent))) * draws
    noise = torch.cat([comfy.sample.prepare_noise(latent, (seed + draw) % 2**64) for draw in range(draws)])
    at_once = 1
    if not _takes_one_row(anatomy_of(model).family, positive[0][1]):
        model_management.load_models_gpu([model])  # what is free is free beside its weights
        at_once = rows_at_once(model, latent.shape, len(pictures))
        if _may_differ_by_picture(*positive[0]):  # the host counts its pictures from a batch's first row
            at_once = max(1, at_once // len(latent)) * len(latent)
    for start in range(0, len(pictures), at_once):
        some = pictures[start : start + at_once]
        now = noise[start : start + len(some)]
        guider.sample(now, latent[some], KSAMPLER(_forward_once), sigmas, disable_pbar=True, seed=seed)
        yield some


def sigma_of(noise_level: float, sampling: Any) -> float:
    """σ of a noise level (0 to 1): the level itself for models that scale the picture down beside the noise (rectified
    flow); for others the σ with the same ratio of picture to noise."""
    one = torch.ones(1, 1, 1, 1)
    scales_down = sampling.noise_scaling(torch.full((1,), 0.5), one * 0, one).item() < 1
    if scales_down:
        return noise_level
    # Pictures of models such as Cosmos have another deviation than one.
    return noise_level / (1 - noise_level) * getattr(sampling, "sigma_data", 1.0)


def rows_at_once(model: ModelPatcher, latent: Sequence[int], wanted: int) -> int:
    """Number of rows of a latent (rows, channels, …) that the device holds, by the host's own estimate and margin."""
    free = model_management.get_free_memory(model.load_device) - model_management.minimum_inference_memory()
    most = min(wanted, MOST_ROWS)
    rows = [count for count in range(1, most + 1) if 1.5 * model.memory_required([count, *latent[1:]]) <= free]
    return max(rows, default=1)


def _at_all_levels(prompt: Tensor, options: dict[str, Any]) -> list[Any]:
    """A condition without its part of a schedule: there is one step, at any noise level."""
    return [prompt, {name: value for name, value in options.items() if name not in ("start_percent", "end_percent")}]


def _may_differ_by_picture(prompt: Tensor, options: Mapping[str, Any]) -> bool:
    """Whether a condition may hold something for each picture: a ControlNet's hint, a picture beside it."""
    tensors = [value for value in options.values() if isinstance(value, Tensor)]
    return len(prompt) > 1 or "control" in options or any(each.ndim > 3 or len(each) > 1 for each in tensors)


def _takes_one_row(family: Family, condition: Mapping[str, Any]) -> bool:
    """Whether the host may take no second row beside this condition."""
    beside = (*family.unbatchable_conditions, "reference_latents")
    return not family.batchable or any(condition.get(name) is not None for name in beside)


@torch.no_grad()
def _forward_once(model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any] = {}, **_: Any) -> Tensor:
    """A sampler of one forward that returns its input."""
    model(x, sigmas[:1].expand(len(x)), **extra_args)
    return x
