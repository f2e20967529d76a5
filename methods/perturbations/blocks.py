"""A block that is skipped."""

from dataclasses import dataclass

from ...dit import Args, PerturbedCall
from ...dit.rows import copy_rows, mixed_rows


@dataclass(frozen=True)
class SkippedBlock:
    """The block leaves the perturbed rows' streams, image and text, as they came: Skip Layer Guidance, as the host's
    SkipLayerGuidanceDiT has it."""

    def run(self, call: PerturbedCall, keep: float) -> Args:
        """ρ of the block's own result, and the rest of what it was given."""
        stage = call.stage
        before = {  # copies: some blocks write into what they are given
            (name, chunk): copy_rows(call.args[name], chunk.rows, stage.row_dim_of(name))
            for name in stage.hidden_states
            for chunk in call.chunks
        }
        out = dict(call.inner(call.args))
        for (name, chunk), rows in before.items():
            if out[name] is not None:  # a last block may return no text
                out[name] = mixed_rows(out[name], rows, chunk.rows, 1 - keep, stage.row_dim_of(name))
        return out
