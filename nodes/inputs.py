"""Inputs that the two guidance nodes share, and the settings they make."""

from typing import Any

from comfy_api.latest import io

from ..detail_guidance.settings import DG_SCALE, LAYER, Options, Settings

CATEGORY = "detail guidance"

DetailGuidanceOptionsType = io.Custom("DG_OPTIONS")
DetailGuidanceProfile = io.Custom("DG_PROFILE")


def _fraction(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, round=0.0001, tooltip=tooltip)


def guidance_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "dg_scale",
            default=DG_SCALE,
            min=0.0,
            max=20.0,
            step=0.05,
            round=0.001,
            tooltip="Strength of the added detail. 0 is off and costs nothing. Raising it sharpens local detail; too "
            "much over-sharpens and makes textures inconsistent.",
        ),
        _fraction(
            "layer_start",
            LAYER,
            "First layer whose massive activations are disrupted, as a fraction of the model's depth. Raising it moves "
            "to later blocks: cheaper, because the blocks before it are shared, and finer detail.",
        ),
        _fraction(
            "layer_end",
            LAYER,
            "Last layer, as a fraction of the depth. Equal to layer_start: one layer, as in the paper. Raising it "
            "disrupts more layers: a stronger effect.",
        ),
        _fraction(
            "start_percent",
            0.0,
            "Where in the sampling schedule the guidance starts. Raising it leaves the first steps, which make the "
            "layout, alone.",
        ),
        _fraction(
            "end_percent",
            1.0,
            "Where in the sampling schedule the guidance ends. Lowering it leaves the last steps alone, and saves "
            "their cost.",
        ),
        DetailGuidanceOptionsType.Input(
            "options", optional=True, tooltip="From Detail Guidance Options. Unconnected: its defaults."
        ),
    ]


def settings_from(values: dict[str, Any]) -> Settings:
    """Settings from the values of `guidance_inputs`.

    Raises:
        ValueError: names the input, its value and what is allowed.
    """
    return Settings(**{**values, "options": values.get("options") or Options()})
