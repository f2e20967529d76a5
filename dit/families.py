"""The table of model families: one row each. What this pack knows of a family stands here and nowhere else.

Rows of classes that newer hosts have are inert on older ones.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from . import adaln
from .family import Family, Order, PromptKeys, Stage


def _stage(kind: str, blocks: str, hidden_states: str, rows: str, order: Order = "image only", **more: Any) -> Stage:
    return Stage(kind, blocks, tuple(hidden_states.split()), tuple(rows.split()), order, **more)


def _hooked_stage(
    kind: str, blocks: str, hidden_states: str, rows: str, order: Order = "image only", **more: Any
) -> Stage:
    return _stage(kind, blocks, hidden_states, rows, order, hooked=True, **more)


def _before(block: Any) -> PromptKeys:
    return "before"


def _across(block: Any) -> PromptKeys:
    return "across"


def _flux_prompt(block: Any) -> PromptKeys:
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
        modulation=adaln.flux,
        prompt_keys=_flux_prompt,
        positions=("pe", 2),
        sublayers=("img_attn.proj", "img_mlp"),
    ),
    _stage(
        "single_block",
        "single_blocks",
        "img",
        "img vec pe attn_mask",
        "text image",
        modulation=adaln.flux,
        prompt_keys=_before,
        positions=("pe", 2),
        sublayers=("linear2",),
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
    _stage(
        "double_block",
        "blocks",
        "img",
        "img txt vec pe",
        "image",
        modulation=adaln.wan,
        prompt_keys=_across,
        positions=("pe", 1),
        sublayers=("self_attn", "ffn"),
    ),
)

FAMILIES = (
    Family(
        "sd3",
        "SD3 / SD3.5",
        ("modules.diffusionmodules.mmdit.OpenAISignatureMMDITWrapper",),
        (
            _stage(
                "double_block",
                "joint_blocks",
                "img txt",
                "img txt vec",
                modulation=adaln.sd3,
                prompt_keys=_before,
                sublayers=("x_block.attn.proj", "x_block.mlp"),
            ),
        ),
        word_grounding_block=9,
    ),
    Family(
        "flux",
        "Flux / Flux.2",
        ("flux.model.Flux",),
        _FLUX_STAGES,
        behind=("ref_latents",),
        single_row=_guided_at_time_zero,
        word_grounding_block=12,
        prompt_comes_last=lambda network: not network.params.vec_in_dim,  # Flux.2's prompts are padded before
    ),
    Family(
        "chroma",
        "Chroma / Chroma Radiance",
        ("chroma.model.Chroma", "chroma_radiance.model.ChromaRadiance"),
        _FLUX_STAGES,
    ),
    Family(
        "qwen-image",
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
                modulation=adaln.qwen,
                prompt_keys=_before,
                positions=("pe", 2),
                sublayers=("attn.to_out.0", "img_mlp"),
            ),
        ),
        behind=("ref_latents",),
        unbatchable_conditions=("attention_mask",),  # it reaches the blocks past any block patch
    ),
    Family(
        "qwen-image-2.1",
        "Qwen-Image 2.1",
        ("qwen_image21.model.QwenImage21Transformer2DModel",),
        (_stage("single_block", "transformer_blocks", "img", "", "image"),),
        patch_size=_packed,
        ahead=("context", "ref_latents"),
        batchable=False,  # one modulation of the whole forward's rows for all blocks, past any block patch
        prompt_cache=True,
    ),
    Family(
        "mage-flow",
        "Mage-Flow",
        ("mage_flow.model.MageFlowTransformer2DModel",),
        (_stage("double_block", "transformer_blocks", "img txt", "img txt vec pe", "image"),),
        behind=("ref_latents",),
        unbatchable_conditions=("attention_mask",),  # it reaches the blocks past any block patch
    ),
    Family(
        "lens",
        "Lens",
        ("lens.model.LensTransformer2DModel",),
        (_stage("double_block", "transformer_blocks", "img txt", "img txt vec pe attn_mask"),),
        patch_size=_packed,
    ),
    Family(
        "joyimage",
        "JoyImage",
        ("joyimage.model.JoyImageTransformer3DModel",),
        (_stage("double_block", "double_blocks", "img txt", "img txt vec pe", "image"),),
        behind=("ref_latents",),
    ),
    Family(
        "krea-2",
        "Krea 2",
        ("krea2.model.SingleStreamDiT",),
        (_hooked_stage("block", "blocks", "x", "x vec freqs", "image", grouped=("vec",)),),
        patch_size=attrgetter("patch"),
        ahead=("context",),
        behind=("ref_latents",),
    ),
    Family(
        "ernie-image",
        "Ernie-Image",
        ("ernie.model.ErnieImageModel",),
        (_hooked_stage("layer", "layers", "x", "x rotary_pos_emb temb attention_mask", "image"),),
        behind=("context",),
    ),
    Family(
        "ideogram-4",
        "Ideogram 4",
        ("ideogram4.model.Ideogram4Transformer2DModel",),
        (_hooked_stage("layer", "layers", "x", "x attn_mask freqs_cis adaln_input", "image"),),
        patch_size=_packed,
        ahead=("context",),
    ),
    Family(
        "boogu",
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
        "cogvideox",
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
        patch_size=lambda network: (network.patch_size_t or 1, network.patch_size, network.patch_size),
    ),
    Family(
        "kandinsky-5",
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
        "pixeldit",
        "PixelDiT / PiD",
        ("pixeldit.model.PixDiT_T2I", "pixeldit.pid.PidNet"),
        (_hooked_stage("patch_block", "patch_blocks", "x y", "x y c"),),
    ),
    Family(
        "hidream-o1",
        "HiDream-O1",
        ("hidream_o1.model.HiDreamO1Transformer",),
        (_stage("double_block", "language_model.layers", "x", "x", "image"),),
        ahead=("input_ids",),
        behind=("ref_patches",),
        prompt_cache=True,
    ),
    Family(
        "ltx-2",
        "LTX-2",
        ("lightricks.av_model.LTXAVModel",),
        (_stage("double_block", "transformer_blocks", "img", ""),),
        patch_size=None,  # masked frames leave the stream
        batchable=False,  # its modulations hide their rows
    ),
    Family(
        "minimax-h3",
        "MiniMax H3",
        ("minimax.model.MiniMaxH3Model",),
        (_stage("double_block", "blocks", "img", "", "text image", row_dim={"img": None}),),
        batchable=False,  # it takes one row
    ),
    Family(
        "wan-humo",
        "Wan HuMo",
        ("wan.model.HumoWanModel",),
        _WAN_STAGES,
        behind=("reference_latent",),
        unbatchable_conditions=("audio_embed",),  # it reaches the blocks past any block patch, with all rows
    ),
    Family(
        "wan-reference-frame",
        "Wan with a reference frame",
        _WAN,
        _WAN_STAGES,
        when=lambda network: getattr(network, "ref_conv", None) is not None,
        ahead=("reference_latent",),
        behind=("time_dim_concat", "context_latents"),
    ),
    Family("wan", "Wan", _WAN, _WAN_STAGES, behind=("time_dim_concat", "context_latents")),
    Family(
        "wan-scail",
        "Wan SCAIL",
        ("wan.model.SCAILWanModel", "wan.model.SCAIL2WanModel"),
        _WAN_STAGES,
        ahead=("reference_latent",),
        behind=("time_dim_concat", "pose_latents"),
    ),
    Family(
        "wan-animate-2",
        "Wan Animate 2",
        ("wan.model_animate2.WanAnimate2Model",),
        _WAN_STAGES,
        unbatchable_conditions=("pose_latents",),  # their keys and values reach the blocks past any block patch
    ),
    Family(
        "wan-s2v",
        "Wan speech to video",
        ("wan.model.WanModel_S2V",),
        _WAN_STAGES,
        aliases=("Wan",),
        behind=("reference_latent",),
        uncounted_tail=True,  # motion follows
        has_transformer_options=False,
    ),
    Family(
        "hunyuan-video",
        "HunyuanVideo / HunyuanImage",
        ("hunyuan_video.model.HunyuanVideo",),
        (
            _stage(
                "double_block",
                "double_blocks",
                "img txt",
                "img txt vec pe attention_mask",
                "image",
                modulation=adaln.flux,
                prompt_keys=_flux_prompt,
                positions=("pe", 2),
                sublayers=("img_attn.proj", "img_mlp"),
            ),
            _stage(
                "single_block",
                "single_blocks",
                "img",
                "img vec pe attention_mask",
                "text image",
                modulation=adaln.flux,
                positions=("pe", 2),
                sublayers=("linear2",),
            ),
        ),
        ahead=("ref_latent",),
        # The host itself fails with these beside a second row.
        unbatchable_conditions=("attention_mask", "ref_latent", "guiding_frame_index"),
    ),
    Family(
        "auraflow",
        "AuraFlow",
        ("aura.mmdit.MMDiT",),
        (
            _stage(
                "double_block", "double_layers", "img txt", "img txt vec", modulation=adaln.aura, prompt_keys=_before
            ),
            _stage(
                "single_block",
                "single_layers",
                "img",
                "img vec",
                "text image",
                modulation=adaln.aura,
                prompt_keys=_before,
            ),
        ),
        prompt_comes_last=lambda network: True,  # registers are before it
    ),
    Family(
        "ltx-video",
        "LTX-Video",
        ("lightricks.model.LTXVModel",),
        (
            _stage(
                "double_block",
                "transformer_blocks",
                "img",
                "img txt attention_mask vec pe",
                modulation=adaln.ltx,
                prompt_keys=_across,
            ),
        ),
        patch_size=None,  # masked frames leave the stream
    ),
    Family(
        "mochi",
        "Mochi",
        ("genmo.joint_model.asymm_models_joint.AsymmDiTJoint",),
        (_stage("double_block", "blocks", "img txt", "img txt vec"),),
    ),
    Family(
        "hunyuandit",
        "HunyuanDiT",
        ("hydit.models.HunYuanDiT",),
        (_stage("double_block", "blocks", "img", "img txt vec skip"),),
        long_skips=True,
        has_transformer_options=False,
    ),
    Family(
        "lumina-2",
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
                modulation=adaln.lumina,
                positions=("freqs_cis", 1),
                sublayers=("attention_norm2", "ffn_norm2"),
            ),
            _hooked_stage(
                "layer",
                "layers",
                "x",
                "x x_mask freqs_cis adaln_input",
                "text image",
                grouped=("adaln_input",),
                modulation=adaln.lumina,
                positions=("freqs_cis", 1),
                sublayers=("attention_norm2", "ffn_norm2"),
            ),
        ),
        padded_to="pad_tokens_multiple",
        ahead=("ref_latents",),
        behind=("ref_frames",),  # Ming-Image's
        unbatchable_conditions=("ref_contexts",),  # the host cannot repeat a text that no reference follows
    ),
    Family(
        "hidream",
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
        inseparable_conditions=("image_cond",),  # HiDream-E1 puts its reference beside the picture, row by row
    ),
    Family(
        "omnigen2",
        "OmniGen2",
        ("omnigen.omnigen2.OmniGen2Transformer2DModel",),
        (
            _hooked_stage("noise_refiner", "noise_refiner", "hidden_states", "hidden_states image_rotary_emb temb"),
            _hooked_stage("layer", "layers", "hidden_states", "hidden_states image_rotary_emb temb", "text image"),
        ),
    ),
    Family(
        "pixart",
        "PixArt",
        ("pixart.pixartms.PixArtMS",),
        (_hooked_stage("block", "blocks", "x", "x y t", row_dim={"y": 1}, packed=("y",), modulation=adaln.pixart),),
        has_transformer_options=False,
    ),
    Family(
        "cosmos",
        "Cosmos",
        ("cosmos.model.GeneralDIT",),
        (
            _hooked_stage(
                "block",
                "blocks",
                "x",
                "x emb_B_D crossattn_emb crossattn_mask adaln_lora_B_3D",
                row_dim={"x": 3, "crossattn_emb": 1},
                prompt_keys=_across,
            ),
        ),
        patch_size=_cosmos_patch,
    ),
    Family(
        "cosmos-predict2",
        "Cosmos Predict2 / Anima",
        ("cosmos.predict2.MiniTrainDIT", "anima.model.Anima"),
        (
            _hooked_stage(
                "block",
                "blocks",
                "x_B_T_H_W_D",
                "x_B_T_H_W_D emb_B_T_D crossattn_emb adaln_lora_B_T_3D extra_per_block_pos_emb",
                modulation=adaln.predict2,
                prompt_keys=_across,
            ),
        ),
        patch_size=_cosmos_patch,
    ),
)
