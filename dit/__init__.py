"""A Diffusion Transformer in ComfyUI: what stands where, and how to look at it or change it while it samples.

This layer knows the host and no method. A method asks for:

    anatomy_of           what a model is made of: its family's row, its network, its blocks in execution order
    on_run               do something in every sampling run of a model
    observed             see what stands at each block's input in every step
    forward_noised       one forward of pictures that are noised to one level, for an observer
    attention_patch      read or replace one block's attention
    on_sublayers         a block's sublayer outputs before their gates; `observing_linear_inputs` its linear layers'
    append_tokens        more tokens in a block's image stream, with positions
    patched, by_key      any other block patches, in one forward
    token_layout         where the image tokens are; `checked` compares that with the streams, as every patch must
    requesting_perturbed_in_windows   a second prediction that departs at a block: a step's request and result
    perturbing_in_place  a prediction that the host computes in any case, perturbed
    ksample              sampling as KSampler
    model_fingerprint    by which files know a model's weights

docs/DEVELOPMENT.md has a method of forty lines as its example.
"""

from .anatomy import Anatomy, anatomy_of
from .attention import AttentionCall, attention_patch, attention_with_lse
from .branch.in_place import perturbing_in_place
from .branch.request import (
    BlockPerturbation,
    ForwardRequest,
    Perturbation,
    PerturbedCall,
    StepRequest,
    StepResult,
    StepStats,
)
from .branch.windows import requesting_perturbed_in_windows
from .fingerprint import model_fingerprint
from .forward import Args, Batch, Inner, Patch, by_key, chunks_of, patched
from .noised import forward_noised
from .observer import BlockInput, Observer, observed
from .run import Wrappers, has_run, on_run, without_run
from .sampling import KSamplerSettings, ksample
from .sublayers import InputStatistics, observing_linear_inputs, on_sublayers
from .token_layout import TokenLayout, UnknownLayout, checked, token_layout
from .tokens import append_tokens, without_appended

__all__ = [
    "Anatomy",
    "Args",
    "AttentionCall",
    "Batch",
    "BlockInput",
    "BlockPerturbation",
    "ForwardRequest",
    "Inner",
    "InputStatistics",
    "KSamplerSettings",
    "Observer",
    "Patch",
    "Perturbation",
    "PerturbedCall",
    "StepRequest",
    "StepResult",
    "StepStats",
    "TokenLayout",
    "UnknownLayout",
    "Wrappers",
    "anatomy_of",
    "append_tokens",
    "attention_patch",
    "attention_with_lse",
    "by_key",
    "checked",
    "chunks_of",
    "forward_noised",
    "has_run",
    "ksample",
    "model_fingerprint",
    "observed",
    "observing_linear_inputs",
    "on_run",
    "on_sublayers",
    "patched",
    "perturbing_in_place",
    "requesting_perturbed_in_windows",
    "token_layout",
    "without_appended",
    "without_run",
]
