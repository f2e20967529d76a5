"""Detail Guidance on the reference model through a real ComfyUI server: `make demo`.

Runs tests/reference_model/demo.json for several prompts and seeds: without Detail Guidance, with it, and with the
control, which takes as much energy from ordinary channels as Detail Guidance takes from the massive ones. Writes
pictures and figures to demo/. Real pictures pass through the reference model's autoencoder.
"""

import argparse
import asyncio
import io
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from comfy_server import Server
from control import ordinary
from in_process import REFERENCE_MODEL, reference_model, start
from PIL import Image
from rooms import metrics
from tqdm import tqdm

start(cpu=True)
from references import REALS_EACH, Autoencoder  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
import photographs  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

WORKFLOW = ROOT / "tests/reference_model/demo.json"
PROMPTS = [
    "brick wall",
    "rock",
    "grass 1",
    "wood planks",
    "lava 2",
    "marble 2",
    "metal grill 2",
    "water 3",
    "cinder blocks",
    "wood 1",
    "stucco",
    "airduct grate",
    "ceiling tile noborder",
    "floor tiles bw",
    "asphalt",
    "door garage red",
]
VARIANTS = ("baseline", "detail", "control")


class Graph:
    """The demo workflow in API format, and copies of it with other inputs.

    Args:
        options: the defaults of Detail Guidance Options.
    """

    def __init__(self, prompt: dict[str, Any], options: dict[str, Any]):
        self.prompt = prompt
        self.options = options
        self.node = {node["class_type"]: node for node in prompt.values()}

    def settings(self) -> dict[str, Any]:
        return {
            name: value for name, value in self.node["DetailGuider"]["inputs"].items() if not isinstance(value, list)
        }

    def variant(self, text: str, seed: int, scale: float | None, options: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            scale: dg_scale, where it is not the workflow's.
            options: Detail Guidance Options that are not the defaults.
        """
        prompt = json.loads(json.dumps(self.prompt))
        graph = Graph(prompt, self.options)
        guider = graph.node["DetailGuider"]["inputs"]
        positive, _ = guider["positive"]
        prompt[positive]["inputs"]["text"] = text
        graph.node["RandomNoise"]["inputs"]["noise_seed"] = seed
        if scale is not None:
            guider["dg_scale"] = scale
        if options:
            guider["options"] = ["options", 0]
            prompt["options"] = {"class_type": "DetailGuidanceOptions", "inputs": self.options | options}
        return prompt


class Watch:
    """What a run tells the page: the sampler's progress with its time, and the pack's report."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.report: dict[str, Any] | None = None

    def __call__(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress":
            self.steps.append(time.perf_counter())
        if kind == "detail_guidance.report":
            self.report = data

    def seconds_per_step(self) -> float:
        return statistics.median(b - a for a, b in zip(self.steps, self.steps[1:], strict=False))


def control_channels(block: int, massive: list[int]) -> list[int]:
    """Ordinary channels with the massive ones' energy."""
    energy = torch.tensor(json.loads((REFERENCE_MODEL / "activations.json").read_text())["energy"][block])
    return sorted(ordinary(energy, massive, seed=block))


def figures(pictures: dict[str, np.ndarray], shown: np.ndarray, reals: list[np.ndarray]) -> dict[str, float]:
    """Of one prompt and seed, against real pictures of the prompt; and of one more real picture, against the same."""
    base, detail, control = (pictures[variant] for variant in VARIANTS)
    reference = np.mean([metrics.log_spectrum(real) for real in reals], axis=0)

    def gain(picture: np.ndarray, cutoff: float) -> float:
        return metrics.energy_above(picture, cutoff) / metrics.energy_above(base, cutoff) - 1

    return {
        "energy_eighth_gain": gain(detail, 1 / 8),
        "energy_quarter_gain": gain(detail, 1 / 4),
        "low_pass_correlation": metrics.low_pass_correlation(base, detail),
        "control_energy_eighth_gain": gain(control, 1 / 8),
        "control_low_pass_correlation": metrics.low_pass_correlation(base, control),
        "spectrum_distance_baseline": metrics.spectrum_distance(base, reference),
        "spectrum_distance_detail": metrics.spectrum_distance(detail, reference),
        "spectrum_distance_control": metrics.spectrum_distance(control, reference),
        "spectrum_distance_real": metrics.spectrum_distance(shown, reference),
    }


def main(pairs: int, scale: float | None, layer: float | None, out: Path) -> None:
    photos = photographs.load()
    autoencoder = Autoencoder(reference_model(), photos)

    def reals(prompt: str) -> list[np.ndarray]:
        crops = photographs.crops(photos[prompt], REALS_EACH + 1, torch.Generator().manual_seed(11))
        return list(autoencoder.reconstructed(crops).astype(float))

    asyncio.run(demonstrate(pairs, scale, layer, out, reals))


async def demonstrate(
    pairs: int, scale: float | None, layer: float | None, out: Path, reals: Callable[[str], list[np.ndarray]]
) -> None:
    out.mkdir(exist_ok=True)
    jobs = [(PROMPTS[number % len(PROMPTS)], number // len(PROMPTS) + 1) for number in range(pairs)]
    rows, images, reports = [], [], []
    async with Server() as server:
        definition = (await server.get("/object_info"))["DetailGuidanceOptions"]["input"]["required"]
        options = {name: spec[1]["default"] for name, spec in definition.items()}
        graph = Graph(await server.api_format(json.loads(WORKFLOW.read_text())), options)
        if layer is not None:
            graph.node["DetailGuider"]["inputs"] |= {"layer_start": layer, "layer_end": layer}
        equal: list[int] = []  # the control's channels
        bar = tqdm(total=len(jobs) * len(VARIANTS), unit="picture", desc="demo", mininterval=1)
        for text, seed in jobs:
            pictures: dict[str, np.ndarray] = {}
            pace: dict[str, float] = {}
            for variant in VARIANTS:
                watch = Watch()
                chosen = {"channels": ", ".join(map(str, equal))} if variant == "control" else {}
                prompt = graph.variant(text, seed, 0.0 if variant == "baseline" else scale, chosen)
                result = await server.run(prompt, watch)
                (png,) = result.values()
                pictures[variant] = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) / 255
                pace[variant] = watch.seconds_per_step()
                if variant == "detail":
                    assert watch.report is not None, "the pack sent no report"
                    reports.append(watch.report)
                    found = watch.report["channels"][str(watch.report["first_block"])]
                    if not found:
                        sys.exit(f"No massive channel at block {watch.report['first_block']}: nothing to compare.")
                    equal = control_channels(watch.report["first_block"], found)
                bar.update()
            shown, *others = reals(text)
            ratio = pace["detail"] / pace["baseline"]
            rows.append(
                {"prompt": text, "seed": seed, **figures(pictures, shown, others), "seconds_per_step_ratio": ratio}
            )
            images.append((text, seed, pictures, shown))
        bar.close()
    first = reports[0]
    names = [name for name in rows[0] if name not in ("prompt", "seed")]
    report = {
        "settings": graph.settings() | ({} if scale is None else {"dg_scale": scale}),
        "family": first["family"],
        "channels": sorted({c for r in reports for found in r["channels"].values() for c in found}),
        "block": first["first_block"],
        "blocks": first["block_count"],
        "relative_strength": statistics.median(r["relative_strength"] for r in reports),
        "control_channels": equal,
        "median": {name: statistics.median(row[name] for row in rows) for name in names},
        "images": rows,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(images, out)
    print(json.dumps({"channels": report["channels"], "block": f"{report['block']} of {report['blocks']}"}))
    for name, value in report["median"].items():
        print(f"{name:30} {value:8.3f}")
    for file in ("baseline.png", "detail.png", "comparison.png", "report.json"):
        print(out / file)


def draw(images: list[tuple[str, int, dict[str, np.ndarray], np.ndarray]], out: Path) -> None:
    """Contact sheets of all pictures, and the comparison of the first eight prompts."""
    for variant in ("baseline", "detail"):
        columns = 8
        tiles = [pictures[variant] for _, _, pictures, _ in images]
        tiles += [np.ones_like(tiles[0])] * (-len(tiles) % columns)
        sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
        _save(sheet, out / f"{variant}.png")
    chosen = images[:8]
    titles = {
        "baseline": "CFG",
        "detail": "CFG +\nDetail\nGuidance",
        "control": "control:\nequal energy\nof ordinary\nchannels",
    }
    labels = [*titles.values(), "photograph"]
    size = 1.55 * len(chosen) + 0.9, 1.7 * len(labels)
    figure, axes = plt.subplots(len(labels), len(chosen), figsize=size, layout="constrained", squeeze=False)
    for column, (text, _, pictures, real) in enumerate(chosen):
        for row, picture in enumerate([*(pictures[variant] for variant in VARIANTS), real]):
            axis = axes[row][column]
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if row == 0:
                axis.set_title(text, fontsize=10)
            if column == 0:
                axis.set_ylabel(labels[row], fontsize=10, rotation=0, ha="right", va="center")
    figure.savefig(out / "comparison.png", dpi=130, bbox_inches="tight")  # long labels would be cut
    plt.close(figure)


def _save(picture: np.ndarray, file: Path) -> None:
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16, help="prompt–seed pairs (16)")
    parser.add_argument("--scale", type=float, help="dg_scale in place of the workflow's")
    parser.add_argument("--layer", type=float, help="layer_start and layer_end in place of the workflow's")
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="output folder (demo/)")
    arguments = parser.parse_args()
    main(arguments.pairs, arguments.scale, arguments.layer, arguments.out)
