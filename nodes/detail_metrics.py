from collections.abc import Callable
from typing import Any

import numpy as np
from comfy_api.latest import io
from torch import Tensor

from ..methods.calibration import metrics
from ..methods.calibration.figures import spectra
from ..methods.common.drawing import require_matplotlib
from .inputs import CATEGORY, require_pairs


class DetailMetrics(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailMetrics",
            display_name="Detail Metrics",
            category=CATEGORY,
            description="Compares pictures with and without Detail Guidance, or with real ones: energy by frequency, "
            "layout, contrast, saturation. More high frequency is not more detail: closer to real pictures is.",
            inputs=[
                io.Image.Input("images", tooltip="With Detail Guidance, say."),
                io.Image.Input("reference", tooltip="The same without it, or real ones; as many, or one for all."),
            ],
            outputs=[
                io.Image.Output(display_name="spectrum", tooltip="Both spectra, and their ratio."),
                io.String.Output(display_name="table", tooltip="The figures, as medians over the pairs."),
            ],
        )

    @classmethod
    def execute(cls, images: Tensor, reference: Tensor) -> io.NodeOutput:
        require_pairs(images, reference)
        require_matplotlib()
        ours = images[..., :3].cpu().double().numpy()
        theirs = np.broadcast_to(reference[..., :3].cpu().double().numpy(), ours.shape)
        return io.NodeOutput(spectra(ours, theirs), table(ours, theirs))


def table(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Markdown, a line for each figure: medians over the pairs, and the middle half of them; inf or nan where the
    reference has nothing of it."""
    pairs = list(zip(ours, theirs, strict=True))

    def line(name: str, values: np.ndarray) -> str:
        low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
        return f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} |"

    def ratios(figure: Callable[[np.ndarray], Any]) -> np.ndarray:
        return np.array([figure(a) for a, _ in pairs]) / np.array([figure(b) for _, b in pairs])

    with np.errstate(divide="ignore", invalid="ignore"):
        octaves = zip(metrics.OCTAVES, ratios(metrics.energy_in_octaves).T, strict=True)
        lines = [
            f"| {len(pairs)} pairs: images / reference | median | middle half |",
            "|---|---|---|",
            *(line(f"energy, 1/{1 / low:g} to 1/{1 / high:g} cycle/px", values) for (low, high), values in octaves),
            line("contrast", ratios(metrics.contrast)),
            line("saturation", ratios(metrics.saturation)),
            line("correlation of the layout", np.array([metrics.low_pass_correlation(a, b) for a, b in pairs])),
        ]
    return "\n".join(lines)
