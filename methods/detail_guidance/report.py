"""What one sampling run did: a log line, warnings, and a message to the web page."""

import logging
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any

from server import PromptServer
from torch import Tensor
from torch.nn.functional import interpolate

from ..common import page

EVENT = "detail_guidance.report"
ROUTE = "/detail_guidance/reports"

# The last report of each node of a page's workflow, oldest first: a page that was reloaded asks for them.
_kept: OrderedDict[tuple[str, str | None], dict[str, Any]] = OrderedDict()
KEPT = 200
SMALL = 32  # cells of a mask's longer side

# Those of the prompt that is running, by its id, for nodes further on in it.
_of_prompt: tuple[str | None, list["Report"]] = (None, [])

log = logging.getLogger("detail_guidance")


@dataclass(frozen=True)
class Report:
    """What one sampling run did.

    Attributes:
        node: execution id of the node whose settings these were; "1:2" is node 2 in subgraph node 1.
        fingerprint: the fingerprint of the model's weights, by which its preset is known; empty where the model was
            not asked.
        family: name of the model family.
        block_count: L.
        block_names: "double 12" for each of the L blocks, in execution order.
        first_block, last_block: the layers, both included.
        channels: massive channels found (or given) at each of the layers, over the whole run; empty where the
            perturbation is not about channels.
        peak_ratios: per block of the model, the largest channel's magnitude over the median channel's, when the
            guidance started.
        steps: predictions of the run.
        steps_guided: steps inside the window in which the guider predicted the positive.
        steps_fired: guided steps whose perturbed rows were computed and really perturbed.
        steps_reused: guided steps that took the difference of an earlier step, as `every` says.
        plan: "together" or "in turn"; "in place" where the negative's own prediction was disrupted.
        relative_strength: mean of ‖w(c − d)‖ / ‖x − c‖ over guided steps and pictures: the detail term as a share of
            the model's own update; 0 where no second prediction says how large the term is.
        made_with: the node's inputs that are numbers, by name, so that the page sees whether they have changed since.
        kept_of_negative: how much of the massive activations the negative's own prediction kept, 0 to 1; None where it
            was left as it is.
        perturbation: what makes the disrupted prediction a poorer one, in the options' words.
        covered: word → the share of the pictures that its mask covers, 0 to 1; empty where there are no words.
        mask: all words' mask over the first picture (a video's first frame), in percent: rows of at most SMALL cells;
            None where nothing was read.
        warnings: full sentences for the user.
    """

    node: str | None
    fingerprint: str
    family: str
    block_count: int
    block_names: list[str]
    first_block: int
    last_block: int
    channels: dict[int, list[int]]
    peak_ratios: dict[int, float]
    steps: int
    steps_guided: int
    steps_fired: int
    steps_reused: int
    plan: str
    relative_strength: float
    made_with: dict[str, float]
    kept_of_negative: float | None = None
    perturbation: str = "massive channels"
    covered: dict[str, float] = field(default_factory=dict)
    mask: list[list[int]] | None = None
    warnings: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The run in one line, for the log."""
        blocks = f"block {self.first_block}"
        if self.last_block > self.first_block:
            blocks = f"blocks {self.first_block} to {self.last_block}"
        channels = sorted({channel for found in self.channels.values() for channel in found})
        steps = f"{self.steps_fired + self.steps_reused} of {self.steps} steps"
        if self.steps_reused:
            steps += f" ({self.steps_fired} computed)"
        words = "".join(f", {name} {share:.0%}" for name, share in self.covered.items())
        if self.kept_of_negative is None:
            how = f"{self.plan}, relative strength {self.relative_strength:.3f}{words}"
        else:
            how = f"in the negative's own prediction, which keeps {self.kept_of_negative:.0%}"
        what = f"{self.perturbation} {', '.join(map(str, channels)) or 'none'}" if self.channels else self.perturbation
        return f"Detail Guidance: {self.family}, {blocks} of {self.block_count}, {what}, {steps}, {how}"

    def summary(self) -> dict[str, Any]:
        """The part of the report that is kept in a saved picture's metadata."""
        left_out = ("block_names", "peak_ratios", "mask")
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def publish(self) -> None:
        """Tell the log and the page."""
        global _of_prompt
        log.info(self.line())
        for warning in self.warnings:
            log.warning(f"Detail Guidance: {warning}")
        server = getattr(PromptServer, "instance", None)  # a script that samples has no server
        if server is None:
            return
        prompt, earlier = _of_prompt
        of_this = earlier if prompt == server.last_prompt_id else []
        _of_prompt = (server.last_prompt_id, [*of_this, self])
        told = asdict(self) | {"workflow": _workflow(server)}
        if told["workflow"] is not None:
            _kept.pop((told["workflow"], self.node), None)
            _kept[told["workflow"], self.node] = told
            while len(_kept) > KEPT:
                _kept.popitem(last=False)
        if server.client_id is not None:  # None is every page, also one that shows another workflow
            server.send_sync(EVENT, told, server.client_id)


def small(mask: Tensor) -> list[list[int]]:
    """The first picture's part of a mask (pictures, …, rows, columns), as the page shows it: percent, in rows."""
    first = mask.flatten(0, -3)[:1, None]
    scale = min(1.0, SMALL / max(first.shape[-2:]))
    size = [max(1, round(scale * side)) for side in first.shape[-2:]]
    return (100 * interpolate(first, size, mode="area"))[0, 0].round().int().tolist()


def reports_of_this_prompt() -> list[Report]:
    """The reports of the prompt that is running, in the order of its sampling runs so far."""
    server = getattr(PromptServer, "instance", None)
    prompt, reports = _of_prompt
    return reports if server is not None and prompt == server.last_prompt_id else []


def serve() -> None:
    """Offer the kept reports to the page."""
    page.offer(ROUTE, lambda user: list(_kept.values()))


def _workflow(server: PromptServer) -> str | None:
    """The id of the page's workflow that is running; None where no page queued it.

    Not what the node was told when it ran: the host keeps a node's outputs from one workflow to the next.
    """
    for _, prompt_id, _, extra_data, *_ in server.prompt_queue.currently_running.values():
        if prompt_id == server.last_prompt_id:
            return ((extra_data.get("extra_pnginfo") or {}).get("workflow") or {}).get("id")
    return None
