"""What Detail Guidance costs: `make bench` writes bench/results.json and bench/RESULTS.md.

Every method samples the same random-weight SD3-format model through the host's own sampler. Rounds are interleaved
(each method once per round, in rotating order) and ratios are medians over rounds of a method's time to CFG's in the
same round: the machine's noise falls on both. Blocks are counted, in rows per step.
"""

import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/host"))

import torch  # noqa: E402
from in_process import Pack, start  # noqa: E402

start(cpu=not torch.cuda.is_available())

from comfy.sd import load_diffusion_model_state_dict  # noqa: E402
from comfy_extras.nodes_slg import SkipLayerGuidanceDiT  # noqa: E402
from models import state_dict  # noqa: E402
from sampling import counted, sample, stock_guider  # noqa: E402
from tqdm import tqdm  # noqa: E402

SIZES = ((8, 24), (12, 32))  # blocks L (width 64 · L), latent side
ROUNDS = 9
STEPS = 2
CFG = 4.0
OUT = ROOT / "bench"


def methods(pack: Pack, patcher: Any, blocks: int) -> list[dict[str, Any]]:
    """One row per method, with a guider that samples it."""
    skipped = range(blocks // 2, blocks // 2 + round(blocks / 8))  # 3 of 24, as the node's defaults
    layers = ", ".join(map(str, skipped))
    slg = SkipLayerGuidanceDiT.execute(patcher, 3.0, 0.0, 1.0, double_layers=layers, single_layers="")[0]
    rows = [
        {"method": "cfg", "plan": None, "m": None, "limit": 1.0, "guider": stock_guider(patcher, cfg=CFG)},
        {"method": "slg", "plan": None, "m": None, "limit": 1 + (blocks - len(skipped)) / (2 * blocks),
         "guider": stock_guider(slg, cfg=CFG)},
    ]  # fmt: skip
    for m in (0, blocks // 4, blocks // 2, 3 * blocks // 4):
        for plan in ("together", "in turn"):
            options = pack.run("DetailGuidanceOptions", batching=plan)
            inputs = {"dg_scale": 1.0, "layer_start": m / blocks, "layer_end": m / blocks, "options": options}
            guider = stock_guider(pack.run("DetailGuidance", model=patcher, **inputs), cfg=CFG)
            limit = 1 + (blocks - m) / (2 * blocks)
            rows.append({"method": "dg", "plan": plan, "m": m, "limit": limit, "guider": guider})
    return rows


def bench(pack: Pack, blocks: int, side: int) -> list[dict[str, Any]]:
    patcher = load_diffusion_model_state_dict(state_dict(blocks))
    rows = methods(pack, patcher, blocks)
    for row in rows:  # counts, and warms up
        with counted(patcher) as computed:
            sample(row["guider"], steps=STEPS, size=side, disable_pbar=True)
        row["block_rows_per_step"] = sum(computed) / STEPS
    seconds: list[list[float]] = [[] for _ in rows]
    for turn in tqdm(range(ROUNDS), desc=f"{blocks} blocks", unit="round"):
        for number in (*range(turn % len(rows), len(rows)), *range(turn % len(rows))):
            before = _now()
            sample(rows[number]["guider"], steps=STEPS, size=side, disable_pbar=True)
            seconds[number].append(_now() - before)
    for row, times in zip(rows, seconds, strict=True):
        ratios = [own / cfg for own, cfg in zip(times, seconds[0], strict=True)]
        row["ratio_to_cfg"] = round(statistics.median(ratios), 4)
        del row["guider"]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{platform.machine()} CPU"
    common = {"family": "SD3", "width": 64 * blocks, "blocks": blocks, "tokens": (side // 2) ** 2}
    common |= {"device": device, "dtype": str(patcher.model.get_dtype()).removeprefix("torch.")}
    return [common | row for row in rows]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        f"Device: {rows[0]['device']}, torch {torch.__version__.partition('+')[0]}, {torch.get_num_threads()} threads, "
        f"{rows[0]['dtype']}, median of {ROUNDS} interleaved rounds of {STEPS} steps.",
        "",
        "| width × blocks, tokens | method | plan | m | block-rows per step | time to CFG | limit | time / limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        m = "" if row["m"] is None else row["m"]
        lines.append(
            f"| {row['width']} × {row['blocks']}, {row['tokens']} | {row['method']} | {row['plan'] or ''} | {m} "
            f"| {row['block_rows_per_step']:g} | {row['ratio_to_cfg']:.3f} | {row['limit']:.3f} "
            f"| {row['ratio_to_cfg'] / row['limit']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    pack = Pack()
    rows = [row for size in SIZES for row in bench(pack, *size)]
    OUT.mkdir(exist_ok=True)
    (OUT / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
    (OUT / "RESULTS.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
