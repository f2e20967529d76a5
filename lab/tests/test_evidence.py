"""The instruments of `make evidence`, each against something that knows nothing of it, and one quick run of all."""

import causes
import comfy_extras.nodes_slg
import control
import disrupted_model
import finding
import forecasts
import guidance
import judge as judging
import laboratory as laboratories
import measure_training
import muon
import numpy as np
import perceptual
import photographs
import plain_modules  # noqa: F401
import pytest
import scipy.linalg
import siblings
import strength
import torch
import weakened
from pack.methods.calibration import metrics
from plain import relative_error
from sampling import reports
from training import WEIGHTS

PAIRS = range(3)
BLOCK, CHANNEL = 5, 50  # of the deep model
MASSIVE = {BLOCK: [CHANNEL]}


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
@pytest.mark.parametrize("keep, window", [(0.0, (0.0, 1.0)), (0.5, (0.0, 1.0)), (0.0, (0.67, 1.0)), (0.0, (0.0, 0.33))])
def test_guidance_by_hooks_is_this_packs(laboratory, cfg, keep, window):
    options = {"channels": str(CHANNEL), "keep_start": keep, "keep_end": keep}
    start, end = window
    ours = laboratory.latents(
        detail_guidance(laboratory, options, start_percent=start, end_percent=end), PAIRS, cfg=cfg
    )
    hooks = weakened.guided(laboratory.model(), weakened.disrupted(MASSIVE, keep), 0.5, window=window)
    assert relative_error(ours, laboratory.latents(hooks, PAIRS, cfg=cfg)) <= 1e-4
    assert relative_error(ours, laboratory.latents(laboratory.model(), PAIRS, cfg=cfg)) > 1e-3


def test_skipping_is_the_hosts(laboratory):
    node = comfy_extras.nodes_slg.SkipLayerGuidanceDiT
    model = laboratory.model()
    (host,) = node.execute(model, 0.5, 0.0, 1.0, double_layers=str(BLOCK)).args
    hooks = weakened.guided(model, weakened.skipping([BLOCK]), 0.5)
    assert torch.equal(laboratory.latents(host, PAIRS), laboratory.latents(hooks, PAIRS))


@pytest.mark.parametrize("shape", [(96, 32), (32, 96)])
def test_muon_is_pytorchs_but_for_its_precision(shape):
    start = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = ([torch.nn.Parameter(each.clone()) for each in start] for _ in range(2))
    optimizers = [kind(p, lr=0.02, weight_decay=0.1) for kind, p in ((muon.Muon, ours), (torch.optim.Muon, theirs))]
    for number in range(5):
        gradients = torch.randn(2, *shape, generator=torch.Generator().manual_seed(number))
        for parameters in (ours, theirs):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    moved, by_pytorch = (torch.stack([*each]).detach() - start for each in (ours, theirs))
    assert relative_error(moved, by_pytorch) <= 0.03  # bfloat16's


@pytest.mark.parametrize("mean", [False, True])
def test_layer_norm_by_its_own_figures_is_layer_norm(laboratory, mean):
    errors = []

    def look(moment, c):
        norms = weakened.at_norms(moment.network, mean=mean)
        with weakened.weakening(norms, weakened.observed(moment, norms)):
            errors.append(relative_error(moment.predict(), c))

    laboratory.latents(weakened.watched(laboratory.model(), look), PAIRS, cfg=1.0)
    assert errors and max(errors) <= 1e-5


class Norm(torch.nn.Module):
    """LayerNorm written out, in its place: it notes mean and deviation, or takes those it is given."""

    def __init__(self, eps, mean=None, deviation=None):
        super().__init__()
        self.eps, self.mean, self.deviation = eps, mean, deviation

    def forward(self, x):
        self.own_mean = x.mean(dim=-1, keepdim=True)
        centred = x - (self.own_mean if self.mean is None else self.mean)
        if self.deviation is None:
            self.seen = (centred.square().mean(dim=-1, keepdim=True) + self.eps).sqrt()
            return centred / self.seen
        return centred / self.deviation


@pytest.mark.parametrize("block", [1, 5, 9])
def test_held_and_alone_are_as_with_norms_written_out(laboratory, block):
    """With modules put in the LayerNorms' places: both of the block itself, of all behind it, and the last one."""
    network = laboratory.model().model.diffusion_model
    places = [(b.x_block, name) for b in network.joint_blocks[block:] for name in ("norm1", "norm2")]
    places.append((network.final_layer, "norm_final"))
    channels, errors = {block: [CHANNEL]}, []

    def zero(_, inputs):
        x = inputs[1].clone()
        x[..., CHANNEL] = 0
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
        held, alone = weakened.with_layer_norm_held, weakened.with_layer_norm_alone
        for weakening, zeroed, mean in (
            (held(channels), True, False),
            (held(channels, mean=True), True, True),
            (alone(channels), False, False),
        ):
            noting = [Norm(each) for each in eps]
            with_norms(moment, noting, not zeroed)
            given = [Norm(n.eps, n.own_mean if mean else None, n.seen) for n in noting]
            errors.append(relative_error(weakening(moment), with_norms(moment, given, zeroed)))

    laboratory.latents(weakened.watched(laboratory.model(), look), PAIRS, cfg=1.0)
    assert errors and max(errors) <= 1e-5


def test_the_two_halves_of_zeroing(laboratory):
    """Zeroing a channel and letting LayerNorm follow is plain zeroing; holding it is neither that nor nothing."""
    model, halves = laboratory.model(), {}

    def look(moment, c):
        plain = weakened.disrupted(MASSIVE)(moment)
        zeroed, norms = weakened.at_channels(moment.network, MASSIVE), weakened.at_norms(moment.network, BLOCK)
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
        laboratory.latents(detail_guidance(laboratory, {"channels": str(CHANNEL)}), PAIRS, cfg=cfg)
    (report,) = published
    assert report.relative_strength == pytest.approx(np.mean(strengths), rel=1e-3)


def test_watching_changes_nothing(laboratory):
    model = laboratory.model()
    seen = []
    with weakened.observing(model.model.diffusion_model, lambda block, text, image: seen.append(block)):
        watched = laboratory.latents(weakened.watched(model, lambda moment, c: None), PAIRS)
    assert torch.equal(watched, laboratory.latents(model, PAIRS))
    assert set(seen) == set(range(laboratory.depth()))


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
    """Of a table of prompts, noises and timesteps with known parts."""
    numbers = np.random.default_rng(5)
    shapes = [(1, 1, 60), (80, 1, 1), (1, 70, 1), (80, 70, 60)]
    steps, prompts, noises, rest = (x / x.std() for x in map(numbers.normal, [0] * 4, [1] * 4, shapes))
    shares = causes.shares_of(10 + steps + 2 * prompts + noises + rest)
    assert [each.mean for each in shares] == pytest.approx([1 / 7, 4 / 7, 1 / 7, 1 / 7], abs=0.03)


def test_gates_are_those_that_scale_the_residuals(laboratory):
    """With one kind of gate set to zero by what AdaLN gives, that part of the block adds nothing."""
    network = laboratory.model().model.diffusion_model
    block = network.joint_blocks[0].x_block
    gates = []
    with weakened.gates_of(network, lambda number, gate: gates.append((number, gate))):
        made = block.adaLN_modulation(torch.ones(1, 192))
    ((number, gate),) = gates
    x = torch.randn(1, 4, 192, generator=torch.Generator().manual_seed(6))
    attention = torch.randn(1, 4, 192, generator=torch.Generator().manual_seed(7))
    _, after = block.pre_attention(x, torch.ones(1, 192))
    expected = x + gate[:, 0] * block.attn.post_attention(attention)
    expected = expected + gate[:, 1] * block.mlp(
        block.norm2(expected) * (1 + made.chunk(6, 1)[4]) + made.chunk(6, 1)[3]
    )
    assert number == 0 and torch.allclose(block.post_attention(attention, *after), expected, atol=1e-4)


@pytest.mark.parametrize(("massive", "lost"), [(100.0, 100 / 292), (900.0, control.MOST * 192 / 1092)])
def test_the_control_removes_equal_energy(massive, lost):
    energy = 0.5 + torch.rand(193, generator=torch.Generator().manual_seed(8))
    energy *= 192 / (energy.sum() - energy[CHANNEL])
    energy[CHANNEL] = massive  # the ordinary ones hold 192, sometimes less than that
    chosen = control.ordinary(energy, [CHANNEL], seed=3)
    assert CHANNEL not in chosen
    assert float(energy[chosen].sum() / energy.sum()) == pytest.approx(lost, rel=0.02)
    assert control.removed(energy, [CHANNEL]) == pytest.approx(lost, rel=1e-5)


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


def estimated(low, high):
    return judging.Estimate((low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("change", "control", "verdict"),
    [
        ((-0.3, -0.1), (-1, 1), finding.HOLDS),  # for certain, and more than a quarter of the room of 0.4
        ((-0.12, -0.02), (-1, 1), finding.IN_PART),  # for certain, but too little to report
        ((-0.3, 0.1), (-2, -1), finding.INCONCLUSIVE),
        ((-0.3, 0.1), (-1, 1), finding.NOT_TESTABLE),
        ((-0.05, 0.1), (-2, -1), finding.CONTRADICTED),
        ((0.1, 0.3), (-2, -1), finding.CONTRADICTED),
        ((0.1, 0.3), (-1, 1), finding.CONTRADICTED),
    ],
)
def test_primary_outcomes(change, control, verdict):
    assert guidance.primary(estimated(*change), estimated(*control), room=0.4) == verdict


def test_without_room_nothing_can_be_told():
    assert guidance.primary(estimated(-0.3, -0.1), estimated(-2, -1), room=-0.1) == finding.NOT_TESTABLE


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([finding.HOLDS, finding.HOLDS], finding.HOLDS),
        ([finding.HOLDS, finding.CONTRADICTED], finding.IN_PART),
        ([finding.CONTRADICTED, finding.CONTRADICTED], finding.CONTRADICTED),
        ([finding.CONTRADICTED, finding.INCONCLUSIVE], finding.INCONCLUSIVE),
    ],
)
def test_claims_of_several_parts(outcomes, verdict):
    assert finding.all_of(*outcomes) == verdict


@pytest.mark.parametrize(
    ("found", "verdict"),
    [((0.6, 0.7), finding.HOLDS), ((0.4, 0.6), finding.INCONCLUSIVE), ((0.3, 0.4), finding.CONTRADICTED)],
)
def test_above_a_threshold(found, verdict):
    assert finding.above(estimated(*found), 0.5) == verdict


def test_what_chooses_does_not_judge(laboratory):
    chosen, judged = laboratories.choosing(100), laboratories.judging(100)
    assert not set(chosen) & set(judged)
    assert not {laboratory.prompt(pair) for pair in chosen} & {laboratory.prompt(pair) for pair in judged}
    assert {laboratory.prompt(pair) for pair in (*chosen, *judged)} == set(laboratory.textures)


def test_along_and_across():
    numbers = torch.Generator().manual_seed(11)
    term, way = (torch.randn(5, 3, 4, 4, generator=numbers) for _ in range(2))
    across = weakened.across(term, way)
    assert torch.allclose(across + weakened.along(term, way), term)
    assert (across * way).flatten(1).sum(dim=1).abs().max() < 1e-4
    assert relative_error(weakened.along(3 * way, way), 3 * way) < 1e-6
    assert weakened.across(3 * way, way).abs().max() < 1e-5


@pytest.mark.parametrize("part", [None, weakened.across, weakened.along])
def test_parts_of_the_term_add_up(laboratory, part):
    """In one step of sampling, against the term written out from the model's own predictions."""
    model, seen = laboratory.model(), []

    def look(args):
        c, d = args["cond_denoised"], weakened.disrupted(MASSIVE)(weakened._moment(args))
        term = 0.5 * (c - d)
        u = c - args["uncond_denoised"]
        on = torch.stack([(t * w).sum() / (w * w).sum() * w for t, w in zip(term, u, strict=True)])
        seen.append(args["denoised"] + (term if part is None else on if part is weakened.along else term - on))
        return seen[-1]

    expected = model.clone()
    expected.set_model_sampler_post_cfg_function(look)
    ours = weakened.guided(model, weakened.disrupted(MASSIVE), 0.5, part=part)
    assert relative_error(laboratory.latents(ours, PAIRS), laboratory.latents(expected, PAIRS)) <= 1e-4


def test_guidance_by_another_model_is_that_models(laboratory):
    """The other model's own conditional prediction of the same pictures and words, as the host makes it."""
    errors = []
    other = laboratory.model(laboratory.shallow)

    def look(moment, c):
        weaker = weakened.by(lambda x, sigma, prompts: laboratory.denoised(laboratory.shallow, x, sigma, prompts))
        prompts = [laboratory.prompt(pair) for pair in PAIRS]
        ((context, extra),) = laboratory.conditioning(prompts, laboratory.shallow)
        v = other.model.diffusion_model(moment.x, moment.sigma * 1000, context=context, y=extra["pooled_output"])
        errors.append(relative_error(weaker(moment), moment.x - moment.sigma[:, None, None, None] * v))

    laboratory.latents(weakened.watched(laboratory.model(), look), PAIRS, cfg=1.0)
    assert errors and max(errors) <= 1e-4


def test_random_blocks_are_never_the_first(laboratory, monkeypatch):
    drawn = []
    monkeypatch.setattr(weakened, "skipping", lambda blocks: drawn.append(blocks) or (lambda moment: moment.predict()))
    laboratory.latents(
        weakened.watched(laboratory.model(), lambda m, c: weakened.skipping_at_random(0.2, seed=len(drawn))(m)), PAIRS
    )
    assert drawn and all(len(set(blocks)) == 2 and 0 not in blocks for blocks in drawn)


@torch.inference_mode()
def test_teacher_forced_errors_are_those_of_the_flow(laboratory):
    """Against the model's own velocity: squared error of the truth's estimate x − σv, with and without the channel."""
    place = (BLOCK, (CHANNEL,))
    found = disrupted_model.teacher_forced(laboratory, laboratory.deep, (place,))[place, 0.5]
    count, names = laboratory.size.teacher, list(laboratory.textures)
    generator = torch.Generator().manual_seed(6)
    crops = torch.cat([photographs.crops(laboratory.textures[name], 1, generator) for name in names[:count]])
    truth = laboratory.autoencoder.encoder.encode(crops)
    network = laboratory.model().model.diffusion_model
    ((context, extra),) = laboratory.conditioning(names[:count])
    for _ in (0.9, 0.7, 0.5):
        noise = torch.randn(truth.shape, generator=generator)
    x = (truth + noise) / 2

    def error():
        v = network(x, torch.full((count,), 500.0), context=context, y=extra["pooled_output"])
        return (x - 0.5 * v - truth).square().mean(dim=(1, 2, 3))

    plain = error()
    with weakened.weakening(weakened.at_channels(network, MASSIVE)):
        assert (error() / plain).numpy() == pytest.approx(found.error, rel=1e-3)


def test_rank_correlation():
    effects = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    assert forecasts.correlation([10, 20, 40], effects).low == pytest.approx(1)
    assert forecasts.correlation([40, 20, 10], effects).high == pytest.approx(-1)


def test_the_largest_channel_of_a_training(laboratory):
    """The deep model's is what its activations, measured while sampling, show."""
    found = measure_training.peaks(laboratory, WEIGHTS / f"{laboratory.deep}.safetensors")
    assert len(found) == laboratory.depth() and {channel for channel, _ in found[1:]} == {CHANNEL}
    assert 8 < found[-1][1] < 30


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
    real = judge.other_reals(PAIRS)
    noise = judge(np.random.default_rng(0).random((len(PAIRS), 128, 128, 3)).astype(np.float32), PAIRS)
    assert (real.distance < noise.distance).all()
    assert np.abs(real.bands).mean() < np.abs(noise.bands).mean()
    assert real.texture.mean() > noise.texture.mean()


@torch.inference_mode()
def test_references_pass_through_the_autoencoder(laboratory):
    """By the short cut as by the host's own VAE."""
    textures = list(laboratory.textures.values())[:3]
    pictures = torch.cat([photographs.crops(texture, 1, torch.Generator().manual_seed(1)) for texture in textures])
    autoencoder = laboratory.autoencoder
    expected = autoencoder.decoded(autoencoder.vae.encode(pictures.permute(0, 2, 3, 1)))
    assert np.abs(autoencoder.reconstructed(pictures) - expected).mean() < 1e-3


def test_weights_are_small():
    """Those of drawings are to take the place of those of textures."""
    sizes = {file.name: file.stat().st_size for file in WEIGHTS.iterdir()}
    of_drawings = sum(size for name, size in sizes.items() if name.startswith("drawings"))
    assert of_drawings <= 20e6 and sum(sizes.values()) - of_drawings <= 40e6


def trained(change=(-0.2, -0.3, -0.1), energy=-0.3, **differs):
    """A row of siblings.json."""
    effect = {"block": 7, "w": 0.5, "distance": 0.9, "change": list(change), "energy": energy}
    recipe = {"blocks": 10, "width": 128, "skip": 0.15, "optimiser": "adamw", "seed": 1, "steps": 4000, "ratio": 12.0}
    disrupted = {"error": [2.0, 1.9, 2.1], "energy": [-0.2, -0.3, -0.1], "layout": [0.97, 0.96, 0.98]}
    return recipe | {"disrupted": disrupted, "effects": dict.fromkeys(siblings.EFFECTS, effect)} | differs


def test_trainings_are_compared_with_those_that_differ_in_one_thing():
    by_muon, apart = trained(optimiser="muon", ratio=3.0), trained(optimiser="muon", ratio=3.0, seed=2)
    assert siblings._by_optimiser([trained(), apart], 8.0)[0] == "inconclusive"
    assert siblings._by_optimiser([trained(), by_muon], 8.0)[0] == "holds"
    assert siblings._by_optimiser([trained(), by_muon | {"ratio": 9.0}], 8.0)[0] == "contradicted"
    assert siblings._by_stochastic_depth([trained()])[0] == "inconclusive"
    verdict, told = siblings._by_stochastic_depth([trained(), trained(skip=0.0, ratio=5.0), trained(skip=0.3)])
    assert verdict == "measured" and "5.0× → 12.0×" in told and told.partition(". One seed")[0].count(";") == 1
    rise = trained(change=(0.2, 0.1, 0.3), seed=4)
    three = [trained(seed=seed) for seed in (1, 2, 3)]
    unclear = trained(change=(-0.1, -0.3, 0.1), seed=5)
    for rows, expected in (
        (three[:2], "inconclusive"),
        (three, "holds"),
        ([*three, unclear], "holds in part"),
        ([*three, rise], "contradicted"),
        ([rise], "contradicted"),
    ):
        assert siblings._in_every_training(rows, siblings.WITH_CFG)[0] == expected


def test_whether_a_value_orders_trainings():
    def rows(order):
        changes = [(each, each - 0.1, each + 0.1) for each in order]
        return [trained(change=change, energy=energy) for energy, change in enumerate(changes)]

    def verdict(trainings):
        return siblings._in_order(trainings, "energy", lambda each, effect: each["effects"][effect]["energy"])[0]

    rising = range(7)
    assert verdict(rows(rising)) == "holds"
    assert verdict(rows(rising[::-1])) == "contradicted"
    assert verdict(rows(rising[:3])) == "inconclusive", "three are in order by chance"
    three_inversions = [1, 0, 3, 2, 5, 4, 6]  # p 0.03, for three settings
    assert verdict(rows(three_inversions)) == "inconclusive"
    one_setting = rows(rising)
    for training, other in zip(one_setting, rows(three_inversions), strict=True):
        training["effects"] |= {siblings.WITHOUT: other["effects"][siblings.WITHOUT]}
    assert verdict(one_setting) == "holds in part"


def test_disrupted_predictions_of_trainings_are_judged_by_section_3s_rules():
    otherwise = {"error": [1.0, 0.9, 1.1], "energy": [0.2, 0.1, 0.3], "layout": [0.8, 0.75, 0.85]}
    rows = [trained(), trained(seed=2, disrupted=otherwise)]
    for measured, expected in (
        (rows[:1], ["holds", "holds", "holds"]),
        (rows, ["holds in part", "contradicted", "contradicted"]),
        (rows[1:], ["inconclusive", "contradicted", "contradicted"]),
    ):
        assert [verdict for verdict, _ in siblings._disrupted(measured).values()] == expected
