"""The cost in blocks executed: exactly L − m more conditional block-rows per guided step than CFG, in both plans."""

import pytest
from models import model
from sampling import STEPS, counted, detail_guider, sample, stock_guider

DEPTH = 4


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("batching", ["together", "in turn"])
@pytest.mark.parametrize("m", range(DEPTH))
def test_blocks_before_m_are_shared(pack, m, batching, cfg, batch):
    patcher = model(depth=DEPTH)
    with counted(patcher) as stock:
        sample(stock_guider(patcher, cfg=cfg), batch)
    layer = m / DEPTH
    guider = detail_guider(pack, patcher, {"batching": batching}, cfg=cfg, layer_start=layer, layer_end=1.0)
    with counted(patcher) as rows:
        sample(guider, batch)
    extra = [guided - plain for guided, plain in zip(rows, stock, strict=True)]
    assert extra == [0] * m + [STEPS * batch] * (DEPTH - m)
