"""Layers, scales, CFG and options on the reference model, behind the defaults: docs/SWEEP.md and docs/sweep.jpg.

    .host/venv/bin/python tools/sweep.py

Every setting samples the same 32 prompt–seed pairs, each prompt as one batch of seeds. Compared are medians over
pictures; the change of the spectrum distance is paired, with a bootstrap interval.
"""

import asyncio
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from in_process import Pack, start
from mathematics import metrics
from PIL import Image
from tqdm import tqdm

start(cpu=not torch.cuda.is_available())

import comfy.samplers  # noqa: E402

import nodes as comfy_nodes  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
REFERENCE_MODEL = ROOT / "tests/reference_model"
sys.path.insert(0, str(REFERENCE_MODEL))
import photographs  # noqa: E402

from demo import PROMPTS  # noqa: E402

SEEDS = 2
STEPS = 20
SHOWN = PROMPTS[:8]
OUT = ROOT / "docs"

LAYERS_AND_SCALES = [
    (f"layer {layer:g}, w {scale:g}", {"dg_scale": scale, "layer_start": layer, "layer_end": layer}, {})
    for layer in (0.25, 0.5, 0.75)
    for scale in (0.25, 0.5, 1.0)
]
MIDDLE = {"dg_scale": 0.5, "layer_start": 0.5, "layer_end": 0.5}
VARIATIONS: list[tuple[str, dict[str, float], dict[str, Any]]] = [
    ("layer 0.5, w 0.5, one channel", MIDDLE, {"max_channels": 1}),
    ("layer 0.5, w 0.5, keep 0.5", MIDDLE, {"keep_start": 0.5, "keep_end": 0.5}),
    ("layer 0.5, w 0.5, rescale 1", MIDDLE, {"rescale": 1.0}),
    ("layer 0.5, w 0.5, first half of the schedule", MIDDLE | {"end_percent": 0.5}, {}),
    ("layer 0.5, w 0.5, second half of the schedule", MIDDLE | {"start_percent": 0.5}, {}),
    ("layers 0.25 to 0.75, w 0.5", MIDDLE | {"layer_start": 0.25, "layer_end": 0.75}, {}),
]
SETTINGS = {1.0: LAYERS_AND_SCALES, 3.0: LAYERS_AND_SCALES + VARIATIONS}  # by cfg


class ReferenceModel:
    """The reference model, and pictures of it: (SEEDS, 128, 128, 3) per prompt."""

    def __init__(self, pack: Pack):
        asyncio.run(comfy_nodes.load_custom_node(str(REFERENCE_MODEL)))
        loader = comfy_nodes.NODE_CLASS_MAPPINGS["DetailGuidanceReferenceModel"]
        self.model, self.clip, self.vae = loader.execute().args
        self.pack = pack

    def conditioning(self, text: str) -> list:
        return comfy_nodes.CLIPTextEncode().encode(self.clip, text)[0]

    def pictures(self, text: str, cfg: float, settings: dict[str, float], options: dict[str, Any]) -> np.ndarray:
        options = self.pack.run("DetailGuidanceOptions", **options)
        model = self.pack.run("DetailGuidance", model=self.model, options=options, **settings)
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(self.conditioning(text), self.conditioning(""))
        guider.set_cfg(cfg)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
        noise = torch.cat([torch.randn(1, 16, 16, 16, generator=torch.manual_seed(seed)) for seed in range(SEEDS)])
        latents = guider.sample(
            noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True
        )
        return self.vae.decode(latents).clamp(0, 1).numpy().astype(float)


def compare(
    base: dict[str, np.ndarray], guided: dict[str, np.ndarray], real: dict[str, list[np.ndarray]]
) -> dict[str, Any]:
    pairs = [(b, g, real[text]) for text in base for b, g in zip(base[text], guided[text], strict=True)]
    change = np.array([metrics.spectrum_distance(g, r) - metrics.spectrum_distance(b, r) for b, g, r in pairs])
    draws = np.random.default_rng(0).choice(change, (2000, len(change))).mean(axis=1)
    return {
        "correlation": statistics.median(metrics.low_pass_correlation(b, g) for b, g, _ in pairs),
        "eighth": statistics.median(
            metrics.energy_above(g, 1 / 8) / metrics.energy_above(b, 1 / 8) - 1 for b, g, _ in pairs
        ),
        "quarter": statistics.median(
            metrics.energy_above(g, 1 / 4) / metrics.energy_above(b, 1 / 4) - 1 for b, g, _ in pairs
        ),
        "distance": float(np.mean([metrics.spectrum_distance(g, r) for _, g, r in pairs])),
        "change": float(change.mean()),
        "interval": np.percentile(draws, [2.5, 97.5]).tolist(),
    }


@torch.inference_mode()
def main() -> None:
    pack = Pack()
    reference = ReferenceModel(pack)
    photos = photographs.load()
    real = {
        text: [
            crop.permute(1, 2, 0).numpy()
            for crop in photographs.crops(photos[text], 32, torch.Generator().manual_seed(11))
        ]
        for text in PROMPTS
    }
    lines = [
        "| cfg | setting | low-pass correlation | energy > 1/8 | energy > 1/4 | spectrum distance | change (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    strips = []
    bar = tqdm(total=sum(1 + len(settings) for settings in SETTINGS.values()), unit="setting")
    for cfg, every in SETTINGS.items():
        base = {text: reference.pictures(text, cfg, {"dg_scale": 0.0}, {}) for text in PROMPTS}
        distance = np.mean([metrics.spectrum_distance(p, real[text]) for text in PROMPTS for p in base[text]])
        lines.append(f"| {cfg:g} | without | 1 | | | {distance:.3f} | |")
        strips.append((f"cfg {cfg:g}", [base[text][0] for text in SHOWN]))
        bar.update()
        for label, settings, options in every:
            guided = {text: reference.pictures(text, cfg, settings, options) for text in PROMPTS}
            row = compare(base, guided, real)
            change = f"{row['change']:+.3f} ({row['interval'][0]:+.3f} … {row['interval'][1]:+.3f})"
            lines.append(
                f"| {cfg:g} | {label} | {row['correlation']:.3f} | {row['eighth']:+.0%} | {row['quarter']:+.0%} "
                f"| {row['distance']:.3f} | {change} |"
            )
            strips.append((label, [guided[text][0] for text in SHOWN]))
            bar.update()
    bar.close()
    OUT.mkdir(exist_ok=True)
    (OUT / "SWEEP.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    draw(strips)


def draw(strips: list[tuple[str, list[np.ndarray]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(strips), 1, figsize=(9, 1.12 * len(strips)), layout="constrained")
    for axis, (label, pictures) in zip(axes, strips, strict=True):
        axis.imshow(np.hstack(pictures), interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    figure.savefig(OUT / "sweep.png", dpi=110)
    Image.open(OUT / "sweep.png").convert("RGB").save(OUT / "sweep.jpg", quality=88)
    (OUT / "sweep.png").unlink()


if __name__ == "__main__":
    main()
