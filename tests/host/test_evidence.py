"""The instruments of `make evidence`, each against something that knows nothing of it, and one quick run of all."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import comfy_extras.nodes_slg
import numpy as np
import provision
import pytest
import scipy.linalg
import torch
from plain import relative_error

sys.path[:0] = [str(provision.ROOT / "tools/evidence"), str(provision.ROOT / "tests/reference_model")]

import composites  # noqa: E402
import judge as judging  # noqa: E402
import laboratory as laboratories  # noqa: E402
import weakened  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors import safe_open  # noqa: E402
from training import WEIGHTS  # noqa: E402

PAIRS = 3
MASSIVE = {2: [200]}


@pytest.fixture(scope="module")
def laboratory(pack):
    return laboratories.Laboratory(laboratories.QUICK, pack)


@pytest.fixture(scope="module")
def judge(laboratory):
    return judging.Judge(laboratory)


def detail_guidance(laboratory, options=None, **settings):
    settings = {"dg_scale": 0.5, "layer_start": 0.5, "layer_end": 0.5, **settings}
    return laboratory.detail_guidance(options=options, **settings)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_guidance_by_hooks_is_this_packs(laboratory, cfg, keep):
    options = {"channels": "200", "keep_start": keep, "keep_end": keep}
    ours = laboratory.latents(detail_guidance(laboratory, options), PAIRS, cfg=cfg)
    hooks = weakened.guided(laboratory.model(), weakened.disrupted(MASSIVE, keep), 0.5)
    assert relative_error(ours, laboratory.latents(hooks, PAIRS, cfg=cfg)) <= 1e-4
    assert relative_error(ours, laboratory.latents(laboratory.model(), PAIRS, cfg=cfg)) > 1e-3


def test_skipping_is_the_hosts(laboratory):
    node = comfy_extras.nodes_slg.SkipLayerGuidanceDiT
    model = laboratory.model()
    (host,) = node.execute(model, 0.5, 0.0, 1.0, double_layers="2").args
    hooks = weakened.guided(model, weakened.skipping([2]), 0.5)
    assert torch.equal(laboratory.latents(host, PAIRS), laboratory.latents(hooks, PAIRS))


def test_layer_norm_by_its_own_deviation_is_layer_norm(laboratory):
    errors = []

    def look(moment, c):
        with weakened.deviations_of(moment.network) as deviations:
            moment.predict()
        with weakened.dividing_by(moment.network, deviations, first=0):
            errors.append(relative_error(moment.predict(), c))

    laboratory.latents(weakened.watched(laboratory.model(), look), PAIRS, cfg=1.0)
    assert errors and max(errors) <= 1e-5


def test_the_two_halves_of_zeroing(laboratory):
    """Zeroing a channel and letting LayerNorm follow is plain zeroing; holding it is neither that nor nothing."""
    model, halves = laboratory.model(), {}

    def look(moment, c):
        plain = weakened.disrupted(MASSIVE)(moment)
        with weakened.deviations_of(moment.network) as deviations, weakened.disrupting(moment.network, MASSIVE):
            moment.predict()
        with weakened.dividing_by(moment.network, deviations, 2), weakened.disrupting(moment.network, MASSIVE):
            halves.setdefault("both", []).append(relative_error(moment.predict(), plain))
        for name in ("with_layer_norm_held", "with_layer_norm_alone"):
            each = getattr(weakened, name)(MASSIVE)(moment)
            halves.setdefault(name, []).append(min(relative_error(each, plain), relative_error(each, c)))

    laboratory.latents(weakened.watched(model, look), PAIRS, cfg=1.0)
    assert max(halves["both"]) <= 1e-5
    assert min(halves["with_layer_norm_held"] + halves["with_layer_norm_alone"]) > 1e-3


def test_watching_changes_nothing(laboratory):
    model = laboratory.model()
    seen = []
    with weakened.observing(model.model.diffusion_model, lambda block, text, image: seen.append(block)):
        watched = laboratory.latents(weakened.watched(model, lambda moment, c: None), PAIRS)
    assert torch.equal(watched, laboratory.latents(model, PAIRS))
    assert set(seen) == {0, 1, 2, 3}


def test_frechet_distance(judge):
    """Against the formula written out, with scipy's square root of a matrix."""
    numbers = np.random.default_rng(1)
    ours, theirs = numbers.normal(size=(200, 5)), numbers.normal(1, 2, size=(300, 5)) @ numbers.normal(size=(5, 5))
    a, b = np.cov(ours.T), np.cov(theirs.T)
    expected = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    moments = theirs.mean(0), b
    assert judging._frechet(ours, moments) == pytest.approx(expected, rel=1e-8)
    assert judging._frechet(theirs, moments) == pytest.approx(0, abs=1e-6)


def test_estimate_is_a_mean_with_its_interval():
    numbers = np.random.default_rng(2)
    hits = 0
    for _ in range(200):
        sample = numbers.normal(3, 1, 50)
        estimated = judging.estimate(sample)
        assert estimated.mean == pytest.approx(sample.mean())
        hits += estimated.low <= 3 <= estimated.high
    assert 180 <= hits <= 199  # 95 % of 200, give or take


def test_real_pictures_are_nearer_than_noise(laboratory, judge):
    prompts = laboratory.prompts[:PAIRS]
    real = judge(np.stack([judge.reals(prompt)[0] for prompt in prompts]).astype(np.float32))
    noise = judge(np.random.default_rng(0).random((PAIRS, 128, 128, 3)).astype(np.float32))
    assert (real.distance < noise.distance).all()
    assert (np.abs(real.bands) < np.abs(noise.bands)).mean() > 0.8
    assert real.texture.mean() > noise.texture.mean()


def test_a_composite_is_its_object_on_its_texture():
    data = composites.load()
    name, texture = next(iter(data.objects)), next(iter(data.textures))
    grey = replace(data, textures={texture: torch.full((3, 200, 200), 51, dtype=torch.uint8)})
    picture = grey.picture(f"{name} on {texture}", torch.Generator().manual_seed(3))
    changed = (picture - 0.2).abs().amax(dim=0) > 0.01
    rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
    height, width = (int(each.max() - each.min()) + 1 for each in (rows, columns))
    assert max(height, width) in range(min(composites.SIZES) - 2, max(composites.SIZES) + 1)
    assert torch.equal(grey.picture(texture, torch.Generator()), torch.full((3, 128, 128), 51 / 255))
    with safe_open(WEIGHTS / "text_encoder_4.safetensors", framework="pt") as header:
        assert json.loads(header.metadata()["vocabulary"]) == data.words  # or the tokens mean other words


def test_weights_are_small():
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 40e6


def test_quick_evidence(tmp_path):
    command = [provision.comfyui_python(), "tools/evidence", "--quick", "--out", tmp_path]
    result = subprocess.run(command, cwd=provision.ROOT, env=provision.environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    page = (tmp_path / "EVIDENCE.md").read_text()
    sections = page.split("\n## ")[1:]
    assert [section[0] for section in sections] == list("1234567")
    for section in sections:
        assert re.search(r"^- \*\*.+: (holds here|holds in part|does not hold here|measured)\.\*\*", section, re.M)
        assert "|---|" in section.replace(" ", "")
        figures = re.findall(r"\]\((evidence/.+\.png)\)", section)
        assert figures
        for figure in figures:
            with Image.open(tmp_path / figure) as picture:
                assert picture.convert("L").getextrema() != (255, 255)
    committed = (provision.ROOT / "docs/EVIDENCE.md").read_text()
    assert re.findall(r"^## .+", committed, re.M) == re.findall(r"^## .+", page, re.M)
