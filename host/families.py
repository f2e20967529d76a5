"""The table of model families: everything this pack knows about each, and nothing else does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from operator import attrgetter
from typing import Any, Literal

import torch
from torch import Tensor

Key = tuple[str, int]
Before = Literal["nothing", "text", "references", "the rest"]


@dataclass(frozen=True)
class Stage:
    """Successive blocks of one kind.

    Attributes:
        kind: of the blocks' keys, (kind, index), in the host's patches_replace.
        blocks: the model's attribute with them.
        streams: block arguments that the blocks update and return; the first one holds the picture's tokens. Its shape
            is (rows, tokens, channels), or (…, channels) with rows at `row_dim` where it holds nothing else.
        rows: block arguments with one row per picture in the batch.
        row_dim: which dimension of an argument the rows are, where it is not the first.
        packed: arguments with all the tokens of all rows in that dimension.
        before: what stands before the picture's tokens in their stream; None where it holds nothing but the picture.
        hooked: the host gives these blocks no block-replace hook, so this pack does (block_hooks.py).
        gates: (block, its arguments) → AdaLN's residual gates α of the image stream, (rows, gates, channels), or None
            where this model makes them elsewhere.
    """

    kind: str
    blocks: str
    streams: tuple[str, ...]
    rows: tuple[str, ...]
    row_dim: Mapping[str, int] = field(default_factory=dict)
    packed: tuple[str, ...] = ()
    before: Before | None = None
    hooked: bool = False
    gates: Callable[[Any, Mapping[str, Any]], Tensor | None] | None = None

    @property
    def image(self) -> str:
        return self.streams[0]

    def list_in(self, network: Any) -> Any:
        """A network's list of these blocks."""
        return attrgetter(self.blocks)(network)

    def row_dim_of(self, name: str) -> int:
        return self.row_dim.get(name, 0)


@dataclass(frozen=True)
class Layout:
    """Where the picture's tokens lie in the streams of one forward.

    Attributes:
        picture: how many they are.
        image: how many tokens the image stream has before text joins it: the picture's, and what stands beside them.
    """

    picture: int
    image: int

    def tokens(self, stage: Stage, length: int) -> slice:
        """The picture's, in a stream of this length at a block of this stage."""
        if stage.before is None:
            return slice(None)
        start = {
            "nothing": 0,
            "references": self.image - self.picture,
            "text": length - self.image,
            "the rest": length - self.picture,
        }[stage.before]
        return slice(start, start + self.picture)

    def picture_of(self, stage: Stage, args: Mapping[str, Any], rows: slice) -> Tensor:
        """A view of the picture's tokens of some rows, in the arguments of a block of this stage."""
        stream = args[stage.image]
        where = [slice(None)] * stream.ndim
        where[1] = self.tokens(stage, stream.shape[1])
        where[stage.row_dim_of(stage.image)] = rows
        return stream[tuple(where)]

    def text(self, length: int) -> slice:
        """The text's, in a stream of this length where it stands before the image."""
        return slice(0, length - self.image)


@dataclass(frozen=True)
class Block:
    """One block: its key in the host's patches_replace, and its stage."""

    key: Key
    stage: Stage

    @property
    def name(self) -> str:
        """For people: "double 12", "single 3"."""
        kind, index = self.key
        return f"{kind.removesuffix('_block').replace('_', ' ')} {index}"


@dataclass(frozen=True)
class Family:
    """
    Attributes:
        name: what messages call it.
        model_classes: full names of the host's classes, below `comfy.ldm`. Not their subclasses: where those have their
            picture is not known.
        stages: in execution order.
        when: tells models of one class apart.
        references: model conditions that become tokens beside the picture's: latents, or lists of them.
        mixed: model conditions whose tokens cannot be told from the picture's.
        padded: the model's attribute with the number of tokens to whose multiples the image stream is padded.
        long_skips: later blocks also receive what the earlier ones returned.
        not_together: model conditions with which rows cannot be shared: the host hands them to the blocks behind the
            patches' back, or takes them for one row only.
    """

    name: str
    model_classes: tuple[str, ...]
    stages: tuple[Stage, ...]
    when: Callable[[Any], bool] = lambda model: True
    references: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    padded: str = ""
    long_skips: bool = False
    not_together: tuple[str, ...] = ()

    def blocks(self, model: Any) -> tuple[Block, ...]:
        """All blocks of a diffusion model, in execution order."""
        return tuple(
            Block((stage.kind, index), stage) for stage in self.stages for index in range(len(stage.list_in(model)))
        )

    def layout(self, model: Any, latent: Sequence[int], conditions: Mapping[str, Any]) -> Layout:
        """Of a forward for a latent of this shape, (rows, channels, …, height, width), with these model conditions.

        Raises:
            ValueError: the picture cannot be told from a reference image.
        """
        mixed = [name for name in self.mixed if conditions.get(name) is not None]
        if mixed:
            raise ValueError(
                f"Detail Guidance cannot tell the picture from its reference image ({mixed[0]}) on {self.name}. Remove "
                "the reference image, or Detail Guidance."
            )
        if all(stage.before is None for stage in self.stages):
            return Layout(0, 0)  # no stage asks
        picture = image = _tokens(latent, model.patch_size)
        for name in self.references:
            given = conditions.get(name)
            latents = given if isinstance(given, list) else [] if given is None else [given]
            image += sum(_tokens(reference.shape, model.patch_size) for reference in latents)
        multiple = vars(model).get(self.padded)
        return Layout(picture, ceil(image / multiple) * multiple if multiple else image)


def _tokens(latent: Sequence[int], patch: int | Sequence[int]) -> int:
    """How many tokens a latent (rows, channels, …, height, width) becomes, with patches of these last sides."""
    sides = [patch, patch] if isinstance(patch, int) else list(patch)
    lengths = list(latent[2:])
    sides = ([1] * len(lengths) + sides)[-len(lengths) :]
    return prod(ceil(length / side) for length, side in zip(lengths, sides, strict=True))


def _stage(kind: str, blocks: str, streams: str, rows: str, before: Before | None = None, **more: Any) -> Stage:
    return Stage(kind, blocks, tuple(streams.split()), tuple(rows.split()), before=before, **more)


def _hooked_stage(kind: str, blocks: str, streams: str, rows: str, before: Before | None = None, **more: Any) -> Stage:
    return _stage(kind, blocks, streams, rows, before, hooked=True, **more)


def _sd3_gates(block: Any, args: Mapping[str, Any]) -> Tensor:
    # shift, scale and gate of each of the block's two or three branches
    modulation = block.x_block.adaLN_modulation(args["vec"])
    return modulation.unflatten(-1, (-1, 3, args["img"].shape[-1]))[..., 2, :]


def _flux_gates(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    if not isinstance(args["vec"], Tensor):  # Chroma and Flux.2 make them outside the blocks
        return None
    modulation = block.img_mod if hasattr(block, "img_mod") else block.modulation
    return torch.cat([each.gate for each in modulation(args["vec"]) if each is not None], dim=1)


_FLUX_STAGES = (
    _stage("double_block", "double_blocks", "img txt", "img txt vec pe attn_mask", "nothing", gates=_flux_gates),
    _stage("single_block", "single_blocks", "img", "img vec pe attn_mask", "text", gates=_flux_gates),
)
_WAN = (
    "wan.model.WanModel",
    "wan.model.VaceWanModel",
    "wan.model.CameraWanModel",
    "wan.model.WanModel_S2V",
    "wan.model_animate.AnimateWanModel",
)
_WAN_STAGES = (_stage("double_block", "blocks", "img", "img txt vec pe", "nothing"),)

FAMILIES = (
    Family(
        "SD3 / SD3.5",
        ("modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper",),
        (_stage("double_block", "joint_blocks", "img txt", "img txt vec", gates=_sd3_gates),),
    ),
    Family("Flux / Flux.2", ("flux.model.Flux",), _FLUX_STAGES, references=("ref_latents",)),
    Family("Chroma / Chroma Radiance", ("chroma.model.Chroma", "chroma_radiance.model.ChromaRadiance"), _FLUX_STAGES),
    Family(
        "Qwen-Image",
        ("qwen_image.model.QwenImageTransformer2DModel",),
        (_stage("double_block", "transformer_blocks", "img txt", "img txt vec pe", "nothing"),),
    ),
    Family(
        "Wan HuMo",
        ("wan.model.HumoWanModel",),
        _WAN_STAGES,
        not_together=("audio_embed",),  # it reaches the blocks behind the patches' back, with the whole forward's rows
    ),
    Family(
        "Wan with a reference frame",
        _WAN,
        (_stage("double_block", "blocks", "img", "img txt vec pe", "references"),),
        when=lambda model: getattr(model, "ref_conv", None) is not None,
        references=("reference_latent",),
    ),
    Family("Wan", _WAN, _WAN_STAGES),
    Family(
        "HunyuanVideo / HunyuanImage",
        ("hunyuan_video.model.HunyuanVideo",),
        (
            _stage("double_block", "double_blocks", "img txt", "img txt vec pe attention_mask", "references"),
            _stage("single_block", "single_blocks", "img", "img vec pe attention_mask", "references"),
        ),
        references=("ref_latent",),
        # The host itself fails with these beside a second row.
        not_together=("attention_mask", "ref_latent", "guiding_frame_index"),
    ),
    Family(
        "AuraFlow",
        ("aura.mmdit.MMDiT",),
        (
            _stage("double_block", "double_layers", "img txt", "img txt vec", "nothing"),
            _stage("single_block", "single_layers", "img", "img vec", "the rest"),
        ),
    ),
    Family(
        "LTX-Video",
        ("lightricks.model.LTXVModel",),
        (_stage("double_block", "transformer_blocks", "img", "img txt attention_mask vec pe"),),
    ),
    Family(
        "Mochi",
        ("genmo.joint_model.asymm_models_joint.AsymmDiTJoint",),
        (_stage("double_block", "blocks", "img txt", "img txt vec"),),
    ),
    Family(
        "HunyuanDiT",
        ("hydit.models.HunYuanDiT",),
        (_stage("double_block", "blocks", "img", "img txt vec skip"),),
        long_skips=True,
    ),
    Family(
        "Lumina 2 / Z-Image",
        ("lumina.model.NextDiT",),
        (
            _hooked_stage("noise_refiner", "noise_refiner", "x", "x x_mask freqs_cis adaln_input", "nothing"),
            _hooked_stage("layer", "layers", "x", "x x_mask freqs_cis adaln_input", "text"),
        ),
        padded="pad_tokens_multiple",
        mixed=("ref_latents", "ref_contexts", "siglip_feats"),  # newer hosts' references come before the picture
    ),
    Family(
        "HiDream",
        ("hidream.model.HiDreamImageTransformer2DModel",),
        (
            _hooked_stage(
                "double_stream_block",
                "double_stream_blocks",
                "image_tokens text_tokens",
                "image_tokens image_tokens_masks text_tokens adaln_input rope",
                "nothing",
            ),
            _hooked_stage(
                "single_stream_block",
                "single_stream_blocks",
                "image_tokens",
                "image_tokens image_tokens_masks adaln_input rope",
                "nothing",
            ),
        ),
        mixed=("image_cond",),  # HiDream-E1 puts its reference beside the picture, row by row
    ),
    Family(
        "OmniGen2",
        ("omnigen.omnigen2.OmniGen2Transformer2DModel",),
        (
            _hooked_stage(
                "noise_refiner", "noise_refiner", "hidden_states", "hidden_states image_rotary_emb temb", "nothing"
            ),
            _hooked_stage("layer", "layers", "hidden_states", "hidden_states image_rotary_emb temb", "the rest"),
        ),
    ),
    Family(
        "PixArt",
        ("pixart.pixartms.PixArtMS",),
        (_hooked_stage("block", "blocks", "x", "x y t", row_dim={"y": 1}, packed=("y",)),),
    ),
    Family(
        "Cosmos",
        ("cosmos.model.GeneralDIT",),
        (
            _hooked_stage(
                "block",
                "blocks",
                "x",
                "x emb_B_D crossattn_emb crossattn_mask adaln_lora_B_3D",
                row_dim={"x": 3, "crossattn_emb": 1},
            ),
        ),
    ),
    Family(
        "Cosmos Predict2",
        ("cosmos.predict2.MiniTrainDIT",),
        (
            _hooked_stage(
                "block",
                "blocks",
                "x_B_T_H_W_D",
                "x_B_T_H_W_D emb_B_T_D crossattn_emb adaln_lora_B_T_3D extra_per_block_pos_emb",
            ),
        ),
    ),
)


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What one model is made of.

    Attributes:
        network: its diffusion model, without the torch.compile around it.
        family: its row of the table.
        blocks: all of them, in execution order.
    """

    network: Any
    family: Family
    blocks: tuple[Block, ...]


def anatomy(model: Any) -> Anatomy:
    """Of a ModelPatcher's model.

    Raises:
        ValueError: no row of the table fits it.
    """
    diffusion_model = model.get_model_object("diffusion_model")
    network = getattr(diffusion_model, "_orig_mod", diffusion_model)
    family = family_of(network)
    return Anatomy(network, family, family.blocks(network))


def family_of(model: Any) -> Family:
    """
    Raises:
        ValueError: none of the table.
    """
    name = f"{type(model).__module__}.{type(model).__qualname__}".removeprefix("comfy.ldm.")
    for family in FAMILIES:
        if name in family.model_classes and family.when(model):
            return family
    names = sorted({family.name for family in FAMILIES})
    raise ValueError(
        f"Detail Guidance cannot patch this model: its network is {type(model).__name__}. "
        f"Supported: {', '.join(names)}."
    )
