"""The page of a model of the user's own ComfyUI: what needs no training and no real pictures, by this pack's nodes."""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfyui_version
import features
import numpy as np
import objects
import photographs
import plain_modules  # noqa: F401
import torch
from finding import MEASURED, Finding, plots, save, strips, table
from in_process import Pack, reference_model
from judge import estimate
from pack.methods.calibration import metrics
from tqdm import tqdm

import comfy.samplers  # isort: skip
import folder_paths  # isort: skip
import nodes  # isort: skip

LAYERS = (0.3, 0.5, 0.7, 0.9)
PAIRS, LEVEL, KINDS = 16, 0.26, (features.RAW, features.MODULATED, features.DROPPED)  # of features
SCALES = (0.25, 0.5, 1.0)
KEPT = 0.9  # layout correlation below which a picture counts as another one


def main(arguments: argparse.Namespace, out: Path) -> None:
    prompts = [prompt.strip() for prompt in arguments.prompts.split("|") if prompt.strip()]
    if not prompts:
        sys.exit('evidence: --prompts is empty. Name some, separated by |: PROMPTS="a fox|a street at night".')
    begin = time.monotonic()
    figures = out / "evidence"
    figures.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode():
        subject = Subject(arguments, prompts)
        runs = 1 + len(prompts) * (1 + len(LAYERS) * len(SCALES))
        behind = len(prompts) * len(SCALES) * sum(1 - layer for layer in LAYERS)  # the blocks from each layer on
        forwards = arguments.steps * (runs * (2 if arguments.cfg != 1 else 1) + behind)
        shown = 2 * PAIRS * features.DRAWS * len(KINDS) * len(LAYERS)  # up to a layer
        print(
            f"{runs} pictures of {arguments.steps} steps: about {forwards:.0f} forwards of one picture; for features "
            f"{shown} more, of the blocks up to a layer.",
            flush=True,
        )
        with tqdm(total=runs, unit="picture", desc="evidence") as bar:
            subject.advance = bar.update
            findings = []
            experiments = [massive_activations, layers_and_scales]
            if objects.DRAWINGS.is_dir():
                experiments.append(parts_found_again)
            else:
                bar.write("No section on features: their drawings come with `make check`, which needs Node.js.")
            for experiment in experiments:
                findings.append(experiment(subject, figures))
                bar.write(findings[-1].told)
    page = out / "EVIDENCE.md"
    head = (
        f"# {arguments.model}\n\nWritten by `make evidence MODEL=…`: {len(prompts)} prompts, {arguments.size} × "
        f"{arguments.size} pixels, {arguments.steps} Euler steps, cfg {arguments.cfg:g}; ComfyUI "
        f"{comfyui_version.__version__}, torch {torch.__version__}. There are no real pictures to compare with: these "
        "figures say what changes, not whether it is better. Intervals are 95 %, by bootstrap over the prompts."
    )
    page.write_text("\n\n".join([head, *map(str, findings)]) + "\n")
    print(f"{page} ({(time.monotonic() - begin) / 60:.0f} min)")


class Subject:
    """The model, its words, and its pictures: prompt n from the noise of seed n."""

    def __init__(self, arguments: argparse.Namespace, prompts: list[str]):
        self.pack = Pack()
        self.arguments, self.prompts = arguments, prompts
        self.model, self.clip, self.vae = _loaded(arguments)
        self.negative = self._words(arguments.negative)
        self.advance: Any = lambda pictures: None

    def _words(self, text: str) -> Any:
        return nodes.CLIPTextEncode().encode(self.clip, text)[0]

    def sampling(self, number: int) -> dict[str, Any]:
        side = self.arguments.size // self.vae.spacial_compression_encode()
        empty = torch.zeros(1, self.vae.latent_channels, side, side)
        return {
            "seed": number,
            "steps": self.arguments.steps,
            "cfg": self.arguments.cfg,
            "sampler_name": "euler",
            "scheduler": "simple",
            "positive": self._words(self.prompts[number]),
            "negative": self.negative,
            "latent_image": {"samples": empty},
        }

    def pictures(self, model: Any) -> np.ndarray:
        """One for each prompt, (prompts, height, width, 3)."""
        drawn = []
        for number in range(len(self.prompts)):
            (latent,) = nodes.KSampler().sample(model, **self.sampling(number))
            (picture,) = nodes.VAEDecode().decode(self.vae, latent)  # of a video, its first frame
            drawn.append(picture[0].clamp(0, 1).float().cpu().numpy())
            self.advance(1)
        return np.stack(drawn)


def _loaded(arguments: argparse.Namespace) -> tuple[Any, Any, Any]:
    name = arguments.model
    reference = reference_model()
    own = (reference.DEEP, reference.SHALLOW)
    if name in own:
        return reference.load_model(name), reference.load_clip(name), reference.load_vae()
    checkpoints, diffusion = (folder_paths.get_filename_list(each) for each in ("checkpoints", "diffusion_models"))
    if name not in (*checkpoints, *diffusion):
        sys.exit(f"evidence: no model {name!r}. There are: {', '.join([*checkpoints, *diffusion, *own])}.")
    model, clip, vae = None, None, None
    if name in checkpoints:
        model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint(name)
    else:
        (model,) = nodes.UNETLoader().load_unet(name, "default")
    if arguments.clip:
        files = [folder_paths.get_full_path_or_raise("text_encoders", each) for each in arguments.clip]
        kinds = {kind.name.lower(): kind for kind in comfy.sd.CLIPType}
        if arguments.clip_type not in kinds:
            sys.exit(f"evidence: --clip-type {arguments.clip_type!r} is none of {', '.join(kinds)}.")
        kind = kinds[arguments.clip_type]
        clip = comfy.sd.load_clip(ckpt_paths=files, clip_type=kind)
    if arguments.vae:
        (vae,) = nodes.VAELoader().load_vae(arguments.vae)
    if clip is None or vae is None:
        sys.exit(f"evidence: {name} has no {'text encoder' if clip is None else 'VAE'}: name it by --clip and --vae.")
    return model, clip, vae


def massive_activations(subject: Subject, folder: Path) -> Finding:
    _, figures, report, _ = subject.pack.outputs("MassiveActivationProbe", model=subject.model, **subject.sampling(0))
    subject.advance(1)
    figure, ((axis,),) = plots(1, height=7)
    axis.imshow(figures[0].cpu().numpy())
    axis.set_axis_off()
    return Finding(
        "1. Massive activations",
        "few fixed channels of every image token, at all layers ([DG], arXiv 2510.11538, figures 2 and 3).",
        f"by *Massive Activation Probe*, of the first prompt, {subject.prompts[0]!r}.",
        {"Where they are": (MEASURED, "As the probe reports:")},
        [f"```\n{report}\n```"],
        [save(figure, folder, "1-probe.png")],
    )


def layers_and_scales(subject: Subject, folder: Path) -> Finding:
    base = subject.pictures(subject.model)
    rows, kept = [], []
    shown = {"without": base}
    for layer in LAYERS:
        for scale in SCALES:
            inputs = {"layer_start": layer, "layer_end": layer, "dg_scale": scale}
            model = subject.pack.run("DetailGuidance", model=subject.model, **inputs)
            with subject.pack.reports() as published:
                pictures = subject.pictures(model)
            layout = estimate(np.array([metrics.low_pass_correlation(*pair) for pair in _pairs(base, pictures)]))
            bands = np.array(
                [
                    np.log(metrics.energy_in_octaves(b) + metrics.TINY)
                    - np.log(metrics.energy_in_octaves(a) + metrics.TINY)
                    for a, b in _pairs(base, pictures)
                ]
            )
            strength = estimate(np.array([report.relative_strength for report in published]))
            kept += [(layer, scale)] if strength.mean > 0 and layout.mean >= KEPT else []
            rows.append(
                [
                    f"{layer:g}",
                    f"{scale:g}",
                    f"{strength}" if strength.mean > 0 else "no massive channel",
                    f"{layout}",
                    *(estimate(band).signed for band in bands.T[-3:]),
                ]
            )
            shown[f"layer {layer:g}, w {scale:g}"] = pictures
    octaves = [f"Δ log energy {low:.3g} to {high:.3g} cycle/px" for low, high in metrics.OCTAVES[-3:]]
    return Finding(
        "2. Layer and scale",
        "open: no source publishes them.",
        "*Detail Guidance* at each layer and scale against the same noise without it: relative strength ‖w(c − d)‖ / "
        "‖x − c‖, correlation of the layout, energy by octave.",
        {
            f"Settings that keep the layout (correlation of {KEPT:g} or more)": (
                MEASURED,
                ", ".join(f"({layer:g}, {scale:g})" for layer, scale in kept) or "none of these",
            )
        },
        [table(["layer", "scale w", "strength", "layout correlation", *octaves], rows)],
        [strips(shown, folder, "2-layer-and-scale.png", columns=6)],
    )


def parts_found_again(subject: Subject, folder: Path) -> Finding:
    side = subject.arguments.size
    pairs = features.pairs_of(objects.UNSEEN, PAIRS, photographs.load(), 1, side)
    scene = features.Scene.of(subject.pack, subject.model, subject.clip, subject.vae, pairs)
    rows = []
    for layer in LAYERS:
        of_layer = [features.found(pairs, scene.features(layer, LEVEL, kind)) for kind in KINDS]
        rows.append([f"{layer:g}", *(estimate(shares).percent for shares in of_layer)])
    return Finding(
        "3. Features",
        "modulating finds more of the points than the raw hidden state, dropping massive channels more still ([DiTF], "
        "arXiv 2505.18584).",
        f"{PAIRS} pairs of one drawing at two places, in two sizes, on two textures, {side} × {side} pixels, an empty "
        f"prompt, noise level {LEVEL:g}: the share of {features.POINTS} points of each that `MatchFeatures` finds "
        f"within {features.NEAR:g} of the object's size.",
        {"Which layer, which form": (MEASURED, f"By chance {features.by_chance(pairs).mean():.0%} are found.")},
        [table(["layer", *KINDS], rows)],
    )


def _pairs(base: np.ndarray, pictures: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    return zip(base.astype(float), pictures.astype(float), strict=True)
