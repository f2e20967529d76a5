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
from rooms import metrics
from sampling import reports

sys.path[:0] = [str(provision.ROOT / "tools/evidence"), str(provision.ROOT / "tests/reference_model")]

import baseline  # noqa: E402
import causes  # noqa: E402
import composites  # noqa: E402
import control  # noqa: E402
import finding  # noqa: E402
import judge as judging  # noqa: E402
import laboratory as laboratories  # noqa: E402
import perceptual  # noqa: E402
import strength  # noqa: E402
import sweeps  # noqa: E402
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
        norms = weakened.at_norms(moment.network)
        with weakened.weakening(norms, weakened.observed(moment, norms)):
            errors.append(relative_error(moment.predict(), c))

    laboratory.latents(weakened.watched(laboratory.model(), look), PAIRS, cfg=1.0)
    assert errors and max(errors) <= 1e-5


class Norm(torch.nn.Module):
    """LayerNorm written out, in its place: it notes its deviations, or divides by those it is given."""

    def __init__(self, eps, deviation=None):
        super().__init__()
        self.eps, self.deviation = eps, deviation

    def forward(self, x):
        centred = x - x.mean(dim=-1, keepdim=True)
        if self.deviation is None:
            self.seen = (centred.square().mean(dim=-1, keepdim=True) + self.eps).sqrt()
            return centred / self.seen
        return centred / self.deviation


@pytest.mark.parametrize("block", [1, 2, 3])
def test_held_and_alone_are_as_with_norms_written_out(laboratory, block):
    """With modules put in the LayerNorms' places: both of the block itself, of all behind it, and the last one."""
    network = laboratory.model().model.diffusion_model
    places = [(b.x_block, name) for b in network.joint_blocks[block:] for name in ("norm1", "norm2")]
    places.append((network.final_layer, "norm_final"))
    channels, errors = {block: [200]}, []

    def zero(_, inputs):
        x = inputs[1].clone()
        x[..., 200] = 0
        return inputs[0], x

    def with_norms(moment, norms, zeroed):
        before = [getattr(module, name) for module, name in places]
        handles = [network.joint_blocks[block].register_forward_pre_hook(zero)] if zeroed else []
        for (module, name), norm in zip(places, norms, strict=True):
            setattr(module, name, norm)
        try:
            return moment.predict()
        finally:
            for (module, name), norm in zip(places, before, strict=True):
                setattr(module, name, norm)
            for handle in handles:
                handle.remove()

    def look(moment, c):
        eps = [getattr(module, name).eps for module, name in places]
        for weakening, zeroed in ((weakened.with_layer_norm_held, True), (weakened.with_layer_norm_alone, False)):
            noting = [Norm(each) for each in eps]
            with_norms(moment, noting, not zeroed)
            expected = with_norms(moment, [Norm(n.eps, n.seen) for n in noting], zeroed)
            errors.append(relative_error(weakening(channels)(moment), expected))

    laboratory.latents(weakened.watched(laboratory.model(), look), PAIRS, cfg=1.0)
    assert errors and max(errors) <= 1e-5


def test_the_two_halves_of_zeroing(laboratory):
    """Zeroing a channel and letting LayerNorm follow is plain zeroing; holding it is neither that nor nothing."""
    model, halves = laboratory.model(), {}

    def look(moment, c):
        plain = weakened.disrupted(MASSIVE)(moment)
        zeroed, norms = weakened.at_channels(moment.network, MASSIVE), weakened.at_norms(moment.network, 2)
        with weakened.weakening([*zeroed, *norms], weakened.observed(moment, norms, under=zeroed)):
            halves.setdefault("both", []).append(relative_error(moment.predict(), plain))
        for name in ("with_layer_norm_held", "with_layer_norm_alone"):
            each = getattr(weakened, name)(MASSIVE)(moment)
            halves.setdefault(name, []).append(min(relative_error(each, plain), relative_error(each, c)))

    laboratory.latents(weakened.watched(model, look), PAIRS, cfg=1.0)
    assert max(halves["both"]) <= 1e-5
    assert min(halves["with_layer_norm_held"] + halves["with_layer_norm_alone"]) > 1e-3


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_its_strength_is_the_nodes(laboratory, pack, cfg):
    """Mean share of the term in the model's own update, as the pack reports it of the same pairs."""
    strengths = []
    hooks = weakened.guided(laboratory.model(), weakened.disrupted(MASSIVE), 0.5, strengths)
    laboratory.latents(hooks, PAIRS, cfg=cfg)
    with reports(pack) as published:
        laboratory.latents(detail_guidance(laboratory, {"channels": "200"}), PAIRS, cfg=cfg)
    (report,) = published
    assert report.relative_strength == pytest.approx(np.mean(strengths), rel=1e-3)


def test_watching_changes_nothing(laboratory):
    model = laboratory.model()
    seen = []
    with weakened.observing(model.model.diffusion_model, lambda block, text, image: seen.append(block)):
        watched = laboratory.latents(weakened.watched(model, lambda moment, c: None), PAIRS)
    assert torch.equal(watched, laboratory.latents(model, PAIRS))
    assert set(seen) == {0, 1, 2, 3}


def test_frechet_distance():
    """Against the formula written out, with scipy's square root of a matrix."""
    numbers = np.random.default_rng(1)
    ours, theirs = numbers.normal(size=(200, 5)), numbers.normal(1, 2, size=(300, 5)) @ numbers.normal(size=(5, 5))
    a, b = np.cov(ours.T), np.cov(theirs.T)
    expected = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    moments = [(each.mean(0), np.cov(each.T)) for each in (ours, theirs)]
    assert judging._frechet(*moments) == pytest.approx(expected, rel=1e-8)
    assert judging._frechet(moments[1], moments[1]) == pytest.approx(0, abs=1e-6)


def test_kernel_distance():
    """Against the unbiased estimate written out over all pairs, and the jackknife over all pictures left out."""
    numbers = np.random.default_rng(3)
    ours, theirs, real = (
        numbers.normal(size=(7, 4)),
        numbers.normal(0.5, 1.3, size=(7, 4)),
        numbers.normal(size=(20, 4)),
    )

    def distance(x):
        kernel = lambda a, b: (a @ b / 4 + 1) ** 3  # noqa: E731
        within = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
        return np.mean(within) - 2 * np.mean([kernel(a, b) for a in x for b in real])

    found = judging.kernel_change(ours, theirs, real)
    assert found.mean == pytest.approx(distance(ours) - distance(theirs))
    without = [distance(np.delete(ours, i, 0)) - distance(np.delete(theirs, i, 0)) for i in range(7)]
    error = np.sqrt(6 / 7 * ((without - np.mean(without)) ** 2).sum())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error)


def test_kernel_distance_has_no_bias():
    """One setting varies less than the other; the true change is that of many pictures, few give it on average."""
    numbers = np.random.default_rng(4)
    real = numbers.normal(size=(2000, 16))
    many = numbers.normal(size=(4000, 16))
    truth = judging.kernel_change(0.8 * many, many, real).mean
    found = [judging.kernel_change(0.8 * few, few, real) for few in numbers.normal(size=(60, 32, 16))]
    error = np.std([each.mean for each in found]) / np.sqrt(len(found))
    assert abs(np.mean([each.mean for each in found]) - truth) < 3 * error
    assert sum(each.low <= truth <= each.high for each in found) >= 0.85 * len(found)


def test_shares_of_variance():
    """Of a table of prompts and timesteps with known parts."""
    numbers = np.random.default_rng(5)
    prompts, steps, rest = numbers.normal(size=(500, 1)), numbers.normal(size=(1, 40)), numbers.normal(size=(500, 40))
    parts = [steps / steps.std(), 2 * prompts / prompts.std(), rest / rest.std()]
    shares = causes.shares_of(10 + sum(parts))
    assert [each.mean for each in shares] == pytest.approx([1 / 6, 4 / 6, 1 / 6], abs=0.03)


def test_gates_are_those_that_scale_the_residuals(laboratory):
    """With one kind of gate set to zero by what AdaLN gives, that part of the block adds nothing."""
    network = laboratory.model().model.diffusion_model
    block = network.joint_blocks[0].x_block
    gates = []
    with weakened.gates_of(network, lambda number, gate: gates.append((number, gate))):
        made = block.adaLN_modulation(torch.ones(1, 256))
    ((number, gate),) = gates
    x = torch.randn(1, 4, 256, generator=torch.Generator().manual_seed(6))
    attention = torch.randn(1, 4, 256, generator=torch.Generator().manual_seed(7))
    _, after = block.pre_attention(x, torch.ones(1, 256))
    expected = x + gate[:, 0] * block.attn.post_attention(attention)
    expected = expected + gate[:, 1] * block.mlp(
        block.norm2(expected) * (1 + made.chunk(6, 1)[4]) + made.chunk(6, 1)[3]
    )
    assert number == 0 and torch.allclose(block.post_attention(attention, *after), expected, atol=1e-4)


@pytest.mark.parametrize("block", [1, 2, 3])
def test_the_control_removes_equal_energy(laboratory, block):
    energy, massive = torch.rand(256, generator=torch.Generator().manual_seed(8)), [200]
    energy[200] = 200.0  # of 328: ordinary channels hold less than the massive one
    chosen = control.ordinary(energy, massive, seed=block)
    assert 200 not in chosen
    assert float(energy[chosen].sum() / energy.sum()) == pytest.approx(control.EQUAL, rel=0.02)


def test_where_massive_channels_hold_little_the_control_loses_as_little():
    energy = torch.ones(256)
    energy[[200, 7]] = 8.0  # of 270: 6 %
    chosen = control.ordinary(energy, [200, 7], seed=1)
    assert float(energy[chosen].sum()) == pytest.approx(16, rel=0.1) and not {200, 7} & set(chosen)


def test_spectrum_distance():
    """Against its definition in loops over the rings: 0 for the reference itself, the gain's logarithm for a gain."""
    numbers = np.random.default_rng(6)
    pictures = [numbers.random((32, 48, 3)) for _ in range(3)]
    reference = np.mean([np.log(metrics.radial_spectrum(each) + 1e-9) for each in pictures], axis=0)
    own = metrics.radial_spectrum(pictures[0])
    expected = np.mean([abs(np.log(own[ring] + 1e-9) - reference[ring]) for ring in range(metrics.BANDS)])
    assert metrics.spectrum_distance(pictures[0], reference) == pytest.approx(expected)
    assert metrics.spectrum_distance(pictures[1], metrics.log_spectrum(pictures[1])) == 0
    assert metrics.spectrum_distance(2 * pictures[1], metrics.log_spectrum(pictures[1])) == pytest.approx(np.log(4))


def test_the_best_of_many_is_confirmed_on_other_pairs():
    numbers = np.random.default_rng(9)
    nothing = {str(number): numbers.normal(size=64) for number in range(30)}
    name, confirmed = sweeps.confirmed_best(nothing)
    assert nothing[name][:32].mean() < -0.2  # looks good where it was chosen
    assert confirmed.mean == nothing[name][32:].mean()


def estimated(low, high):
    return judging.Estimate((low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("spectrum", "kernel", "obj", "verdict"),
    [
        ((-2, -1), (-2, -1), (-1, 1), finding.HOLDS),
        ((-2, -1), (-1, 1), (-1, 1), finding.IN_PART),
        ((-1, 1), (-1, 1), (1, 2), finding.NOT_HERE),
        ((-2, -1), (1, 2), (-1, 1), finding.NOT_HERE),
        ((-2, -1), (-2, -1), (-2, -1), finding.NOT_HERE),
    ],
)
def test_closer_to_real(spectrum, kernel, obj, verdict):
    change = {baseline.SPECTRUM: spectrum, baseline.KERNEL: kernel, baseline.TEXTURE: (-1, 1), baseline.OBJECT: obj}
    assert baseline.closer_to_real({name: estimated(*each) for name, each in change.items()}) == verdict


def test_equal_effects_at_equal_strength():
    even, uneven = np.full((3, 20), 0.2), np.full((3, 20), 0.2) * np.array([[1], [2], [4]])
    gain = strength.log_gain([uneven], [even])
    assert gain.mean == pytest.approx(np.log(4)) and gain.above_zero
    assert strength.log_gain([even], [uneven]).below_zero


def test_perceptual_distance():
    """Against LPIPS' formula written out, over what ordinary hooks see at each resolution's last block."""
    noise = torch.rand(2, 64, 96, 3, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    network, seen = perceptual.network(), []
    last = [network._blocks[number] for number in (0, 2, 4, 10, 15)]
    hooks = [block.register_forward_hook(lambda _, inputs, output: seen.append(output.double())) for block in last]
    ours, theirs = noise.numpy(), noise.flip(1).numpy() ** 2
    with torch.no_grad():
        for each in (ours, theirs):
            network.extract_features((torch.from_numpy(each).permute(0, 3, 1, 2) * 255 - 127) / 128)
    for hook in hooks:
        hook.remove()
    levels = []
    for a, b in zip(seen[:5], seen[5:], strict=True):
        a, b = (x / x.square().sum(dim=1, keepdim=True).sqrt() for x in (a, b))
        levels.append((a - b).square().sum(dim=1).mean(dim=(1, 2)))
    expected = (sum(levels) / 5).numpy()
    assert perceptual.distances(ours, theirs) == pytest.approx(expected, rel=1e-4)


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
    real = judge(judge.other_reals(PAIRS))
    noise = judge(np.random.default_rng(0).random((PAIRS, 128, 128, 3)).astype(np.float32))
    assert (real.distance < noise.distance).all()
    assert np.abs(real.bands).mean() < np.abs(noise.bands).mean()
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


@torch.inference_mode()
def test_references_pass_through_the_autoencoder(laboratory):
    """By the short cut as by the host's own VAE."""
    pictures = torch.stack(
        [laboratory.data.picture(prompt, torch.Generator()) for prompt in laboratory.prompts[:PAIRS]]
    )
    autoencoder = laboratory.autoencoder
    expected = autoencoder.decoded(autoencoder.vae.encode(pictures.permute(0, 2, 3, 1)))
    assert np.abs(autoencoder.reconstructed(pictures) - expected).mean() < 1e-3


def test_weights_are_small():
    assert sum(file.stat().st_size for file in WEIGHTS.iterdir()) <= 40e6


def test_a_quick_run_does_not_overwrite_the_page():
    command = [provision.comfyui_python(), "tools/evidence", "--quick"]
    result = subprocess.run(command, cwd=provision.ROOT, env=provision.environment(), capture_output=True, text=True)
    assert result.returncode == 2 and "--out" in result.stderr


def test_quick_evidence(tmp_path):
    command = [provision.comfyui_python(), "tools/evidence", "--quick", "--out", tmp_path]
    result = subprocess.run(command, cwd=provision.ROOT, env=provision.environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    page = (tmp_path / "EVIDENCE.md").read_text()
    assert "quick run" in page and not re.search(r"\b(nan|inf)\b", page)
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
