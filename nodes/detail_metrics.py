from collections.abc import Callable
from typing import Any

import numpy as np
from comfy_api.latest import io
from torch import Tensor

from ..methods.calibration import metrics
from ..methods.calibration.figures import spectra
from ..methods.common.drawing import require_matplotlib
from .inputs import CATEGORY, aliases, require_pairs

SEVERAL = "medians of {} pairs and their middle half"
HOW_TO_READ = (
    "\nHow to read it: energy is how much there is of structures of that size, the finest last. More is not "
    "better, nor is less: noise has it too, and clean edges have little. What counts is whether it comes nearer "
    "to real pictures: give some as reference, with and without Detail Guidance; the one nearer to 1 is closer "
    "to them. A correlation of the layout of 1 is the same layout, below about 0.9 another picture."
)


class DetailMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailMetrics",
            display_name="Detail Metrics",
            category=f"{CATEGORY}/tools",
            description="Compares pictures with and without Detail Guidance, or with real ones: energy by frequency, "
            "layout, contrast, saturation. More high frequency is not more detail: closer to real pictures is.",
            inputs=[
                io.Image.Input("images", tooltip="With Detail Guidance, say."),
                io.Image.Input("reference", tooltip="The same without it, or real ones; as many, or one for all."),
            ],
            outputs=[
                io.Image.Output(display_name="spectrum", tooltip="Both spectra, and their ratio."),
                io.String.Output(display_name="table", tooltip="The figures, and how to read them."),
            ],
            **aliases("sharpness", "spectrum", "measure"),
        )

    @classmethod
    def execute(cls, images: Tensor, reference: Tensor) -> io.NodeOutput:
        require_pairs(images, reference)
        require_matplotlib()
        ours = images[..., :3].cpu().double().numpy()
        theirs = np.broadcast_to(reference[..., :3].cpu().double().numpy(), ours.shape)
        return io.NodeOutput(spectra(ours, theirs), table(ours, theirs))


def table(ours: np.ndarray, theirs: np.ndarray) -> str:
    """A line for each figure, and how to read them: medians over the pairs, and the middle half of them where there are
    several; inf or nan where the reference has nothing of it. A list: nodes that show text do not draw tables."""
    pairs = list(zip(ours, theirs, strict=True))

    def line(name: str, values: np.ndarray) -> str:
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        return f"- {name}: {middle:.3f}" + (f" ({low:.3f} to {high:.3f})" if len(values) > 1 else "")

    def ratios(figure: Callable[[np.ndarray], Any]) -> np.ndarray:
        return np.array([figure(a) for a, _ in pairs]) / np.array([figure(b) for _, b in pairs])

    with np.errstate(divide="ignore", invalid="ignore"):
        octaves = zip(metrics.OCTAVES, ratios(metrics.energy_in_octaves).T, strict=True)
        lines = [
            f"images over reference, {SEVERAL.format(len(pairs)) if len(pairs) > 1 else 'one pair'}: 1 is equal",
            *(line(f"energy, 1/{1 / low:g} to 1/{1 / high:g} cycle/px", values) for (low, high), values in octaves),
            line("contrast", ratios(metrics.contrast)),
            line("saturation", ratios(metrics.saturation)),
            line("correlation of the layout", np.array([metrics.low_pass_correlation(a, b) for a, b in pairs])),
            HOW_TO_READ,
        ]
    return "\n".join(lines)
