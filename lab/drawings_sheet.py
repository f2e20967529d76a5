"""What Detail Guidance does to drawings, where the truth is known, and a sheet on which it can be seen.

    .host/venv/bin/python lab/drawings_sheet.py --cfg 2.5      measures, once for each of CFGS
    .host/venv/bin/python lab/drawings_sheet.py                writes lab/pages/DRAWINGS.md and its pictures

The model of drawings knows what each picture should have been, so each is compared with the nearest true picture: the
drawing at the best of some places and sizes, on the picture's own ground. The judge is the perceptual distance from it
(lab/evidence/perceptual.py), which neither noise nor blur pleases; beside it stands how many are named rightly by a
network (lab/naming.py). Fixed before the first judging picture was sampled: a quarter of the things chooses between the
settings below and none, with CFG and without; every second thing, none of those, judges what was chosen and what nobody
chose, in pairs from the same noise, with 95 % intervals over pictures. The control disrupts ordinary channels of equal
energy in the same way. Then the perturbation that came out best is looked at once more: the choosing things choose its
layer and strength, and things that had decided nothing judge it.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import paths
import plain_modules  # noqa: F401
import torch
from control import ordinary
from in_process import Pack, reference_model, start

start(cpu=True, pytorch_attention=True)
import drawings  # noqa: E402
from judge import estimate  # noqa: E402
from naming import Namer  # noqa: E402
from pack.methods.common.layers import block_at  # noqa: E402
from truth import errors, nearest_truth, prompt_of  # noqa: E402

import nodes as comfy_nodes  # isort: skip  # noqa: E402

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

PAGE = paths.LAB / "pages/DRAWINGS.md"
CONTROL = PAGE.with_suffix(".json")  # the ordinary channels, for `make demo`
MEASURED = paths.ROOT / ".host/drawings"  # what is measured, a folder for each of CFGS
CFGS = (1.0, 2.5)
CHOOSING, JUDGING, FRESH = slice(None, None, 4), slice(1, None, 2), slice(2, None, 4)  # of the things
STEPS, SEED = 20, 1_000
SHOWN = 8  # things on the sheet

LAYERS, SCALES = (0.5, 0.7), (0.125, 0.25, 0.5)
KINDS = ("massive channels", "massive channels amplified", "massive channels averaged")
STRENGTHS = (0.05, 0.1, 0.2, 0.4)  # of the paper's form, at the nodes' layer
COMPARED_AT = 0.1  # the strength at which all perturbations are compared
# Random blocks at one layer are a skipped block; words have no place in a prompt of one thing.
OTHERS = (
    "massive channels shuffled",
    "skipped block",
    "blurred tokens",
    "shuffled tokens",
    "identity attention",
    "blurred attention",
)

BEST = "blurred tokens"  # of the tables
BEST_LAYERS, BEST_STRENGTHS = (0.3, 0.5, 0.7), (0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class Setting:
    """One way to sample; no scale is no Detail Guidance."""

    scale: float = 0.0
    layer: float = 0.7
    perturbation: str = KINDS[0]
    path: str = "positive"
    scale_is: str = "w"
    channels: str = "auto"

    def __str__(self) -> str:
        if not self.scale:
            return "none"
        path = ", in the negative" if self.path == "negative" else ""
        return f"{self.perturbation}, layer {self.layer:g}, {self.scale_is} {self.scale:g}{path}"


def grid(cfg: float) -> list[Setting]:
    """The settings between which the choosing things choose, beside none."""
    settings = [Setting(scale, layer, kind) for kind in KINDS for layer in LAYERS for scale in SCALES]
    if cfg != 1:
        settings += [Setting(0.25, layer, kind, "negative") for kind in KINDS[:2] for layer in LAYERS]
    return settings


class Bench:
    """The model of drawings in the real host."""

    def __init__(self, cfg: float) -> None:
        self.pack, package, self.cfg = Pack(), reference_model(), cfg
        self.model, self.clip, self.vae = (
            package.load_model("drawings"),
            package.load_clip("drawings"),
            package.load_vae("drawings_autoencoder"),
        )
        things = list(drawings.THINGS)
        self.choosing, self.judging, self.fresh = things[CHOOSING], things[JUDGING], things[FRESH]

    @torch.inference_mode()
    def sampled(self, things: list[str], setting: Setting) -> np.ndarray:
        """A picture of each thing, (things, height, width, 3), from the same noise for every setting."""
        model = self.model
        if setting.scale:
            named = {name: getattr(setting, name) for name in ("perturbation", "path", "scale_is", "channels")}
            options = self.pack.run("DetailGuidanceOptions", **named)
            bounds = {"layer_start": setting.layer, "layer_end": setting.layer, "dg_scale": setting.scale}
            model = self.pack.run("DetailGuidance", model=model, options=options, **bounds)
        encode = comfy_nodes.CLIPTextEncode().encode
        prompts = [encode(self.clip, prompt_of(thing))[0][0] for thing in things]
        # One condition with a row for each picture: a batch of different prompts.
        context = torch.cat([each for each, _ in prompts])
        pooled = torch.cat([beside["pooled_output"] for _, beside in prompts])
        positive, negative = [[context, {"pooled_output": pooled}]], encode(self.clip, "")[0]
        latent = {"samples": torch.zeros(len(things), 16, drawings.PICTURE // 8, drawings.PICTURE // 8)}
        sampler = (SEED, STEPS, self.cfg, "euler", "simple")
        (out,) = comfy_nodes.common_ksampler(model, *sampler, positive, negative, latent)
        return self.vae.decode(out["samples"])[..., :3].clamp(0, 1).numpy()

    @torch.inference_mode()
    def control_of(self, setting: Setting) -> Setting:
        """The same setting with ordinary channels of the massive channels' energy."""
        blocks, energies = self.model.model.diffusion_model.joint_blocks, []
        module = blocks[block_at(setting.layer, len(blocks))]
        handle = module.register_forward_pre_hook(lambda _, args: energies.append(args[1].square().mean(dim=(0, 1))))
        self.sampled(self.choosing[:4], Setting())
        handle.remove()
        energy = torch.stack(energies).mean(dim=0)
        numbers = ordinary(energy, [int(energy.argmax())], seed=0)
        return replace(setting, channels=", ".join(map(str, numbers)))


class Table:
    """Settings judged beside none, as Markdown."""

    def __init__(self, bench: Bench, namer: Namer, things: list[str]) -> None:
        self.bench, self.namer, self.things = bench, namer, things
        self.without = bench.sampled(things, Setting())
        self.error = errors(things, self.without)
        self.rows = [
            "| setting | distance from the truth | its change | named rightly | PSNR with and without |",
            "|---|---|---|---|---|",
            f"| none | {self.error.mean():.4f} | | {self._named(self.without)} | |",
        ]

    def judge(self, name: str, setting: Setting) -> np.ndarray:
        """The pictures with a setting, of which a row is added."""
        pictures = self.bench.sampled(self.things, setting)
        error = errors(self.things, pictures)
        change = estimate(error - self.error).signed
        apart = -10 * np.log10(np.square(pictures - self.without).mean(axis=(1, 2, 3))).mean()
        self.rows.append(f"| {name} | {error.mean():.4f} | {change} | {self._named(pictures)} | {apart:.1f} dB |")
        print(self.rows[-1], flush=True)
        return pictures

    def _named(self, pictures: np.ndarray) -> str:
        right = self.namer.right(pictures, self.things)
        return f"{int(right.sum())} of {len(right)}"


def chosen(bench: Bench, settings: list[Setting]) -> tuple[Setting, list[str]]:
    """The setting with which the choosing things come closest to the truth; and all of them, in a fold."""
    found = {each: float(errors(bench.choosing, bench.sampled(bench.choosing, each)).mean()) for each in settings}
    ranked = sorted(found, key=found.__getitem__)
    rows = [f"| {each} | {found[each]:.4f} |" for each in ranked]
    fold = ["<details><summary>All settings they chose between</summary>", "", "| setting | distance from the truth |"]
    return ranked[0], [*fold, "|---|---|", *rows, "", "</details>", ""]


def measure(cfg: float) -> None:
    """What the page says of one cfg, into its folder."""
    bench = Bench(cfg)
    best, fold = chosen(bench, [Setting(), *grid(cfg)])
    namer = Namer(bench.vae.first_stage_model)
    table = Table(bench, namer, bench.judging)
    control = bench.control_of(best)
    table.judge(f"**the best of the choosing things**: {best}", best)
    table.judge("its control: ordinary channels", control)
    table.judge("**the nodes' defaults**", Setting(0.25))
    for strength in STRENGTHS:
        table.judge(f"massive channels, strength {strength:g}", Setting(strength, scale_is="strength"))
    for kind in (*KINDS[1:], *OTHERS):
        table.judge(f"{kind}, strength {COMPARED_AT:g}", Setting(COMPARED_AT, 0.7, kind, scale_is="strength"))
    lines = [
        f"## cfg {cfg:g}",
        "",
        f"Of {len(bench.choosing)} choosing things the perceptual distance is smallest with {best}.",
        "",
        *fold,
        f"{len(bench.judging)} judging things:",
        "",
        *table.rows,
        "",
    ]
    _keep(cfg, "judged", {"lines": lines, "held_out": namer.held_out, "control": control.channels})
    measure_best(bench, namer)


def measure_best(bench: Bench, namer: Namer) -> None:
    """What the page says of the best perturbation with one cfg, and the sheet's pictures, into its folder."""
    settings = [
        Setting(strength, layer, BEST, scale_is="strength") for layer in BEST_LAYERS for strength in BEST_STRENGTHS
    ]
    best, fold = chosen(bench, [Setting(), *settings])
    table = Table(bench, namer, bench.fresh)
    advised = Setting(COMPARED_AT, scale_is="strength")
    pictures = {
        "without": table.without,
        f"massive channels,\nstrength {COMPARED_AT:g}": table.judge(f"{advised}", advised),
        f"{BEST},\nstrength {best.scale:g}": table.judge(f"**{best}**", best),
    }
    lines = [
        f"## {BEST.capitalize()}, cfg {bench.cfg:g}",
        "",
        f"The choosing things choose: {best}.",
        "",
        *fold,
        f"{len(bench.fresh)} fresh things:",
        "",
        *table.rows,
        "",
    ]
    _keep(bench.cfg, "best", {"lines": lines})
    np.savez_compressed(MEASURED / f"{bench.cfg:g}/pictures.npz", **{k: v[:SHOWN] for k, v in pictures.items()})


def _keep(cfg: float, part: str, said: dict[str, Any]) -> None:
    folder = MEASURED / f"{cfg:g}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{part}.json").write_text(json.dumps(said))


def _kept(part: str) -> dict[float, dict[str, Any]]:
    return {cfg: json.loads((MEASURED / f"{cfg:g}/{part}.json").read_text()) for cfg in CFGS}


def page() -> str:
    judged, best = _kept("judged"), _kept("best")
    head = [
        "# Drawings",
        "",
        (__doc__ or "").split("\n\n")[2].replace("\n", " ").strip(),
        "",
        "The hue of a thing's ground goes by its number: choosing things stand on red and teal, judging ones on "
        "orange, green, blue and pink, fresh ones on yellow and purple.",
        "",
        f"The network names {judged[1.0]['held_out']:.0%} of drawn scenes rightly that it was not fitted to. {STEPS} "
        "steps, euler, simple; weights and recipe: lab/training. Written by `lab/drawings_sheet.py`.",
        "",
        "![Fresh things without Detail Guidance, with the paper's form and with the best perturbation](drawings.png)",
        "",
    ]
    return "\n".join(head + [line for part in (judged, best) for each in part.values() for line in each["lines"]])


def draw_sheet(file: Path) -> None:
    """The sheet: a row for each of the first fresh things, the drawing last."""
    things = list(drawings.THINGS)[FRESH][:SHOWN]
    columns: dict[str, np.ndarray] = {}
    for cfg in CFGS:
        title = "without CFG" if cfg == 1 else f"CFG {cfg:g}"
        columns |= {f"{title}\n{name}": each for name, each in np.load(MEASURED / f"{cfg:g}/pictures.npz").items()}
    last = next(reversed(columns.values()))
    columns["\nthe drawing"] = np.stack([nearest_truth(*pair) for pair in zip(things, last, strict=True)])
    figure, axes = plt.subplots(SHOWN, len(columns), figsize=(1.5 * len(columns), 1.5 * SHOWN))
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title, fontsize=10)
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture)
            axes[row, column].set(xticks=[], yticks=[])
    for row, thing in enumerate(things):
        axes[row, 0].set_ylabel(thing, fontsize=10)
    figure.tight_layout(pad=0.3)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def draw_strip(file: Path) -> None:
    """README's picture: without and with the best perturbation, without CFG."""
    pictures = np.load(MEASURED / "1/pictures.npz")
    rows = [pictures["without"], next(pictures[name] for name in pictures if name.startswith(BEST))]
    figure, axes = plt.subplots(len(rows), SHOWN, figsize=(1.3 * SHOWN + 0.4, 1.3 * len(rows)), facecolor="white")
    for line, label, shown in zip(axes, ("without", "with"), rows, strict=True):
        line[0].set_ylabel(label, fontsize=12)
        for axis, picture in zip(line, shown, strict=True):
            axis.imshow(picture)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    figure.tight_layout(pad=0.2)
    figure.savefig(file, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", type=float, choices=CFGS)
    given = parser.parse_args()
    if given.cfg is None:
        PAGE.write_text(page())
        CONTROL.write_text(json.dumps({"channels": _kept("judged")[1.0]["control"]}) + "\n")
        draw_sheet(PAGE.with_name("drawings.png"))
        draw_strip(paths.ROOT / "docs/drawings.png")
    else:
        measure(given.cfg)
