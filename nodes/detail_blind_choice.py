"""A scorer that is a person, for Detail Guidance Judge."""

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..methods.calibration.blind import key_of, letters_of, pairs, scores, summary
from .detail_guidance_calibrate import telling
from .inputs import CATEGORY, aliases, node_id_of, require_given, require_pictures


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
            hidden=[io.Hidden.unique_id],
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
        page = {"key": key, "pairs": list(zip(files[::2], files[1::2], strict=True)), "choices": choices[0]}
        if letters is not None and len(letters) == len(order):
            report = summary(order, letters)
            shows = {"detail_blind_choice": [page | {"report": report}]}
            return io.NodeOutput(scores(order, letters), report, ui=shows)
        missing = f"{len(order) - len(letters or '')} of {len(order)} pairs have no choice yet"
        of_others = (
            "choices: it is of other pictures or another seed and counts as none, so " if letters is None else ""
        )
        telling(node_id_of(cls))(f"{of_others}{missing}: choose on the node, then run again.")
        blocked = ExecutionBlocker(None)  # with a message the host would show an error
        return io.NodeOutput(blocked, blocked, ui={"detail_blind_choice": [page | {"report": ""}]})
