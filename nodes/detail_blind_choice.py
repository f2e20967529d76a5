"""A scorer that is a person, for Detail Guidance Judge."""

import logging
from typing import Any

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..methods.calibration.blind import key_of, letters_of, pairs, scores, summary
from .inputs import CATEGORY, aliases, require_given, require_pictures

log = logging.getLogger("detail_guidance")


class DetailBlindChoice(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DetailBlindChoice",
            display_name="Detail Blind Choice",
            category=f"{CATEGORY}/tools",
            description="Scores pictures by your own eyes: shows each with and without Detail Guidance side by side, "
            "without saying which is which. Choose on the node, then run again.",
            inputs=[
                io.Image.Input("pictures", tooltip="From Detail Guidance Grid: without, then of each setting."),
                io.String.Input(
                    "choices",
                    default="",
                    tooltip="What has been chosen: the node writes it. Clear it to begin anew.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=False,  # after each run another would make the choices another's
                    tooltip="Decides the order of the pairs and which side is which. Another one begins anew.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="scores",
                    is_output_list=True,
                    tooltip="A number for each picture, for Detail Guidance Judge, once all pairs are chosen.",
                ),
                io.String.Output(
                    display_name="report", tooltip="How often with Detail Guidance was chosen, once all pairs are."
                ),
            ],
            is_input_list=True,
            is_output_node=True,
            **aliases("blind test", "preference", "A/B", "vote", "scores"),
        )

    @classmethod
    def execute(cls, pictures: list[Tensor], choices: list[str], seed: list[int]) -> io.NodeOutput:
        for batch in pictures:
            require_given(pictures=batch)
            require_pictures(pictures=batch)
        shown = [batch[..., :3] for batch in pictures]
        order = pairs(shown, seed[0])
        key = key_of(shown, order, seed[0])
        letters = letters_of(choices[0], key, len(order))
        # In shown order, a file for each place: neither the names nor one name in several pairs tell the sides.
        sides = [side for pair in order for side in pair.of(shown)]
        files = ui.PreviewImage(sides, cls=cls).as_dict()["images"]
        outputs: tuple[Any, Any]
        if letters is None or len(letters) < len(order):
            said = _waiting(letters, len(order))
            outputs = ExecutionBlocker(None), ExecutionBlocker(None)  # with a message the host would show an error
        else:
            said = summary(order, letters)
            outputs = scores(order, letters), said
        log.info(f"Detail Blind Choice: {said}")
        files_of_pairs = list(zip(files[::2], files[1::2], strict=True))
        page = {"key": key, "pairs": files_of_pairs, "choices": choices[0], "said": said}
        return io.NodeOutput(*outputs, ui={"detail_blind_choice": [page]})


def _waiting(letters: str | None, count: int) -> str:
    """How many of the pairs have no choice yet.

    Args:
        letters: as of `letters_of`.
    """
    of_others = "choices: it is of other pictures or another seed and counts as none, so " if letters is None else ""
    missing = count - len(letters or "")
    return f"{of_others}{missing} of {count} pairs have no choice yet: choose on the node, then run again."
