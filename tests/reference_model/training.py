"""What both training scripts share: a time budget, a log line now and then, and a checkpoint to resume from."""

import time
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parents[2] / ".host/training"
WEIGHTS = Path(__file__).resolve().parent / "weights"


class Training:
    """Counts the steps and the seconds of one training, over interruptions.

    Args:
        name: names the checkpoint, `.host/training/<name>.pt`.
        minutes: time budget; the learning rate falls to zero over it (cosine).
        parts: everything with a `state_dict` that a checkpoint has to hold.
    """

    def __init__(self, name: str, minutes: float, **parts):
        self.file = FOLDER / f"{name}.pt"
        self.seconds_allowed = minutes * 60
        self.parts = parts
        self.step = 0
        self.seconds = 0.0
        if self.file.exists():
            saved = torch.load(self.file, weights_only=True)
            self.step, self.seconds = saved["step"], saved["seconds"]
            for part, state in saved["parts"].items():
                parts[part].load_state_dict(state)
            print(f"resumed at step {self.step}, {self.seconds / 60:.1f} min", flush=True)

    @property
    def progress(self) -> float:
        return min(self.seconds / self.seconds_allowed, 1.0)

    def steps(self, every: int = 250):
        """Yield step numbers until the budget is spent; save a checkpoint every `every` steps and at the end."""
        while self.progress < 1:
            start = time.monotonic()
            yield self.step
            self.step += 1
            self.seconds += time.monotonic() - start
            if self.step % every == 0 or self.progress >= 1:
                self.save()

    def save(self) -> None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        states = {name: part_.state_dict() for name, part_ in self.parts.items()}
        torch.save({"step": self.step, "seconds": self.seconds, "parts": states}, part)
        part.replace(self.file)
