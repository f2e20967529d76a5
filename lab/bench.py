"""What Detail Guidance costs: `make bench` writes bench/results.json and bench/RESULTS.md.

Every method samples the same model of the host's own class, with random weights, through the host's own sampler.
Rounds are interleaved (each method once per round, in rotating order) and ratios are medians over rounds of a method's
time to CFG's in the same round: the machine's noise falls on both. On a CPU one thread computes and its own time is
taken, not the clock's, so that what else the machine does counts less. A run's first step, which warms up and
measures, is left out; a row that reuses has one computed step and those that take its difference, as in the long run.
Counted, and so the same on every machine: rows through blocks, operations of matrices, bytes that all operations
write; and memory on a CPU. Real sizes on a CUDA device, scaled-down stand-ins elsewhere.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paths  # first: the others are found by it
import torch
from in_process import Pack, start

GPU = torch.cuda.is_available()
start(cpu=not GPU)

import family_models  # noqa: E402
from comfy import supported_models as supported  # noqa: E402
from comfy.model_management import get_torch_device  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT  # noqa: E402
from family_models import FLUX, LUMINA, QWEN, WAN, double_and_single  # noqa: E402
from models import CPU, built  # noqa: E402
from peak import peak  # noqa: E402
from plain import Stream  # noqa: E402
from sampling import counted, sample, stock_guider  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402
from tqdm import tqdm  # noqa: E402

ROUNDS = 5
EVERY = (2, 3)
METHODS = ("slg", "words", "foreground", "dg")
CFG = 4.0
OUT = paths.ROOT / "bench"


@dataclass(frozen=True)
class Size:
    """One architecture.

    Attributes:
        config, sizes: the host's configuration class, and what it would read from the weights.
        latent: (channels, …, height, width).
        context, text: width and number of the prompt's tokens.
        blocks: diffusion model → its blocks in execution order.
        skip: m → block → the host's skip-layer node's inputs; None where it has none for the family.
    """

    family: str
    config: type
    sizes: dict[str, Any]
    latent: tuple[int, ...]
    context: int
    text: int
    width: int
    blocks: Callable[[Any], list]
    stream: Stream | tuple[Stream, ...]
    skip: Callable[[range], dict[str, str]] | None = None


def sd3(depth: int, side: int, context: int, text: int) -> Size:
    width = 64 * depth
    sizes = {
        "input_size": None,
        "in_channels": 16,
        "depth": depth,
        "adm_in_channels": context,
        "context_embedder_config": {
            "target": "torch.nn.Linear",
            "params": {"in_features": context, "out_features": width},
        },
        "num_patches": (side // 2) ** 2,
        "pos_embed_max_size": side // 2,
    }
    return Size(
        "SD3", supported.SD3, sizes, (16, side, side), context, text, width, lambda m: [*m.joint_blocks], Stream(1),
        lambda blocks: {"double_layers": ", ".join(map(str, blocks)), "single_layers": ""},
    )  # fmt: skip


def flux(width: int, double: int, single: int, side: int, context: int, text: int) -> Size:
    sizes = {**FLUX, "hidden_size": width, "num_heads": width // 128, "axes_dim": [16, 56, 56], "mlp_ratio": 4.0}
    sizes |= {"depth": double, "depth_single_blocks": single, "context_in_dim": context, "vec_in_dim": context}
    streams = (Stream("img"),) * double + (Stream("x"),) * single

    def skip(blocks: range) -> dict[str, str]:
        doubles, singles = [b for b in blocks if b < double], [b - double for b in blocks if b >= double]
        return {"double_layers": ", ".join(map(str, doubles)), "single_layers": ", ".join(map(str, singles))}

    return Size(
        "Flux", supported.Flux, sizes, (16, side, side), context, text, width, double_and_single, streams, skip
    )  # fmt: skip


def wan(width: int, depth: int, frames: int, side: int, context: int, text: int) -> Size:
    sizes = {**WAN, "dim": width, "num_heads": width // 128, "ffn_dim": 4 * width, "num_layers": depth}
    sizes |= {"text_dim": context, "freq_dim": 256}
    return Size(
        "Wan", supported.WAN21_T2V, sizes, (16, frames, side, side), context, text, width, family_models.blocks,
        Stream("x"), lambda blocks: {"double_layers": ", ".join(map(str, blocks)), "single_layers": ""},
    )  # fmt: skip


def lumina(width: int, depth: int, side: int, context: int, text: int) -> Size:
    sizes = {**LUMINA, "dim": width, "n_heads": width // 96, "n_kv_heads": width // 96, "axes_dims": [32, 32, 32]}
    sizes |= {"cap_feat_dim": context, "n_layers": depth - 1, "ffn_dim_multiplier": 4.0}
    return Size(
        "Lumina 2", supported.Lumina2, sizes, (16, side, side), context, text, width,
        lambda m: [*m.noise_refiner, *m.layers], Stream("x"),
    )  # fmt: skip


def qwen_image(heads: int, depth: int, side: int, context: int, text: int) -> Size:
    sizes = {**QWEN, "num_layers": depth, "attention_head_dim": 128, "num_attention_heads": heads}
    sizes |= {"joint_attention_dim": context, "axes_dims_rope": (16, 56, 56)}
    return Size(
        "Qwen-Image", supported.QwenImage, sizes, (16, 1, side, side), context, text, 128 * heads,
        lambda m: [*m.transformer_blocks], Stream("hidden_states"),
    )  # fmt: skip


SIZES = (
    [
        sd3(24, 128, context=4096, text=154),  # SD3-Medium at 1024²
        sd3(38, 128, context=4096, text=154),  # SD3.5-Large
        flux(3072, 19, 38, 128, context=4096, text=256),  # FLUX.1-dev
    ]
    if GPU
    else [
        sd3(12, 32, context=768, text=64),
        flux(768, 4, 8, 32, context=768, text=64),
        wan(768, 12, 3, 20, context=768, text=64),
        lumina(768, 12, 32, context=768, text=64),
        qwen_image(6, 12, 32, context=768, text=64),
    ]
)


class Written(TorchDispatchMode):
    """Counts, while it lasts, the bytes of all new tensors: copies and all else that operations of matrices are not."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for made in () if function.is_view else tree_leaves(out):
            if isinstance(made, torch.Tensor):
                self.bytes += made.numel() * made.element_size()
        return out


def load(size: Size) -> ModelPatcher:
    dtype = torch.bfloat16 if GPU else torch.float32
    patcher = built(size.config, size.sizes, dtype, dtype, get_torch_device() if GPU else CPU)
    torch.manual_seed(0)
    for value in patcher.model.diffusion_model.state_dict().values():
        if value.is_floating_point():
            value.normal_(std=value.shape[-1] ** -0.5 if value.ndim > 1 else 0.02)
    return patcher


def conditioning(size: Size, seed: int) -> list:
    pooled = family_models.normal(seed, 1, size.context)
    return [[family_models.normal(seed + 100, 1, size.text, size.context), {"pooled_output": pooled}]]


def methods(pack: Pack, patcher: ModelPatcher, size: Size, blocks: int) -> list[dict[str, Any]]:
    """One row per method, with a guider that samples it."""
    conditions = conditioning(size, 1), conditioning(size, 2)

    def row(method: str, patcher: ModelPatcher, limit: float, **about: Any) -> dict[str, Any]:
        guider = stock_guider(patcher, *conditions, cfg=CFG)
        steps = 1 + max(about.get("every", 1), 2)
        return {"method": method, "plan": None, "m": None, "every": 1, "limit": limit} | about | {
            "guider": guider, "steps": steps
        }  # fmt: skip

    def detail(m: int, plan: str, every: int = 1) -> dict[str, Any]:
        options = pack.run("DetailGuidanceOptions", batching=plan, massive_ratio=1.0, every=every)
        layer = (m + 0.5) / blocks
        inputs = {"dg_scale": 1.0, "layer_start": layer, "layer_end": layer, "options": options}
        guided = pack.run("DetailGuidance", model=patcher, **inputs)
        return row("dg", guided, 1 + (blocks - m) / (2 * blocks * every), plan=plan, m=m, every=every)

    rows = [row("cfg", patcher, 1.0)]
    if size.skip:
        skipped = range(blocks // 2, blocks // 2 + max(round(blocks / 8), 1))  # 3 of 24, as the node's defaults
        slg = SkipLayerGuidanceDiT.execute(patcher, 3.0, 0.0, 1.0, **size.skip(skipped))[0]
        rows.append(row("slg", slg, 1 + (blocks - len(skipped)) / (2 * blocks)))
    for what, region in regions(pack, patcher, size).items():
        watched = pack.module("methods.regions.reader").read_each_step(patcher, region, lambda maps: None)
        rows.append(row(what, watched, 1.0))
    for m in (blocks // 4, blocks // 2, 3 * blocks // 4):
        rows += [detail(m, "together"), detail(m, "in turn")]
    return rows + [detail(blocks // 2, plan, every) for every in EVERY for plan in ("together", "in turn")]


def regions(pack: Pack, patcher: ModelPatcher, size: Size) -> dict[str, Any]:
    """What is read while the model samples: two words, where it tells its attention to them; and the foreground."""
    words = pack.module("methods.regions.words").Words(("one", "two"), ((1,), (2, 3), (4, 5)), size.text, None)
    found = {"words": words, "foreground": pack.run("DetailForeground")}
    if not any(stage.prompt_keys for stage in pack.module("dit").anatomy_of(patcher).family.stages):
        del found["words"]
    return found


def bench(pack: Pack, size: Size, rounds: int, wanted: list[str]) -> list[dict[str, Any]]:
    patcher = load(size)
    blocks = size.blocks(patcher.model.diffusion_model)
    streams = (size.stream,) * len(blocks) if isinstance(size.stream, Stream) else size.stream
    rows = [row for row in methods(pack, patcher, size, len(blocks)) if row["method"] in ("cfg", *wanted)]
    noise = family_models.normal(5, 1, *size.latent)
    for row in rows:  # counts, and warms up
        with counted(patcher, size.blocks, streams) as computed:
            row["block_rows_per_step"], row["operations"], row["bytes"] = _counts(row, noise, computed)
        row["peak_memory"] = _peak(row["guider"], noise)
    seconds: list[list[float]] = [[] for _ in rows]
    for turn in tqdm(range(rounds), desc=f"{size.family}, {len(blocks)} blocks", unit="round"):
        for number in (*range(turn % len(rows), len(rows)), *range(turn % len(rows))):
            seconds[number].append(_per_step(rows[number], noise, _now))
    of_cfg = dict(rows[0])
    for row, times in zip(rows, seconds, strict=True):
        ratios = [own / cfg for own, cfg in zip(times, seconds[0], strict=True)]
        row["ratio_to_cfg"] = round(statistics.median(ratios), 4)
        row["seconds_per_step"] = round(statistics.median(times), 4)
        row["operations_to_cfg"] = round(row.pop("operations") / of_cfg["operations"], 4)
        row["bytes_written_to_cfg"] = round(row.pop("bytes") / of_cfg["bytes"], 4)
        row["memory_ratio_to_cfg"] = round(row.pop("peak_memory") / of_cfg["peak_memory"], 4)
        del row["guider"], row["steps"]
    device = torch.cuda.get_device_name() if GPU else f"{platform.machine()} CPU"
    tokens = noise[0, 0].numel() // 4
    common = {"family": size.family, "width": size.width, "blocks": len(blocks), "tokens": tokens}
    common |= {"device": device, "dtype": str(patcher.model.get_dtype()).removeprefix("torch.")}
    return [common | row for row in rows]


def _counts(row: dict[str, Any], noise: torch.Tensor, rows: list[int]) -> list[float]:
    """Per step: rows through all blocks, of those through each; operations of matrices; bytes written."""
    with FlopCounterMode(display=False) as flops, Written() as written:
        return _per_step(row, noise, lambda: np.array([sum(rows), flops.get_total_flops(), written.bytes])).tolist()


def _per_step(row: dict[str, Any], noise: torch.Tensor, read: Callable[[], Any]) -> Any:
    """What a clock or counters advance by, per step after the first."""
    readings: list[Any] = []
    sample(
        row["guider"], noise=noise, steps=row["steps"], disable_pbar=True, callback=lambda *_: readings.append(read())
    )
    return (readings[-1] - readings[0]) / (len(readings) - 1)


def _peak(guider: Any, noise: torch.Tensor) -> int:
    """Bytes above the weights."""
    if not GPU:
        return peak(guider, noise)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    sample(guider, noise=noise, steps=1, disable_pbar=True)
    return torch.cuda.max_memory_allocated() - before


def _now() -> float:
    if not GPU:
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def table(rows: list[dict[str, Any]], rounds: int) -> str:
    lines = [
        f"Device: {rows[0]['device']}, torch {torch.__version__.partition('+')[0]}, {rows[0]['dtype']}, "
        f"{'' if GPU else 'time of one thread, '}median of {rounds} interleaved rounds, steps after the first. "
        "Operations of matrices and bytes written are counted. Memory: peak above the weights.",
        "",
        "| family | width × blocks, tokens | method | plan | m | every | block-rows per step | seconds per step "
        "| time to CFG | operations to CFG | bytes written to CFG | limit | memory to CFG |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        m = "" if row["m"] is None else row["m"]
        lines.append(
            f"| {row['family']} | {row['width']} × {row['blocks']}, {row['tokens']} | {row['method']} "
            f"| {row['plan'] or ''} | {m} | {row['every']} | {row['block_rows_per_step']:g} "
            f"| {row['seconds_per_step']:.3f} | {row['ratio_to_cfg']:.3f} | {row['operations_to_cfg']:.3f} "
            f"| {row['bytes_written_to_cfg']:.3f} | {row['limit']:.3f} | {row['memory_ratio_to_cfg']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main(families: list[str], wanted: list[str], rounds: int, out: Path) -> None:
    pack = Pack()
    if not GPU:
        torch.set_num_threads(1)
    rows = [row for size in SIZES if size.family in families for row in bench(pack, size, rounds, wanted)]
    out.mkdir(exist_ok=True)
    (out / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    (out / "RESULTS.md").write_text(table(rows, rounds))
    print(table(rows, rounds))


if __name__ == "__main__":
    names = sorted({size.family for size in SIZES})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="FAMILY", help=", ".join(names))
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS, help="beside CFG: " + ", ".join(METHODS)
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=OUT, help="output folder (bench/)")
    arguments = parser.parse_args()
    main(arguments.only, arguments.methods, arguments.rounds, arguments.out)
