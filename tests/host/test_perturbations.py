"""The branch takes any perturbation, also one that is not about channels."""

import pytest
import torch
from comparison import PLANS
from models import conditioning, model
from plain import PlainDetailGuider, hooked, relative_error
from sampling import detail_guider, reported, sample, stock_guider


class MeanToken:
    """Every token of a picture towards the mean of them all."""

    def observe(self, z):
        return z.mean(dim=1, keepdim=True)

    def apply(self, z, statistics, keep):
        z.sub_(statistics).mul_(keep).add_(statistics)

    def channels(self, statistics):
        return None


class PlainMeanToken(PlainDetailGuider):
    def both(self, x, timestep, model_options):
        def hook(block, args, kwargs):
            context, z, *rest = args
            mean = z.mean(dim=1, keepdim=True)
            return (context, mean + self.keep * (z - mean), *rest), kwargs

        c = self.predict(self.conds["positive"], x, timestep, model_options)
        with hooked(self.inner_model.diffusion_model.joint_blocks, {self.layers[0]: hook}):
            d = self.predict(self.conds["positive"], x, timestep, model_options)
        return c, d


@PLANS
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_a_perturbation_that_is_not_about_channels(pack, monkeypatch, batching, keep):
    monkeypatch.setattr(
        pack.module("methods.detail_guidance.settings").Options, "perturbation", lambda self, block: MeanToken()
    )
    options = {"batching": batching, "keep_start": keep, "keep_end": keep}
    actual, report = reported(pack, detail_guider(pack, model(), options), batch=2)
    plain = PlainMeanToken(model(), conditioning(1), conditioning(2), 4.0, w=1.5, keep=keep)
    assert relative_error(actual, sample(plain, batch=2)) <= 1e-5
    assert relative_error(actual, sample(stock_guider(model()), batch=2)) > 1e-3
    assert report.steps_fired == 2 and report.channels == {2: []}
    assert torch.isfinite(actual).all()
