"""The table of model families: everything this pack knows about each, and nothing else does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from comfy.model_management import cast_to
from torch import Tensor

from ..methods.massive_activations.recording import grid_of
from .token_layout import Block, Layout, Order, Prompt, Reading, Stage, grid_in, tokens_in, tokens_of


@dataclass(frozen=True)
class Family:
    """
    Attributes:
        name: what messages call it.
        model_classes: full names of the host's classes, below `comfy.ldm`. Not their subclasses: where those have their
            picture is not known.
        stages: in execution order.
        when: tells models of one class apart.
        patch: model → the sides of a token, in the latent's last dimensions; None where they are not counted.
        ahead, behind: model conditions that become tokens before and after the picture's.
        open: more tokens may follow, which no condition tells.
        mixed: model conditions whose tokens cannot be told from the picture's.
        padded: the model's attribute with the number of tokens to whose multiples images are padded.
        long_skips: later blocks also receive what the earlier ones returned.
        together: rows can be shared at all.
        not_together: model conditions with which they cannot: the host hands them to the blocks behind the patches'
            back, or takes them for one row only.
        one_row: (model, model conditions) → whether the host itself takes no second row with them.
        words_block: of the block in which a word's attention shows best where it is, by what was published; None where
            nothing was.
        words_behind: model → whether other tokens stand before the prompt's among the text's.
        told: blocks are told which rows are whose (transformer_options).
        prompt_cache: the model keeps the prompt's keys and values from step to step, except under block patches.
    """

    name: str
    model_classes: tuple[str, ...]
    stages: tuple[Stage, ...]
    when: Callable[[Any], bool] = lambda model: True
    patch: Callable[[Any], Any] | None = attrgetter("patch_size")
    ahead: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    open: bool = False
    mixed: tuple[str, ...] = ()
    padded: str = ""
    long_skips: bool = False
    together: bool = True
    not_together: tuple[str, ...] = ()
    one_row: Callable[[Any, Mapping[str, Any]], bool] = lambda model, conditions: False
    words_block: int | None = None
    words_behind: Callable[[Any], bool] = lambda model: False
    prompt_cache: bool = False
    told: bool = True

    def shares_rows(self, model: Any, conditions: Mapping[str, Any]) -> bool:
        """Whether a forward with these model conditions can have rows that share blocks."""
        behind_our_back = any(conditions.get(name) is not None for name in self.not_together)
        return self.together and not behind_our_back and not self.one_row(model, conditions)

    def blocks(self, model: Any) -> tuple[Block, ...]:
        """All blocks of a diffusion model, in execution order."""
        blocks = []
        for stage in self.stages:
            last = len(stage.list_in(model)) - 1
            blocks += [Block((stage.kind, index), stage, index == 0, index == last) for index in range(last + 1)]
        return tuple(blocks)

    def reading(
        self, model: Any, latent: torch.Size, conditions: Mapping[str, Any], orders: Mapping[str, Order]
    ) -> Reading:
        """Of the streams of a forward for a latent of this shape, (rows, channels, …, height, width), with these model
        conditions.

        Args:
            orders: that this run has shown, by kind of block.

        Raises:
            ValueError: the picture cannot be told from a reference image.
        """
        mixed = [name for name in self.mixed if conditions.get(name) is not None]
        if mixed:
            raise ValueError(
                f"Detail Guidance cannot tell the picture from its reference image ({mixed[0]}) on {self.name}. Remove "
                "the reference image, or Detail Guidance."
            )
        held = any(name.endswith("denoise_mask") for name in conditions)
        return Reading(self.name, self._layout(model, latent, conditions), orders, held)

    def _layout(self, model: Any, latent: torch.Size, conditions: Mapping[str, Any]) -> Layout | None:
        if self.patch is None:
            return None
        patch, multiple = self.patch(model), vars(model).get(self.padded) or 1

        def images(names: tuple[str, ...]) -> list[int]:
            given = [conditions.get(name) for name in names]
            each = [one for value in given for one in (value if isinstance(value, list) else [value])]
            return [tokens_of(one, patch) for one in each]

        # What stands before the picture is padded image by image, the picture with what follows it.
        ahead = sum(tokens + -tokens % multiple for tokens in images(self.ahead))
        picture, behind = tokens_in(latent, patch), sum(images(self.behind))
        padding = -(picture + behind) % multiple
        return Layout(ahead, picture, behind + padding, counted=not self.open)


def _stage(kind: str, blocks: str, streams: str, rows: str, order: Order = "picture", **more: Any) -> Stage:
    return Stage(kind, blocks, tuple(streams.split()), tuple(rows.split()), order, **more)


def _hooked_stage(kind: str, blocks: str, streams: str, rows: str, order: Order = "picture", **more: Any) -> Stage:
    return _stage(kind, blocks, streams, rows, order, hooked=True, **more)


def _sd3_modulation(block: Any, args: Mapping[str, Any]) -> Tensor:
    return _branches(block.x_block.adaLN_modulation(args["vec"]), args["img"])


def _flux_modulation(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    vec, single = args["vec"], not hasattr(block, "img_attn")
    if not isinstance(vec, Tensor):  # Chroma and Flux.2 make it outside the blocks: of the picture, and of the text
        branches = [vec] if single else vec[0]
    else:
        branches = [each for each in (block.modulation if single else block.img_mod)(vec) if each is not None]
    shape = torch.broadcast_shapes(*(each.shift.shape for each in branches))
    if shape[1] != 1:  # tokens at other times
        return None
    return torch.stack([torch.cat([each.shift, each.scale, each.gate], dim=1) for each in branches], dim=1)


def _qwen_modulation(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    return _branches(block.img_mod(args["vec"]), args["img"]) if isinstance(args["vec"], Tensor) else None


def _wan_modulation(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    time = args["vec"]
    if time.ndim == 4 and time.shape[1] != 1:  # frames at other times
        return None
    return _branches((cast_to(block.modulation, time.dtype, time.device) + time).flatten(1), args["img"])


def _lumina_modulation(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    time = args.get("adaln_input")
    if time is None or not block.modulation:
        return None
    scale_and_gate = block.adaLN_modulation(time).unflatten(-1, (2, 2, args["x"].shape[-1]))
    scale, gate = scale_and_gate.unbind(-2)
    return torch.stack([torch.zeros_like(scale), scale, gate.tanh()], dim=-2)


def _aura_modulation(block: Any, args: Mapping[str, Any]) -> Tensor:
    of_picture = block.modX if hasattr(block, "modX") else block.modCX
    return _branches(of_picture(args["vec"]), args["img"])


def _table_modulation(block: Any, time: Tensor, image: Tensor) -> Tensor | None:
    """A block's table of branches, to which the time's is added: (rows, 6 · channels) or (rows, 1, 6 · channels)."""
    if time.ndim == 3 and time.shape[1] != 1:  # tokens at other times
        return None
    table = cast_to(block.scale_shift_table, time.dtype, time.device)
    return _branches(table.flatten() + time.flatten(1), image)


def _ltx_modulation(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    return _table_modulation(block, args["vec"], args["img"])


def _pixart_modulation(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    return _table_modulation(block, args["t"], args["x"])


def _predict2_modulation(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    time, low_rank = args["emb_B_T_D"], args.get("adaln_lora_B_T_3D")
    if time.shape[1] != 1:  # frames at other times
        return None
    numbers = block.adaln_modulation_self_attn(time)
    return _branches((numbers + low_rank if block.use_adaln_lora else numbers).flatten(1), args["x_B_T_H_W_D"])


def _branches(numbers: Tensor, image: Tensor) -> Tensor:
    """Shift, scale and gate of one branch after another, (rows, 3 · branches · channels)."""
    return numbers.unflatten(-1, (-1, 3, image.shape[-1]))


def _before(block: Any) -> Prompt:
    return "before"


def _across(block: Any) -> Prompt:
    return "across"


def _flux_prompt(block: Any) -> Prompt:
    return "behind" if getattr(block, "flipped_img_txt", False) else "before"


def _guided_at_time_zero(model: Any, conditions: Mapping[str, Any]) -> bool:
    """References at time zero double the rows of the time, but not those of the guidance that is added to it."""
    default = vars(model.params).get("default_ref_method")
    at_zero = conditions.get("ref_latents_method", default) == "index_timestep_zero"
    guided = model.params.guidance_embed and conditions.get("guidance") is not None
    return guided and at_zero and bool(conditions.get("ref_latents"))


def _packed(model: Any) -> int:
    """Its latents are packed already: a token is one place."""
    return 1


def _cosmos_patch(model: Any) -> tuple[int, int, int]:
    return model.patch_temporal, model.patch_spatial, model.patch_spatial


_FLUX_STAGES = (
    _stage(
        "double_block",
        "double_blocks",
        "img txt",
        "img txt vec pe attn_mask",
        "image",
        modulation=_flux_modulation,
        prompt=_flux_prompt,
    ),
    _stage(
        "single_block",
        "single_blocks",
        "img",
        "img vec pe attn_mask",
        "text image",
        modulation=_flux_modulation,
        prompt=_before,
    ),
)
_WAN = (
    "wan.model.WanModel",
    "wan.model.VaceWanModel",
    "wan.model.CameraWanModel",
    "wan.model_animate.AnimateWanModel",
    "wan.model_wandancer.WanDancerModel",
)
_WAN_STAGES = (
    _stage("double_block", "blocks", "img", "img txt vec pe", "image", modulation=_wan_modulation, prompt=_across),
)

FAMILIES = (
    Family(
        "SD3 / SD3.5",
        ("modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper",),
        (_stage("double_block", "joint_blocks", "img txt", "img txt vec", modulation=_sd3_modulation, prompt=_before),),
        words_block=9,
    ),
    Family(
        "Flux / Flux.2",
        ("flux.model.Flux",),
        _FLUX_STAGES,
        behind=("ref_latents",),
        one_row=_guided_at_time_zero,
        words_block=12,
        words_behind=lambda model: not model.params.vec_in_dim,  # Flux.2's prompts are padded before
    ),
    Family("Chroma / Chroma Radiance", ("chroma.model.Chroma", "chroma_radiance.model.ChromaRadiance"), _FLUX_STAGES),
    Family(
        "Qwen-Image",
        ("qwen_image.model.QwenImageTransformer2DModel",),
        (
            _stage(
                "double_block",
                "transformer_blocks",
                "img txt",
                "img txt vec pe",
                "image",
                grouped=("vec",),
                modulation=_qwen_modulation,
                prompt=_before,
            ),
        ),
        behind=("ref_latents",),
        not_together=("attention_mask",),  # it reaches the blocks behind the patches' back
    ),
    Family(
        "Qwen-Image 2.1",
        ("qwen_image21.model.QwenImage21Transformer2DModel",),
        (_stage("single_block", "transformer_blocks", "img", "", "image"),),
        patch=_packed,
        ahead=("context", "ref_latents"),
        together=False,  # one modulation of the whole forward's rows for all blocks, behind the patches' back
        prompt_cache=True,
    ),
    Family(
        "Mage-Flow",
        ("mage_flow.model.MageFlowTransformer2DModel",),
        (_stage("double_block", "transformer_blocks", "img txt", "img txt vec pe", "image"),),
        behind=("ref_latents",),
        not_together=("attention_mask",),  # it reaches the blocks behind the patches' back
    ),
    Family(
        "Lens",
        ("lens.model.LensTransformer2DModel",),
        (_stage("double_block", "transformer_blocks", "img txt", "img txt vec pe attn_mask"),),
        patch=_packed,
    ),
    Family(
        "JoyImage",
        ("joyimage.model.JoyImageTransformer3DModel",),
        (_stage("double_block", "double_blocks", "img txt", "img txt vec pe", "image"),),
        behind=("ref_latents",),
    ),
    Family(
        "Krea 2",
        ("krea2.model.SingleStreamDiT",),
        (_hooked_stage("block", "blocks", "x", "x vec freqs", "image", grouped=("vec",)),),
        patch=attrgetter("patch"),
        ahead=("context",),
        behind=("ref_latents",),
    ),
    Family(
        "Ernie-Image",
        ("ernie.model.ErnieImageModel",),
        (_hooked_stage("layer", "layers", "x", "x rotary_pos_emb temb attention_mask", "image"),),
        behind=("context",),
    ),
    Family(
        "Ideogram 4",
        ("ideogram4.model.Ideogram4Transformer2DModel",),
        (_hooked_stage("layer", "layers", "x", "x attn_mask freqs_cis adaln_input", "image"),),
        patch=_packed,
        ahead=("context",),
    ),
    Family(
        "Boogu",
        ("boogu.model.BooguTransformer2DModel",),
        (
            _hooked_stage("noise_refiner", "noise_refiner", "hidden_states", "hidden_states image_rotary_emb temb"),
            _hooked_stage(
                "double_stream_layer",
                "double_stream_layers",
                "img_hidden_states instruct_hidden_states",
                "img_hidden_states instruct_hidden_states joint_rotary_emb img_rotary_emb temb",
                "image",
            ),
            _hooked_stage(
                "single_stream_layer",
                "single_stream_layers",
                "hidden_states",
                "hidden_states image_rotary_emb temb",
                "text image",
            ),
        ),
        ahead=("ref_latents",),
    ),
    Family(
        "CogVideoX",
        ("cogvideo.model.CogVideoXTransformer3DModel",),
        (
            _hooked_stage(
                "block",
                "blocks",
                "hidden_states encoder_hidden_states",
                "hidden_states encoder_hidden_states temb",
            ),
        ),
        patch=lambda model: (model.patch_size_t or 1, model.patch_size, model.patch_size),
    ),
    Family(
        "Kandinsky 5",
        ("kandinsky5.model.Kandinsky5",),
        # The host has a hook for these blocks, but calls them by names that they do not have.
        (
            _hooked_stage(
                "visual_block", "visual_transformer_blocks", "visual_embed", "visual_embed text_embed time_embed"
            ),
        ),
    ),
    Family(
        "PixelDiT / PiD",
        ("pixeldit.model.PixDiT_T2I", "pixeldit.pid.PidNet"),
        (_hooked_stage("patch_block", "patch_blocks", "x y", "x y c"),),
    ),
    Family(
        "HiDream-O1",
        ("hidream_o1.model.HiDreamO1Transformer",),
        (_stage("double_block", "language_model.layers", "x", "x", "image"),),
        ahead=("input_ids",),
        behind=("ref_patches",),
        prompt_cache=True,
    ),
    Family(
        "LTX-2",
        ("lightricks.av_model.LTXAVModel",),
        (_stage("double_block", "transformer_blocks", "img", ""),),
        patch=None,  # masked frames leave the stream
        together=False,  # its modulations hide their rows
    ),
    Family(
        "MiniMax H3",
        ("minimax.model.MiniMaxH3Model",),
        (_stage("double_block", "blocks", "img", "", "text image", row_dim={"img": None}),),
        together=False,  # it takes one row
    ),
    Family(
        "Wan HuMo",
        ("wan.model.HumoWanModel",),
        _WAN_STAGES,
        behind=("reference_latent",),
        not_together=("audio_embed",),  # it reaches the blocks behind the patches' back, with the whole forward's rows
    ),
    Family(
        "Wan with a reference frame",
        _WAN,
        _WAN_STAGES,
        when=lambda model: getattr(model, "ref_conv", None) is not None,
        ahead=("reference_latent",),
        behind=("time_dim_concat", "context_latents"),
    ),
    Family("Wan", _WAN, _WAN_STAGES, behind=("time_dim_concat", "context_latents")),
    Family(
        "Wan SCAIL",
        ("wan.model.SCAILWanModel", "wan.model.SCAIL2WanModel"),
        _WAN_STAGES,
        ahead=("reference_latent",),
        behind=("time_dim_concat", "pose_latents"),
    ),
    Family(
        "Wan Animate 2",
        ("wan.model_animate2.WanAnimate2Model",),
        _WAN_STAGES,
        not_together=("pose_latents",),  # their keys and values reach the blocks behind the patches' back
    ),
    Family(
        "Wan",
        ("wan.model.WanModel_S2V",),
        _WAN_STAGES,
        behind=("reference_latent",),
        open=True,  # motion follows
        told=False,
    ),
    Family(
        "HunyuanVideo / HunyuanImage",
        ("hunyuan_video.model.HunyuanVideo",),
        (
            _stage(
                "double_block",
                "double_blocks",
                "img txt",
                "img txt vec pe attention_mask",
                "image",
                modulation=_flux_modulation,
                prompt=_flux_prompt,
            ),
            _stage(
                "single_block",
                "single_blocks",
                "img",
                "img vec pe attention_mask",
                "text image",
                modulation=_flux_modulation,
            ),
        ),
        ahead=("ref_latent",),
        # The host itself fails with these beside a second row.
        not_together=("attention_mask", "ref_latent", "guiding_frame_index"),
    ),
    Family(
        "AuraFlow",
        ("aura.mmdit.MMDiT",),
        (
            _stage(
                "double_block", "double_layers", "img txt", "img txt vec", modulation=_aura_modulation, prompt=_before
            ),
            _stage(
                "single_block",
                "single_layers",
                "img",
                "img vec",
                "text image",
                modulation=_aura_modulation,
                prompt=_before,
            ),
        ),
        words_behind=lambda model: True,  # registers are before it
    ),
    Family(
        "LTX-Video",
        ("lightricks.model.LTXVModel",),
        (
            _stage(
                "double_block",
                "transformer_blocks",
                "img",
                "img txt attention_mask vec pe",
                modulation=_ltx_modulation,
                prompt=_across,
            ),
        ),
        patch=None,  # masked frames leave the stream
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
        told=False,
    ),
    Family(
        "Lumina 2 / Z-Image",
        ("lumina.model.NextDiT", "lumina.model.NextDiTPixelSpace"),
        (
            _hooked_stage(
                "noise_refiner",
                "noise_refiner",
                "x",
                "x x_mask freqs_cis adaln_input",
                "image",
                grouped=("adaln_input",),
                modulation=_lumina_modulation,
            ),
            _hooked_stage(
                "layer",
                "layers",
                "x",
                "x x_mask freqs_cis adaln_input",
                "text image",
                grouped=("adaln_input",),
                modulation=_lumina_modulation,
            ),
        ),
        padded="pad_tokens_multiple",
        ahead=("ref_latents",),
        behind=("ref_frames",),  # Ming-Image's
        not_together=("ref_contexts",),  # the host cannot repeat a text that no reference follows
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
                "image",
            ),
            _hooked_stage(
                "single_stream_block",
                "single_stream_blocks",
                "image_tokens",
                "image_tokens image_tokens_masks adaln_input rope",
                "image text",
            ),
        ),
        mixed=("image_cond",),  # HiDream-E1 puts its reference beside the picture, row by row
    ),
    Family(
        "OmniGen2",
        ("omnigen.omnigen2.OmniGen2Transformer2DModel",),
        (
            _hooked_stage("noise_refiner", "noise_refiner", "hidden_states", "hidden_states image_rotary_emb temb"),
            _hooked_stage("layer", "layers", "hidden_states", "hidden_states image_rotary_emb temb", "text image"),
        ),
    ),
    Family(
        "PixArt",
        ("pixart.pixartms.PixArtMS",),
        (
            _hooked_stage(
                "block", "blocks", "x", "x y t", row_dim={"y": 1}, packed=("y",), modulation=_pixart_modulation
            ),
        ),
        told=False,
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
                prompt=_across,
            ),
        ),
        patch=_cosmos_patch,
    ),
    Family(
        "Cosmos Predict2 / Anima",
        ("cosmos.predict2.MiniTrainDIT", "anima.model.Anima"),
        (
            _hooked_stage(
                "block",
                "blocks",
                "x_B_T_H_W_D",
                "x_B_T_H_W_D emb_B_T_D crossattn_emb adaln_lora_B_T_3D extra_per_block_pos_emb",
                modulation=_predict2_modulation,
                prompt=_across,
            ),
        ),
        patch=_cosmos_patch,
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

    def grid(self, tokens: int, latent: Sequence[int]) -> tuple[int, ...]:
        """How many frames, of a video, rows and columns of tokens a latent (rows, channels, …, height, width) became.

        Args:
            tokens: of one picture, where the table does not count them.

        Raises:
            ValueError: it does not, and no patch size gives so many.
        """
        patch = self.family.patch
        return grid_of(tokens, latent) if patch is None else grid_in(latent, patch(self.network))


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
