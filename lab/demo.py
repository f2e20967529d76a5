"""Detail Guidance on the reference model through a real ComfyUI server: `make demo`.

Runs tests/reference_model/demo.json for several prompts and seeds, at the settings that `make evidence` chose for this
model with CFG: without Detail Guidance, with it, and with the control, which takes as much energy from ordinary
channels as Detail Guidance takes from the massive one, and pushes as strongly. That channel is listed: late in the
schedule it does not stand out eight times on every prompt, and "auto" would find none on some. Writes pictures and
figures to demo/. Real pictures pass through the reference model's autoencoder.
"""

import argparse
import asyncio
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import paths
import plain_modules  # noqa: F401
import torch
from comfy_server import Server
from control import ordinary
from in_process import reference_model, start
from pack.methods.calibration import metrics
from pack.methods.common.layers import block_at
from PIL import Image
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
SETTINGS = {"dg_scale": 0.5, "layer_start": 0.8, "start_percent": 0.67}  # by docs/EVIDENCE.md, section 7
EQUAL_STRENGTH = 0.56  # of the control's scale to dg_scale, so that its term is as large (section 4)
SHOWN = 8  # prompts in the comparison


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

    def variant(self, text: str, seed: int, **inputs: Any) -> dict[str, Any]:
        """
        Args:
            inputs: of the guider or of Detail Guidance Options, where they are not the workflow's or the defaults.
        """
        prompt = json.loads(json.dumps(self.prompt))
        graph = Graph(prompt, self.options)
        guider = graph.node["DetailGuider"]["inputs"]
        positive, _ = guider["positive"]
        prompt[positive]["inputs"]["text"] = text
        graph.node["RandomNoise"]["inputs"]["noise_seed"] = seed
        assert inputs.keys() <= guider.keys() | self.options.keys(), f"no such inputs among {sorted(inputs)}"
        guider |= {name: value for name, value in inputs.items() if name in guider} | {"options": ["options", 0]}
        options = self.options | {name: value for name, value in inputs.items() if name in self.options}
        prompt["options"] = {"class_type": "DetailGuidanceOptions", "inputs": options}
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

    def seconds(self) -> float:
        """Of all steps but the first."""
        return self.steps[-1] - self.steps[0]


def channels_at(layer: float) -> tuple[list[int], list[int]]:
    """The reference model's massive channel at a layer, and ordinary ones with as much energy."""
    energies = torch.tensor(json.loads((paths.TRAINING / "activations.json").read_text())["energy"])
    block = block_at(layer, len(energies))
    massive = [int(energies[block].argmax())]
    return massive, sorted(ordinary(energies[block], massive, seed=block))


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


def main(pairs: int, settings: dict[str, float], out: Path) -> None:
    photos = photographs.load()
    autoencoder = Autoencoder(reference_model(), photos)

    def reals(prompt: str) -> list[np.ndarray]:
        crops = photographs.crops(photos[prompt], REALS_EACH + 1, torch.Generator().manual_seed(11))
        return list(autoencoder.reconstructed(crops).astype(float))

    asyncio.run(demonstrate(pairs, settings, out, reals))


async def demonstrate(
    pairs: int, settings: dict[str, float], out: Path, reals: Callable[[str], list[np.ndarray]]
) -> None:
    out.mkdir(exist_ok=True)
    jobs = [(PROMPTS[number % len(PROMPTS)], number // len(PROMPTS) + 1) for number in range(pairs)]
    massive, equal = channels_at(settings["layer_start"])
    inputs: dict[str, dict[str, Any]] = {
        "baseline": {"dg_scale": 0.0},
        "detail": settings | {"channels": ", ".join(map(str, massive))},
        "control": settings
        | {"channels": ", ".join(map(str, equal)), "dg_scale": EQUAL_STRENGTH * settings["dg_scale"]},
    }
    rows, images, reports = [], [], []
    async with Server() as server:
        definition = (await server.get("/object_info"))["DetailGuidanceOptions"]["input"]["required"]
        options = {name: spec[1]["default"] for name, spec in definition.items()}
        graph = Graph(await server.api_format(json.loads(WORKFLOW.read_text())), options)
        bar = tqdm(total=len(jobs) * len(VARIANTS), unit="picture", desc="demo", mininterval=1)
        for text, seed in jobs:
            pictures: dict[str, np.ndarray] = {}
            seconds: dict[str, float] = {}
            for variant in VARIANTS:
                watch = Watch()
                result = await server.run(graph.variant(text, seed, **inputs[variant]), watch)
                (png,) = result.values()
                pictures[variant] = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) / 255
                seconds[variant] = watch.seconds()
                if variant == "detail":
                    assert watch.report is not None, "the pack sent no report"
                    reports.append(watch.report)
                bar.update()
            shown, *others = reals(text)
            ratio = seconds["detail"] / seconds["baseline"]  # of as many steps
            rows.append(
                {"prompt": text, "seed": seed, **figures(pictures, shown, others), "seconds_per_step_ratio": ratio}
            )
            images.append((text, seed, pictures, shown))
        bar.close()
    first = reports[0]
    names = [name for name in rows[0] if name not in ("prompt", "seed")]
    report = {
        "settings": graph.settings() | settings,
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
    titles = ["CFG", "CFG + Detail Guidance", "control:\nordinary channels", "photograph"]
    shown = images[:SHOWN]
    size = 2.3 * len(titles) + 1, 2.4 * len(shown) + 0.4
    figure, axes = plt.subplots(len(shown), len(titles), figsize=size, layout="constrained", squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    for row, (text, _, pictures, real) in zip(axes, shown, strict=True):
        for axis, picture in zip(row, [*(pictures[variant] for variant in VARIANTS), real], strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(text, fontsize=10, rotation=0, ha="right", va="center")
    figure.savefig(out / "comparison.png", dpi=110, bbox_inches="tight")  # long labels would be cut
    plt.close(figure)


def _save(picture: np.ndarray, file: Path) -> None:
    Image.fromarray((picture * 255).round().astype(np.uint8)).save(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16, help="prompt–seed pairs (16)")
    parser.add_argument("--scale", type=float, default=SETTINGS["dg_scale"], help="dg_scale (%(default)s)")
    parser.add_argument(
        "--layer", type=float, default=SETTINGS["layer_start"], help="layer_start and layer_end (%(default)s)"
    )
    parser.add_argument(
        "--start", type=float, default=SETTINGS["start_percent"], help="start_percent (%(default)s): the last third"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="output folder (demo/)")
    given = parser.parse_args()
    chosen = {
        "dg_scale": given.scale,
        "layer_start": given.layer,
        "layer_end": given.layer,
        "start_percent": given.start,
    }
    main(given.pairs, chosen, given.out)
