"""The table of model families: everything this pack knows about each, and nothing else does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any, Literal

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
        before: what stands before the picture's tokens in their stream; None where it holds nothing but the picture.
        hooked: the host gives these blocks no block-replace hook, so this pack does (block_hooks.py).
    """

    kind: str
    blocks: str
    streams: tuple[str, ...]
    rows: tuple[str, ...]
    row_dim: Mapping[str, int] = field(default_factory=dict)
    before: Before | None = None
    hooked: bool = False

    @property
    def image(self) -> str:
        return self.streams[0]

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


@dataclass(frozen=True)
class Block:
    """One block: its key in the host's patches_replace, its stage, and its path below the diffusion model."""

    key: Key
    stage: Stage
    path: str


@dataclass(frozen=True)
class Family:
    """
    Attributes:
        name: what messages call it.
        model_class: full name of the host's class; its subclasses belong to the family too.
        stages: in execution order.
        when: tells models of one class apart.
        references: model conditions that become tokens beside the picture's: latents, or lists of them.
        mixed: model conditions whose tokens cannot be told from the picture's.
        padded: the model's attribute with the number of tokens to whose multiples the image stream is padded.
        long_skips: later blocks also receive what the earlier ones returned.
        one_row: model conditions with which the blocks must see exactly the forward's own rows: the host hands them
            to the blocks behind the patches' back, or for one row only.
    """

    name: str
    model_class: str
    stages: tuple[Stage, ...]
    when: Callable[[Any], bool] = lambda model: True
    references: tuple[str, ...] = ()
    mixed: tuple[str, ...] = ()
    padded: str = ""
    long_skips: bool = False
    one_row: tuple[str, ...] = ()

    def blocks(self, model: Any) -> list[Block]:
        """All blocks of a diffusion model, in execution order."""
        return [
            Block((stage.kind, index), stage, f"{stage.blocks}.{name}")
            for stage in self.stages
            for index, (name, _) in enumerate(getattr(model, stage.blocks).named_children())
        ]

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
            return Layout(0, 0)
        picture = image = _tokens(latent, model.patch_size)
        for name in self.references:
            given = conditions.get(name)
            latents = given if isinstance(given, list) else [] if given is None else [given]
            image += sum(_tokens(reference.shape, model.patch_size) for reference in latents)
        multiple = getattr(model, self.padded, None) if self.padded else None
        return Layout(picture, ceil(image / multiple) * multiple if multiple else image)


def _tokens(latent: Sequence[int], patch: int | Sequence[int]) -> int:
    """How many tokens a latent (rows, channels, …, height, width) becomes, with patches of these last sides."""
    sides = [patch, patch] if isinstance(patch, int) else list(patch)
    lengths = list(latent[2:])
    sides = ([1] * len(lengths) + sides)[-len(lengths) :]
    return prod(ceil(length / side) for length, side in zip(lengths, sides, strict=True))


def _flux_like(name: str, model_class: str) -> Family:
    return Family(
        name,
        model_class,
        stages=(
            Stage(
                "double_block",
                "double_blocks",
                streams=("img", "txt"),
                rows=("img", "txt", "vec", "pe", "attn_mask"),
                before="nothing",
            ),
            Stage(
                "single_block", "single_blocks", streams=("img",), rows=("img", "vec", "pe", "attn_mask"), before="text"
            ),
        ),
        references=("ref_latents",),
    )


def _wan_like(name: str, model_class: str, before: Before = "nothing", **columns: Any) -> Family:
    stage = Stage("double_block", "blocks", streams=("img",), rows=("img", "txt", "vec", "pe"), before=before)
    return Family(name, model_class, stages=(stage,), **columns)


FAMILIES = (
    Family(
        "SD3 / SD3.5",
        "comfy.ldm.modules.diffusionmodules.mmdit.MMDiT",
        stages=(Stage("double_block", "joint_blocks", streams=("img", "txt"), rows=("img", "txt", "vec")),),
    ),
    _flux_like("Flux / Flux.2", "comfy.ldm.flux.model.Flux"),
    _flux_like("Chroma / Chroma Radiance", "comfy.ldm.chroma.model.Chroma"),
    Family(
        "Qwen-Image",
        "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",
        stages=(
            Stage(
                "double_block",
                "transformer_blocks",
                streams=("img", "txt"),
                rows=("img", "txt", "vec", "pe"),
                before="nothing",
            ),
        ),
    ),
    # HuMo's audio reaches its blocks behind the patches' back, with the rows of the whole forward.
    _wan_like("Wan HuMo", "comfy.ldm.wan.model.HumoWanModel", one_row=("audio_embed",)),
    _wan_like(
        "Wan with a reference frame",
        "comfy.ldm.wan.model.WanModel",
        before="references",
        when=lambda model: getattr(model, "ref_conv", None) is not None,
        references=("reference_latent",),
    ),
    _wan_like("Wan", "comfy.ldm.wan.model.WanModel"),
    Family(
        "HunyuanVideo / HunyuanImage",
        "comfy.ldm.hunyuan_video.model.HunyuanVideo",
        stages=(
            Stage(
                "double_block",
                "double_blocks",
                streams=("img", "txt"),
                rows=("img", "txt", "vec", "pe", "attention_mask"),
                before="references",
            ),
            Stage(
                "single_block",
                "single_blocks",
                streams=("img",),
                rows=("img", "vec", "pe", "attention_mask"),
                before="references",
            ),
        ),
        references=("ref_latent",),
        one_row=("attention_mask", "ref_latent"),  # the host itself fails with them beside a second row
    ),
    Family(
        "AuraFlow",
        "comfy.ldm.aura.mmdit.MMDiT",
        stages=(
            Stage(
                "double_block", "double_layers", streams=("img", "txt"), rows=("img", "txt", "vec"), before="nothing"
            ),
            Stage("single_block", "single_layers", streams=("img",), rows=("img", "vec"), before="the rest"),
        ),
    ),
    Family(
        "LTX-Video",
        "comfy.ldm.lightricks.model.LTXVModel",
        stages=(
            Stage(
                "double_block",
                "transformer_blocks",
                streams=("img",),
                rows=("img", "txt", "attention_mask", "vec", "pe"),
            ),
        ),
    ),
    Family(
        "Mochi",
        "comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint",
        stages=(Stage("double_block", "blocks", streams=("img", "txt"), rows=("img", "txt", "vec")),),
    ),
    Family(
        "HunyuanDiT",
        "comfy.ldm.hydit.models.HunYuanDiT",
        stages=(Stage("double_block", "blocks", streams=("img",), rows=("img", "txt", "vec", "skip")),),
        long_skips=True,
    ),
    Family(
        "Lumina 2 / Z-Image",
        "comfy.ldm.lumina.model.NextDiT",
        stages=(
            Stage(
                "noise_refiner",
                "noise_refiner",
                streams=("x",),
                rows=("x", "x_mask", "freqs_cis", "adaln_input"),
                before="nothing",
                hooked=True,
            ),
            Stage(
                "layer",
                "layers",
                streams=("x",),
                rows=("x", "x_mask", "freqs_cis", "adaln_input"),
                before="text",
                hooked=True,
            ),
        ),
        padded="pad_tokens_multiple",
    ),
    Family(
        "HiDream",
        "comfy.ldm.hidream.model.HiDreamImageTransformer2DModel",
        stages=(
            Stage(
                "double_stream_block",
                "double_stream_blocks",
                streams=("image_tokens", "text_tokens"),
                rows=("image_tokens", "image_tokens_masks", "text_tokens", "adaln_input", "rope"),
                before="nothing",
                hooked=True,
            ),
            Stage(
                "single_stream_block",
                "single_stream_blocks",
                streams=("image_tokens",),
                rows=("image_tokens", "image_tokens_masks", "adaln_input", "rope"),
                before="nothing",
                hooked=True,
            ),
        ),
        mixed=("image_cond",),  # HiDream-E1 puts its reference beside the picture, row by row
    ),
    Family(
        "OmniGen2",
        "comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel",
        stages=(
            Stage(
                "noise_refiner",
                "noise_refiner",
                streams=("hidden_states",),
                rows=("hidden_states", "attention_mask", "image_rotary_emb", "temb"),
                before="nothing",
                hooked=True,
            ),
            Stage(
                "layer",
                "layers",
                streams=("hidden_states",),
                rows=("hidden_states", "attention_mask", "image_rotary_emb", "temb"),
                before="the rest",
                hooked=True,
            ),
        ),
    ),
    Family(
        "PixArt",
        "comfy.ldm.pixart.pixartms.PixArtMS",
        stages=(
            Stage("block", "blocks", streams=("x",), rows=("x", "y", "t"), row_dim={"y": 1}, hooked=True),  # y: one row
        ),
    ),
    Family(
        "Cosmos",
        "comfy.ldm.cosmos.model.GeneralDIT",
        stages=(
            Stage(
                "block",
                "blocks",
                streams=("x",),
                rows=("x", "emb_B_D", "crossattn_emb", "crossattn_mask", "adaln_lora_B_3D"),
                row_dim={"x": 3, "crossattn_emb": 1},
                hooked=True,
            ),
        ),
    ),
    Family(
        "Cosmos Predict2",
        "comfy.ldm.cosmos.predict2.MiniTrainDIT",
        stages=(
            Stage(
                "block",
                "blocks",
                streams=("x_B_T_H_W_D",),
                rows=("x_B_T_H_W_D", "emb_B_T_D", "crossattn_emb", "adaln_lora_B_T_3D", "extra_per_block_pos_emb"),
                hooked=True,
            ),
        ),
    ),
)


def network(model: Any) -> Any:
    """A diffusion model without the torch.compile around it."""
    return getattr(model, "_orig_mod", model)


def family_of(model: Any) -> Family:
    """
    Raises:
        ValueError: none of the table.
    """
    lineage = {f"{cls.__module__}.{cls.__qualname__}" for cls in type(model).__mro__}
    for family in FAMILIES:
        if family.model_class in lineage and family.when(model):
            return family
    names = sorted({family.name for family in FAMILIES})
    raise ValueError(
        f"Detail Guidance cannot patch this model: its network is {type(model).__name__}. "
        f"Supported: {', '.join(names)}."
    )
