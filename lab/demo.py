"""Detail Guidance on the reference model of drawings through a real ComfyUI server: `make demo`.

Runs tests/reference_model/demo.json for some things, without CFG and with it: without Detail Guidance; with it, by the
perturbation and at the strength that other things chose (lab/pages/DRAWINGS.md); and with a control of equal strength,
away from a prediction that lacks most ordinary channels. Each picture is compared with the true drawing that is nearest
to it. Writes pictures and figures to demo/.
"""

import argparse
import asyncio
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import paths
import plain_modules  # noqa: F401
from comfy_server import Server
from PIL import Image
from tqdm import tqdm

matplotlib.use("Agg")
import drawings
import matplotlib.pyplot as plt
import truth
from pack.methods.calibration import metrics

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = ROOT / "tests/reference_model/demo.json"
THINGS = list(drawings.THINGS)[2::4]  # none of them chose
STRENGTHS = {1.0: 0.4, 2.5: 0.2}  # by cfg
SETTINGS = {"perturbation": "blurred tokens", "scale_is": "strength", "layer_start": 0.7, "layer_end": 0.7}
CONTROL = json.loads((paths.LAB / "pages/DRAWINGS.json").read_text())  # ordinary channels at that layer
SEED = 1000
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
        graph.node["DetailGuidanceReferenceModel"]["inputs"]["drawings"] = True
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


# Inputs of the guider and of Detail Guidance Options.
INPUTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "detail": SETTINGS,
    "control": SETTINGS | CONTROL | {"perturbation": "massive channels"},
}


def figures(thing: str, pictures: dict[str, np.ndarray]) -> dict[str, float]:
    """Figures of one thing's pictures: each one's perceptual distance from the drawing nearest to it; spectra against
    the drawing nearest to the one without."""
    base, detail, control = (pictures[variant] for variant in VARIANTS)
    drawn = truth.nearest_truth(thing, base)
    reference = metrics.log_spectrum(drawn)

    def gain(picture: np.ndarray, cutoff: float) -> float:
        return metrics.energy_above(picture, cutoff) / metrics.energy_above(base, cutoff) - 1

    errors = truth.errors([thing] * len(VARIANTS), np.stack([base, detail, control]))
    return {
        **{f"distance_{variant}": float(error) for variant, error in zip(VARIANTS, errors, strict=True)},
        "energy_eighth_gain": gain(detail, 1 / 8),
        "energy_quarter_gain": gain(detail, 1 / 4),
        "low_pass_correlation": metrics.low_pass_correlation(base, detail),
        "control_energy_eighth_gain": gain(control, 1 / 8),
        "control_low_pass_correlation": metrics.low_pass_correlation(base, control),
        "spectrum_distance_baseline": metrics.spectrum_distance(base, reference),
        "spectrum_distance_detail": metrics.spectrum_distance(detail, reference),
        "spectrum_distance_control": metrics.spectrum_distance(control, reference),
    }


async def demonstrate(pairs: int, out: Path) -> None:
    out.mkdir(exist_ok=True)
    cfgs = list(STRENGTHS)
    jobs = [(THINGS[number // len(cfgs)], cfgs[number % len(cfgs)]) for number in range(pairs)]
    print(f"{pairs} times {len(VARIANTS)} pictures of {drawings.PICTURE} pixels: about a minute.", flush=True)
    rows, images, reports = [], [], []
    async with Server() as server:
        definition = (await server.get("/object_info"))["DetailGuidanceOptions"]["input"]
        widgets = {name: spec for group in definition.values() for name, spec in group.items() if "default" in spec[-1]}
        options = {name: spec[1]["default"] for name, spec in widgets.items()}
        graph = Graph(await server.api_format(json.loads(WORKFLOW.read_text())), options)
        bar = tqdm(total=len(jobs) * len(VARIANTS), unit="picture", desc="demo", mininterval=1)
        for thing, cfg in jobs:
            pictures: dict[str, np.ndarray] = {}
            seconds: dict[str, float] = {}
            for variant in VARIANTS:
                watch = Watch()
                scale = {"cfg": cfg, "dg_scale": STRENGTHS[cfg] if INPUTS[variant] else 0.0}
                asked = graph.variant(truth.prompt_of(thing), SEED, **scale, **INPUTS[variant])
                (png,) = (await server.run(asked, watch)).values()
                pictures[variant] = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) / 255
                seconds[variant] = watch.seconds()
                if variant == "detail":
                    assert watch.report is not None, "the pack sent no report"
                    reports.append(watch.report)
                bar.update()
            ratio = seconds["detail"] / seconds["baseline"]  # of as many steps
            measured = figures(thing, pictures) | {"seconds_per_step_ratio": ratio}
            rows.append({"prompt": truth.prompt_of(thing), "seed": SEED, "cfg": cfg, **measured})
            images.append((thing, cfg, pictures))
        bar.close()
    first = reports[0]
    report = {
        "settings": SETTINGS | {"dg_scale": {f"cfg {cfg:g}": strength for cfg, strength in STRENGTHS.items()}},
        "family": first["family"],
        "channels": sorted({c for r in reports for found in r["channels"].values() for c in found}),
        "block": first["first_block"],
        "blocks": first["block_count"],
        "relative_strength": statistics.median(r["relative_strength"] for r in reports),
        "median": {name: statistics.median(row[name] for row in rows) for name in measured},
        "images": rows,
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(images, out)
    tell(rows)
    for file in ("comparison.png", "baseline.png", "detail.png", "report.json"):
        print(out / file)


def tell(rows: list[dict[str, Any]]) -> None:
    """Three lines of figures, with what better means."""
    for name, meaning in (
        ("distance", "perceptual distance from the true drawing, 0 is the drawing itself: smaller is better"),
        ("spectrum_distance", "distance of the spectrum from the true drawing's: smaller is better"),
    ):
        figures = [statistics.mean(row[f"{name}_{variant}"] for row in rows) for variant in VARIANTS]
        print("{:.3f} without, {:.3f} with, {:.3f} control: {}".format(*figures, meaning))
    ratio = statistics.median(row["seconds_per_step_ratio"] for row in rows)
    print(f"{ratio:.2f} times the time per step: 1 would be free")


def draw(images: list[tuple[str, float, dict[str, np.ndarray]]], out: Path) -> None:
    """Contact sheets of all pictures, and the comparison: a row for each thing."""
    for variant in ("baseline", "detail"):
        columns = 8
        tiles = [pictures[variant] for _, _, pictures in images]
        tiles += [np.ones_like(tiles[0])] * (-len(tiles) % columns)
        sheet = np.vstack([np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)])
        Image.fromarray((sheet * 255).round().astype(np.uint8)).save(out / f"{variant}.png")
    things = list(dict.fromkeys(thing for thing, _, _ in images))
    found = {(thing, cfg): pictures for thing, cfg, pictures in images}
    titles = [
        f"{'without CFG' if cfg == 1 else f'CFG {cfg:g}'}\n{name}"
        for cfg in STRENGTHS
        for name in ("without", "with", "control")
    ]
    columns = [*titles, "\nthe drawing"]
    size = 1.7 * len(columns), 1.7 * len(things) + 0.5
    figure, axes = plt.subplots(len(things), len(columns), figsize=size, layout="constrained", squeeze=False)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title, fontsize=10)
    for row, thing in zip(axes, things, strict=True):
        given = [found[thing, cfg] for cfg in STRENGTHS if (thing, cfg) in found]
        shown = [pictures[variant] for pictures in given for variant in VARIANTS]
        shown += [np.ones_like(shown[0])] * (len(titles) - len(shown))
        for axis, picture in zip(row, [*shown, truth.nearest_truth(thing, shown[0])], strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(thing, fontsize=10)
    figure.savefig(out / "comparison.png", dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    most = len(THINGS) * len(STRENGTHS)
    parser.add_argument("--pairs", type=int, default=16, metavar=f"1…{most}", help="things × cfg (16)")
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="output folder (demo/)")
    given = parser.parse_args()
    if not 1 <= given.pairs <= most:
        parser.error(f"--pairs: {given.pairs} is outside 1 to {most}.")
    asyncio.run(demonstrate(given.pairs, given.out))
