"""AdaLN's numbers of each family's blocks: shift, scale and residual gate α of the image stream.

Each function takes a block and the arguments it is called with, and returns (rows, branches, 3, channels), the
attention's branch first; or None where a block's numbers differ from token to token, or where it has none.
"""

from collections.abc import Mapping
from typing import Any

import torch
from comfy.model_management import cast_to
from torch import Tensor


def sd3(block: Any, args: Mapping[str, Any]) -> Tensor:
    return _branches(block.x_block.adaLN_modulation(args["vec"]), args["img"])


def flux(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    vec, single = args["vec"], not hasattr(block, "img_attn")
    if not isinstance(vec, Tensor):  # Chroma and Flux.2 make it outside the blocks: of the picture, and of the text
        branches = [vec] if single else vec[0]
    else:
        branches = [each for each in (block.modulation if single else block.img_mod)(vec) if each is not None]
    shape = torch.broadcast_shapes(*(each.shift.shape for each in branches))
    if shape[1] != 1:  # tokens at other times
        return None
    return torch.stack([torch.cat([each.shift, each.scale, each.gate], dim=1) for each in branches], dim=1)


def qwen(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    return _branches(block.img_mod(args["vec"]), args["img"]) if isinstance(args["vec"], Tensor) else None


def wan(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    time = args["vec"]
    if time.ndim == 4 and time.shape[1] != 1:  # frames at other times
        return None
    return _branches((cast_to(block.modulation, time.dtype, time.device) + time).flatten(1), args["img"])


def lumina(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    time = args.get("adaln_input")
    if time is None or not block.modulation:
        return None
    scale_and_gate = block.adaLN_modulation(time).unflatten(-1, (2, 2, args["x"].shape[-1]))
    scale, gate = scale_and_gate.unbind(-2)
    return torch.stack([torch.zeros_like(scale), scale, gate.tanh()], dim=-2)


def aura(block: Any, args: Mapping[str, Any]) -> Tensor:
    of_picture = block.modX if hasattr(block, "modX") else block.modCX
    return _branches(of_picture(args["vec"]), args["img"])


def _table_modulation(block: Any, time: Tensor, image: Tensor) -> Tensor | None:
    """AdaLN's numbers as a block's own table plus the time's, (rows, 6 · channels) or (rows, 1, 6 · channels)."""
    if time.ndim == 3 and time.shape[1] != 1:  # tokens at other times
        return None
    table = cast_to(block.scale_shift_table, time.dtype, time.device)
    return _branches(table.flatten() + time.flatten(1), image)


def ltx(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    return _table_modulation(block, args["vec"], args["img"])


def pixart(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    return _table_modulation(block, args["t"], args["x"])


def predict2(block: Any, args: Mapping[str, Any]) -> Tensor | None:
    time, low_rank = args["emb_B_T_D"], args.get("adaln_lora_B_T_3D")
    if time.shape[1] != 1:  # frames at other times
        return None
    numbers = block.adaln_modulation_self_attn(time)
    return _branches((numbers + low_rank if block.use_adaln_lora else numbers).flatten(1), args["x_B_T_H_W_D"])


def _branches(numbers: Tensor, image: Tensor) -> Tensor:
    """(rows, 3 · branches · channels), one branch's shift, scale and gate after another's, cut into these."""
    return numbers.unflatten(-1, (-1, 3, image.shape[-1]))
