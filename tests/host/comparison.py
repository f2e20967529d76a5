"""DetailGuider against the plain implementation, with whatever else is on the model."""

from inspect import signature

import pytest
import torch
from comfy.context_windows import ContextFuseMethods, ContextSchedules
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from models import conditioning
from plain import relative_error
from sampling import detail_guider, sample, stock_guider

PLANS = pytest.mark.parametrize("batching", ["together", "in turn"])


def assert_equal(pack, subject, patcher, batching, positive=None, negative=None, layers=(2,), batch=1, **arguments):
    """DetailGuider against the plain implementation around the host's own CFG, with everything on the model."""
    positive, negative = positive or conditioning(1), negative or conditioning(2)
    inputs = {"layer_start": layers[0] / 4, "layer_end": layers[-1] / 4}
    guider = detail_guider(pack, patcher, {"batching": batching}, positive=positive, negative=negative, **inputs)
    plain = subject.plain(patcher, positive, negative, 4.0, w=1.5, layers=layers, host_cfg=True)
    expected = sample(plain, batch, **arguments)
    assert relative_error(sample(guider, batch, **arguments), expected) <= 1e-5
    unguided = sample(stock_guider(patcher, positive, negative), batch, **arguments)
    assert relative_error(unguided, expected) > 1e-3


def assert_term_is_added(pack, subject, batching, guider_of):
    """Another guider's first step: its own prediction plus exactly the plain implementation's detail term."""
    options = pack.run("DetailGuidanceOptions", batching=batching)
    settings = {"dg_scale": 1.5, "layer_start": 0.5, "layer_end": 0.5, "options": options}
    patched = pack.run("DetailGuidance", model=subject.model, **settings)
    plain = subject.plain(subject.model, conditioning(1), w=1.5)
    term = sample(plain, steps=1) - sample(stock_guider(subject.model, cfg=1.0), steps=1)
    added = sample(guider_of(patched), steps=1) - sample(guider_of(subject.model), steps=1)
    torch.testing.assert_close(added, term, rtol=1e-3, atol=1e-4)


def with_context_windows(patcher, frames):
    """The host's own, over a video's frames."""
    windows = {
        "model": patcher,
        "context_length": frames,
        "context_overlap": 1,
        "context_schedule": ContextSchedules.STATIC_STANDARD,
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": ContextFuseMethods.PYRAMID,
        "dim": 2,
    }
    newer = {"freenoise"} & signature(ContextWindowsManualNode.execute).parameters.keys()
    return ContextWindowsManualNode.execute(**windows, **dict.fromkeys(newer, False))[0]
