"""What both training scripts share: a time budget, a log line now and then, and a checkpoint to resume from."""

import math
import time
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parents[2] / ".host/training"
WEIGHTS = Path(__file__).resolve().parent / "weights"


class Training:
    """Counts the steps and the seconds of one training, over interruptions and further runs.

    A run has a budget, and a learning rate that rises at first and falls to zero over it (cosine). Called again, an
    interrupted run goes on, and a finished training begins another run.

    Args:
        name: names the checkpoint, `.host/training/<name>.pt`.
        minutes: time budget of this run.
        parts: everything with a `state_dict` that a checkpoint has to hold.
    """

    WARM_UP = 200  # steps

    def __init__(self, name: str, minutes: float, **parts):
        self.file = FOLDER / f"{name}.pt"
        self.parts = parts
        self.step = self.first = 0
        self.seconds = self.begin = 0.0
        self.end = minutes * 60
        if self.file.exists():
            saved = torch.load(self.file, weights_only=True)
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.first, self.begin, self.end = saved["run"]
            if self.seconds >= self.end:
                self.first, self.begin, self.end = self.step, self.seconds, self.seconds + minutes * 60
            for part, state in saved["parts"].items():
                parts[part].load_state_dict(state)
            print(f"resumed at step {self.step}, {self.seconds / 60:.1f} min", flush=True)

    @property
    def rate(self) -> float:
        """The learning rate's share of its highest value."""
        progress = (self.seconds - self.begin) / (self.end - self.begin)
        return min(1.0, (self.step - self.first + 1) / self.WARM_UP) * (1 + math.cos(math.pi * progress)) / 2

    def steps(self, every: int = 250):
        """Yield step numbers until the budget is spent; save a checkpoint every `every` steps and at the end."""
        while self.seconds < self.end:
            start = time.monotonic()
            yield self.step
            self.step += 1
            self.seconds += time.monotonic() - start
            if self.step % every == 0 or self.seconds >= self.end:
                self.save()

    def save(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        states = {name: part_.state_dict() for name, part_ in self.parts.items()}
        run = (self.first, self.begin, self.end)
        torch.save({"step": self.step, "seconds": self.seconds, "run": run, "parts": states}, part)
        part.replace(self.file)
