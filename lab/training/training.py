"""What both training scripts share: steps with a learning rate, a log line now and then, a checkpoint to go on from."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).resolve().parents[2] / ".host/training"
WEIGHTS = Path(__file__).resolve().parents[2] / "tests/reference_model/weights"


class Training:
    """Counts the steps and the seconds of one training, over interruptions, and sets its optimizers' learning rates.

    Until the learning rate begins to fall, a training can be prolonged or shortened: call it with other `steps`.

    Args:
        file: of the checkpoint.
        steps: of the whole training.
        parts: everything with a `state_dict` that a checkpoint has to hold.
    """

    WARM_UP = 50  # steps
    DECAY = 0.4  # share of the steps over which the learning rate falls to zero
    SAVED_EVERY = 100  # steps

    def __init__(self, file: Path, steps: int, **parts: Any):
        self.file, self.length, self.parts = file, steps, parts
        self.optimizers = [part for part in parts.values() if isinstance(part, torch.optim.Optimizer)]
        self.highest = [[group["lr"] for group in each.param_groups] for each in self.optimizers]  # a state has its own
        self.step, self.seconds = 0, 0.0
        self.loss = self._seen = 0.0  # a mean over some hundred steps
        if file.exists():
            saved = torch.load(file, weights_only=True)
            self.step, self.seconds = saved["step"], saved["seconds"]
            torch.set_rng_state(saved["random"])
            for part, state in saved["parts"].items():
                parts[part].load_state_dict(state)
            print(f"{file.stem} goes on from step {self.step}, {self.seconds / 60:.1f} min", flush=True)
        file.parent.mkdir(parents=True, exist_ok=True)

    @property
    def rate(self) -> float:
        """The learning rate's share of its highest value."""
        return min(1.0, (self.step + 1) / self.WARM_UP, (self.length - self.step) / (self.DECAY * self.length))

    def steps(self) -> Iterator[None]:
        """Until the training is complete; the checkpoint is saved now and then and at the end."""
        while self.step < self.length:
            start = time.monotonic()
            for optimizer, rates in zip(self.optimizers, self.highest, strict=True):
                for group, highest in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = highest * self.rate
            yield
            self.step += 1
            self.seconds += time.monotonic() - start
            if self.step % 50 == 0:
                print(f"step {self.step}  {self.seconds / 60:.1f} min  loss {self.loss:.4f}", flush=True)
            if self.step % self.SAVED_EVERY == 0 or self.step == self.length:
                self._save()

    def lost(self, loss: torch.Tensor) -> None:
        """Note a step's loss."""
        self._seen = min(self._seen + 1, 500)
        self.loss += (loss.item() - self.loss) / self._seen

    def _save(self) -> None:
        part = self.file.with_suffix(".part")
        states = {name: part_.state_dict() for name, part_ in self.parts.items()}
        saved = {"step": self.step, "seconds": self.seconds, "random": torch.get_rng_state(), "parts": states}
        torch.save(saved, part)
        part.replace(self.file)
