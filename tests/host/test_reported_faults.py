"""Situations that once went wrong in silence, each as the kind that it is."""

import contextlib
import copy
import itertools
import json
import os
import types
from dataclasses import replace

import comfy.samplers
import folder_paths
import node_helpers
import pytest
import torch
from aiohttp.test_utils import make_mocked_request
from comfy.context_windows import IndexListContextHandler
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_model_advanced import ModelSamplingSD3
from comparison import with_context_windows
from family_models import CASES, load
from models import MASSIVE, conditioning, flux, latent, model
from models import subject as subject_of
from peak import peak_of
from plain import relative_error
from sampling import detail_guider, reported, sample, stock_guider
from test_layouts import wrong_order
from test_words import words_of

# Where words are read, when a host changes the order of tokens


def read_words(pack, case, patcher):
    return read(pack, case, patcher, words_of(pack, case.text, 0.9))


def read_foreground(pack, case, patcher):
    return read(pack, case, patcher, pack.run("DetailForeground", layer=0.9))


def read(pack, case, patcher, region):
    """Maps of a region in each step."""
    seen, guider = [], stock_guider(patcher, case.conditioning(1), case.conditioning(2))
    guider.model_patcher = pack.module("methods.regions.reader").read_each_step(patcher, region, seen.append)
    sample(guider, noise=case.noise(1), steps=2)
    return seen


def read_features(pack, case, patcher):
    """What a block knows of a picture."""
    given = {"samples": case.noise(1), "downscale_ratio_spacial": 8}
    inputs = {"positive": case.conditioning(1), "latent": given, "layer": 0.9, "draws": 1}
    return [pack.run("DiTFeatures", model=patcher, **inputs).values]


@pytest.mark.parametrize("reads", [read_words, read_foreground, read_features])
@pytest.mark.parametrize("name", ["Flux", "Flux Kontext", "AuraFlow"])
def test_what_is_read_follows_the_tokens(pack, monkeypatch, name, reads):
    """With a row whose single blocks have the text at the wrong end, the same is read as with the right row."""
    case, patcher = CASES[name], load(name)
    families = pack.module("dit.families")
    right = pack.module("dit.anatomy").family_of(patcher.model.diffusion_model)
    expected = reads(pack, case, patcher)
    monkeypatch.setattr(families, "FAMILIES", (wrong_order(right),))
    for found, true in zip(reads(pack, case, patcher), expected, strict=True):
        torch.testing.assert_close(found, true)


@pytest.mark.parametrize("reads", [read_words, read_foreground, read_features])
@pytest.mark.parametrize("name", ["Flux Kontext", "Qwen-Image Edit"])
def test_nothing_is_read_at_wrong_tokens_in_silence(pack, monkeypatch, name, reads):
    """A row that counts other tokens than come is an error, whoever's block patch it is."""
    case, patcher = CASES[name], load(name)
    families = pack.module("dit.families")
    right = pack.module("dit.anatomy").family_of(patcher.model.diffusion_model)
    wrong = replace(right, patch_size=lambda network: 1)
    monkeypatch.setattr(families, "FAMILIES", (wrong,))
    with pytest.raises(pack.module("dit").UnknownLayout, match="tokens came where"):
        reads(pack, case, patcher)


# A step whose noise level lies exactly on the window's edge


def steps_of_the_host(patcher, steps, start, end):
    """In how many steps a condition with this part of the schedule is predicted."""
    seen, clone = [], patcher.clone()

    def count(apply_model, args):
        seen.append(1)
        return apply_model(args["input"], args["timestep"], **args["c"])

    clone.set_model_unet_function_wrapper(count)
    positive = node_helpers.conditioning_set_values(conditioning(1), {"start_percent": start, "end_percent": end})
    sample(stock_guider(clone, positive, cfg=1.0), steps=steps, size=8)
    return len(seen)


@pytest.mark.parametrize(
    "shift, steps, start, end",
    [
        (3.0, 20, 0.95, 1.0),
        (3.0, 20, 0.6, 1.0),
        (3.0, 20, 0.9, 1.0),
        (3.0, 20, 0.0, 0.25),
        (3.0, 20, 0.0, 0.35),
        (3.0, 20, 0.0, 0.4),
        (3.0, 20, 0.0, 0.55),
        (8.0, 8, 0.5, 1.0),
        (3.0, 20, 0.5, 1.0),
        (3.0, 20, 0.67, 1.0),
    ],
)
def test_the_window_has_the_steps_of_the_hosts_own_ranges(pack, shift, steps, start, end):
    (patcher,) = ModelSamplingSD3().patch(model(), shift)
    window = {"start_percent": start, "end_percent": end}
    _, report = reported(pack, detail_guider(pack, patcher, cfg=1.0, negative=None, **window), steps=steps, size=8)
    assert report.steps_guided == steps_of_the_host(patcher, steps, start, end) > 0


def test_no_window_loses_a_step_of_the_hosts(pack):
    """Every percent of several shifts and schedules, against the host's comparison of float32 tensors."""
    window, lost, tried = pack.module("methods.detail_guidance.window").Window, 0, 0
    for shift in (1.0, 1.15, 3.0, 6.0, 8.0):
        (patcher,) = ModelSamplingSD3().patch(model(), shift)
        sampling = patcher.get_model_object("model_sampling")
        for steps in (4, 8, 20, 28):
            sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps)[:-1]
            for percent in range(1, 100):
                edge = sampling.percent_to_sigma(percent / 100)
                late, early = window.of(percent / 100, 1.0, sampling), window.of(0.0, percent / 100, sampling)
                for sigma in sigmas:
                    lost += (float(sigma) in late) != (not bool(sigma > edge))
                    lost += (float(sigma) in early) != (not bool(sigma < edge))
                    tried += 2
    assert lost == 0 and tried > 10_000


# Errors of another node's wrapper


def failing(error):
    def neighbours_wrapper(apply_model, args):
        raise error

    return neighbours_wrapper


def with_wrapper(wrapper):
    patcher = model().clone()
    patcher.set_model_unet_function_wrapper(wrapper)
    return patcher


def test_running_out_of_memory_stays_the_hosts_error(pack):
    """It frees models when it sees it, and tries again."""
    error = torch.cuda.OutOfMemoryError("a device's")
    with pytest.raises(torch.cuda.OutOfMemoryError):
        sample(detail_guider(pack, with_wrapper(failing(error))))


def test_a_built_in_wrapper_does_not_hide_the_error(pack):
    """It has no source to be told by."""
    with pytest.raises(TypeError) as caught:
        sample(detail_guider(pack, with_wrapper(divmod)))
    assert "source" not in str(caught.value) and "divmod" in str(caught.value) + repr(caught.traceback[-1])


def my_magcache_free_wrapper(apply_model, args):
    return apply_model(args["input"], args["timestep"], **args["c"])


def test_a_wrapper_is_not_refused_for_a_part_of_its_name(pack):
    actual = sample(detail_guider(pack, with_wrapper(my_magcache_free_wrapper)))
    assert torch.equal(actual, sample(detail_guider(pack, model())))


@pytest.mark.parametrize(
    "module, name",
    [
        ("custom_nodes.ComfyUI-TeaCache.nodes", "apply.<locals>.unet_wrapper_function"),
        ("nodes.model_optimization_nodes", "WanVideoTeaCacheKJ.patch.<locals>.wrapper"),
        ("nodes.other", "TeaCache_Lumina2.__call__"),
        ("nodes.other", "apply.<locals>.teacache"),
    ],
)
def test_a_counting_cache_is_refused_by_the_names_around_it(pack, module, name):
    def wrapper(apply_model, args):
        return apply_model(args["input"], args["timestep"], **args["c"])

    wrapper.__module__, wrapper.__qualname__ = module, name
    with pytest.raises(ValueError, match="cannot work beside"):
        sample(detail_guider(pack, with_wrapper(wrapper)))


# Memory


@pytest.mark.parametrize("keep", [0.0, 0.5])
def test_perturbing_allocates_no_hidden_state(pack, keep):
    z = torch.randn(2, 5_000, 64)
    perturbation = pack.module("methods.massive_activations.perturbations").ListedChannels((3, 5))
    statistics, expected = perturbation.observe(z), z.clone()
    expected[..., [3, 5]] *= keep
    assert peak_of(lambda: perturbation.apply(z.clone(), statistics, keep)) <= z.nbytes + 64 * 8
    perturbation.apply(z, statistics, keep)
    assert torch.equal(z, expected)


def test_a_probes_statistics_leave_the_device(pack, monkeypatch):
    """When a step begins, those of the step before are on the CPU."""
    module = pack.module("methods.massive_activations.recording")
    moved = []

    class OnDevice(torch.Tensor):
        def cpu(self):
            moved.append(1)
            return torch.Tensor(self)

    on_device = lambda z: module.Statistics(torch.ones(4).as_subclass(OnDevice), torch.ones(4).as_subclass(OnDevice))  # noqa: E731
    monkeypatch.setattr(module, "statistics", on_device)
    recording = module.Recording("SD3 / SD3.5", "sd3", ["a", "b"])
    given = pack.module("dit").BlockInput(0, torch.zeros(1, 2, 4), None, torch.Size([1, 4, 2, 4]), lambda: None)
    for step in range(3):
        recording.sigmas.append(1.0)
        for block in range(2):
            recording.on_block(block, replace(given, step=step))
        assert len(moved) == 4 * step, "two numbers of two blocks for each step before"
    left = [where for where, each in recording.image.items() if isinstance(each.mean, OnDevice)]
    assert left == [(2, 0), (2, 1)]


def test_a_mask_is_fitted_once(pack, monkeypatch):
    provider, calls = pack.module("methods.regions.provider"), []
    interpolate = provider.interpolate
    monkeypatch.setattr(provider, "interpolate", lambda *args, **more: calls.append(1) or interpolate(*args, **more))
    mask = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0))
    sample(detail_guider(pack, model(), {"mask": mask}), steps=5)
    assert len(calls) == 1


def test_following_normalises_each_token_once(pack, monkeypatch):
    """And votes as with every row's band normalised anew."""
    matching, numbers = pack.module("methods.features.matching"), []
    normalize = matching.normalize
    monkeypatch.setattr(matching, "normalize", lambda x, dim: numbers.append(x.numel()) or normalize(x, dim=dim))
    features = torch.randn(3, 6, 30, 8, generator=torch.Generator().manual_seed(1))
    labels = (torch.rand(2, 30, 8, generator=torch.Generator().manual_seed(2)) > 0.5).float()
    found = matching.follow(features, labels, 2)
    assert sum(numbers) == features.numel()
    unit = torch.nn.functional.normalize(features, dim=1)
    alike = torch.einsum("cn,cm->nm", unit[1].flatten(1), unit[0].flatten(1))
    rows, columns = torch.arange(240) // 8, torch.arange(240) % 8
    far = ((rows[:, None] - rows).abs() > 12) | ((columns[:, None] - columns).abs() > 12)
    best = alike.masked_fill(far, -torch.inf).topk(5, dim=1)
    expected = (labels.flatten(1)[:, best.indices] * torch.softmax(best.values / 0.1, dim=1)).sum(dim=-1)
    torch.testing.assert_close(found[1].flatten(1), expected)


# Options, windows, presets


def test_options_with_masks_are_compared(pack):
    settings = pack.module("methods.detail_guidance.settings")
    one, other = (settings.Options(mask=torch.rand(1, 8, 8)) for _ in range(2))
    assert one == one and one != other and len({one, other}) == 2
    assert settings.Settings(options=one) != settings.Settings(options=other)


def test_context_windows_hand_on_whatever_they_can_do(pack):
    """Newer hosts ask more of them than this pack answers itself."""
    handler = with_context_windows(load("Wan text to video"), 3).model_options["context_handler"]
    assert isinstance(handler, IndexListContextHandler)
    ours = pack.module("dit.branch.windows").PerturbedWindows(handler, None, {}, [])
    assert ours.context_length == handler.context_length and ours.dim == handler.dim
    assert ours.get_context_windows == handler.get_context_windows
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = ours.nothing_of_the_kind


FIGURES = [{"layer": "0.7"}]
PRESET = {
    "format": "detail_guidance.preset",
    "fingerprint": "0" * 16,
    "family": "SD3 / SD3.5",
    "blocks": 4,
    "verdict": "helps",
    "why": "it is nearer",
    "layer": 0.7,
    "scale": 0.25,
    "start_percent": 0.0,
    "options": {},
    "sampling": {"steps": "20"},
    "figures": FIGURES,
}


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": "4"},
        {"blocks": 4.0},
        {"layer": True},
        {"scale": "0.25"},
        {"options": {"every": 2}},
        {"figures": {"layer": "0.7"}},
        {"figures": ["0.7"]},
        {"why": None},
    ],
)
def test_a_preset_of_wrong_types_is_damaged(pack, tmp_path, change):
    preset = pack.module("methods.calibration.preset")
    file = tmp_path / "p.json"
    file.write_text(json.dumps(PRESET))
    assert preset.load(file).layer == 0.7
    file.write_text(json.dumps(PRESET | change))
    (name,) = change
    with pytest.raises(ValueError, match=rf"preset: p\.json cannot be used \(its {name} is"):
        preset.load(file)


@pytest.fixture
def users(tmp_path, monkeypatch):
    """The host's own user manager in its multi-user mode, and a server's routes."""
    from aiohttp import web
    from app.user_manager import UserManager
    from comfy.cli_args import args
    from server import PromptServer

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    monkeypatch.setattr(args, "multi_user", True)
    (tmp_path / "users.json").write_text(json.dumps({"ann_1": "Ann", "bob_2": "Bob"}))

    class Server:
        user_manager, routes = UserManager(), web.RouteTableDef()
        client_id, told = None, []

        def send_sync(self, event, data, client):
            self.told.append((event, client))

    server = Server()
    monkeypatch.setattr(PromptServer, "instance", server, raising=False)
    return server


async def test_each_user_has_presets_of_his_own(pack, users, tmp_path, monkeypatch):
    """And they are read outside the server's event loop."""
    import threading

    presets, page = pack.module("methods.calibration.presets"), pack.module("methods.common.page")
    monkeypatch.setattr(page, "_users", {})
    presets.serve()
    (route,) = users.routes
    threads, kept = [], presets.kept
    monkeypatch.setattr(presets, "kept", lambda user: threads.append(threading.current_thread()) or kept(user))

    async def asked(user, client):
        request = make_mocked_request("GET", f"{presets.ROUTE}?client_id={client}", {"comfy-user": user})
        return json.loads((await route.handler(request)).body)

    assert await asked("ann_1", "a") == await asked("bob_2", "b") == []
    users.client_id = "a"  # whose page has queued the prompt
    values = {name: value for name, value in PRESET.items() if name != "format"}
    presets.keep(pack.module("methods.calibration.preset").Preset(**values), "sd3")
    assert [file.parent.parent.name for file in tmp_path.rglob("*.json") if file.name != "users.json"] == ["ann_1"]
    assert users.told == [("detail_guidance.preset", "a")], "only that user's pages are told"
    assert len(await asked("ann_1", "a")) == 1 and await asked("bob_2", "b") == []
    asking = [thread for thread in threads if thread is not threading.main_thread()]
    assert len(asking) == 4, "all but the one that keeps the preset, in the prompt's own thread"


def test_presets_of_the_default_user_are_everyones(pack, users, tmp_path):
    """Versions before 0.13 kept all of them there. A user's own one of the same model wins, though it be older."""
    presets = pack.module("methods.calibration.presets")
    for user, scale, age in (("default", 0.5, 0), ("ann_1", 0.25, 100)):
        presets.folder(user).mkdir(parents=True)
        file = presets.folder(user) / "it.json"
        file.write_text(json.dumps(PRESET | {"scale": scale}))
        os.utime(file, (1e9 - age, 1e9 - age))
    of = {user: [each.scale for each in presets.kept(user).values()] for user in ("default", "ann_1", "bob_2")}
    assert of == {"default": [0.5], "ann_1": [0.25], "bob_2": [0.5]}


# Files


@pytest.mark.parametrize("node, value", [("MassiveActivationProfile", "profile"), ("DiTFeatures", "features")])
@pytest.mark.parametrize("prefix", ["", "/", "mine/", "mine/it", "a b", "  "])
def test_what_is_saved_is_found(pack, node, value, prefix, output):
    """Whatever the name, Load offers the file; and a second one does not take the first one's place."""
    thing = made(pack, node)
    if prefix == "/":
        with pytest.raises(ValueError, match="filename_prefix: '/' leads out of"):
            pack.outputs(f"Save{node}", **{value: thing}, filename_prefix=prefix)
        return
    for count in (1, 2):
        pack.outputs(f"Save{node}", **{value: thing}, filename_prefix=prefix)
        schema = pack.classes[f"Load{node}"].GET_SCHEMA()
        names = next(i for i in schema.inputs if i.id == f"{value}_name").options
        assert len(names) == count and pack.run(f"Load{node}", **{f"{value}_name": names[-1]}) is not None


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "..", "/tmp/x", "..\\x", "C:/x"])
@pytest.mark.parametrize("node, value", [("MassiveActivationProfile", "profile"), ("DiTFeatures", "features")])
def test_nothing_is_saved_outside_the_folder(pack, node, value, prefix, output):
    with pytest.raises(ValueError, match=r"filename_prefix: .* leads out of output/.*Give a name such as"):
        pack.outputs(f"Save{node}", **{value: made(pack, node)}, filename_prefix=prefix)
    assert not [*output.rglob("*.safetensors")]


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    for folder in ("massive_activations", "dit_features"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(tmp_path / folder)], {".safetensors"}))
        folder_paths.filename_list_cache.pop(folder, None)
    return tmp_path


def made(pack, node):
    if node == "DiTFeatures":
        given = {"samples": latent()["samples"], "downscale_ratio_spacial": 8}
        return pack.run(node, model=model(), positive=conditioning(1), latent=given, draws=1)
    inputs = {"positive": conditioning(1), "negative": conditioning(2), "latent_image": latent(size=8), "steps": 1}
    return pack.run("MassiveActivationProbe", model=model(), **inputs)


def test_families_have_names_that_do_not_change(pack):
    families = pack.module("dit.families").FAMILIES
    ids = [family.id for family in families]
    assert len(set(ids)) == len(ids) and all(each == each.lower() and " " not in each for each in ids)
    assert len({family.name for family in families}) == len(families)


@pytest.mark.parametrize("case, old", [("Wan text to video", "Wan"), ("Wan speech to video", "Wan")])
def test_files_of_earlier_versions_know_their_model(pack, case, old):
    """By the name that people read; two rows had one."""
    if CASES[case].lacking:
        pytest.skip(CASES[case].lacking)
    patcher = load(case)
    depth, width = CASES[case].depth, 64
    for family, fits in ((old, True), ("sd3", False), ("SD3 / SD3.5", False)):
        settings = pack.module("methods.detail_guidance.settings")
        profile = settings.Profile(family, depth, width, {}, torch.zeros(depth, width))
        options = pack.run("DetailGuidanceOptions", profile=profile)
        if fits:
            pack.run("DetailGuidance", model=patcher, options=options)
        else:
            with pytest.raises(ValueError, match=f"profile: it was measured on {family} with"):
                pack.run("DetailGuidance", model=patcher, options=options)


def test_new_files_know_the_family_by_its_id(pack):
    assert made(pack, "MassiveActivationProfile").family == "sd3" == made(pack, "DiTFeatures").family


def test_features_of_earlier_files_match_new_ones(pack):
    """They name the family otherwise; the weights are the same."""
    new = made(pack, "DiTFeatures")
    old = replace(new, family="SD3 / SD3.5")
    for source, target in ((old, new), (new, old)):
        assert pack.outputs("MatchFeatures", source=source, target=target, points="40, 40").args[0]
    with pytest.raises(ValueError, match="target: its model is SD3 / SD3"):
        pack.outputs("MatchFeatures", source=new, target=replace(old, fingerprint="0" * 16), points="40, 40")


def test_the_report_counts_what_it_says(pack):
    """Guided steps are those that predicted the positive, and not all that lie in the window."""
    patcher = model()
    guider = detail_guider(pack, patcher)
    predict, calls = type(guider).predict_noise, []

    def every_other(x, timestep, model_options={}, seed=None):
        calls.append(1)
        return predict(guider, x, timestep, model_options, seed) if len(calls) % 2 else x

    guider.predict_noise = every_other
    _, report = reported(pack, guider, steps=4)
    assert report.steps == 4 and report.steps_guided == 2 and report.channels == {2: list(MASSIVE)}
    assert "2 steps were not guided" in " ".join(report.warnings)


# Other executors, samplers and patches


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("every", [1, 2])
def test_a_sampler_that_passes_no_options_on(pack, subject, batch, every):
    """As some packs write them: equal to the plain implementation, and the host's own defaults stay empty."""

    @torch.no_grad()
    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None, **_):
        for sigma, following in itertools.pairwise(sigmas):
            denoised = model(x, sigma * x.new_ones(len(x)), denoise_mask=None, seed=1)
            x = x + (x - denoised) / sigma * (following - sigma)
        return x

    def sampled(guider):
        x = latent(batch, 8)["samples"]
        sigmas = comfy.samplers.calculate_sigmas(subject.model.get_model_object("model_sampling"), "simple", 3)
        return guider.sample(x, x * 0, comfy.samplers.KSAMPLER(sampler), sigmas, seed=1)

    guider = detail_guider(pack, subject.model, {"every": every}, cfg=3.0)
    with pack.reports() as reports:
        actual = sampled(guider)
    plain = subject.plain(subject.model, conditioning(1), conditioning(2), 3.0, w=1.5, host_cfg=True)
    error = relative_error(actual, sampled(plain))
    assert error <= 1e-5 if every == 1 else actual.isfinite().all()
    assert reports[0].steps_guided == 3
    assert comfy.samplers.CFGGuider.predict_noise.__defaults__[0] == {}


def test_what_looks_at_a_run_sees_a_sampler_without_options(pack, monkeypatch):
    """The probe, and words."""
    expected = made(pack, "MassiveActivationProbe")
    euler = comfy.samplers.k_diffusion_sampling.sample_euler

    def without_options(model, x, sigmas, extra_args=None, **more):
        return euler(lambda x, sigma, **_: model(x, sigma, denoise_mask=None, seed=1), x, sigmas, {}, **more)

    monkeypatch.setattr(comfy.samplers.k_diffusion_sampling, "sample_euler", without_options)
    seen = made(pack, "MassiveActivationProbe")
    assert seen == expected and torch.equal(seen.magnitudes, expected.magnitudes)
    guider = detail_guider(pack, model(), {"words": words_of(pack, 7, 0.4)})
    _, report = reported(pack, guider)
    assert report.mask is not None and report.steps_fired == 2


def test_two_runs_of_one_model_see_a_sampler_without_options(pack, monkeypatch):
    """Each has its own wrappers once a step, as with options."""
    euler = comfy.samplers.k_diffusion_sampling.sample_euler

    def without_options(model, x, sigmas, extra_args=None, **more):
        return euler(lambda x, sigma, **_: model(x, sigma, denoise_mask=None, seed=1), x, sigmas, {}, **more)

    monkeypatch.setattr(comfy.samplers.k_diffusion_sampling, "sample_euler", without_options)
    seen, patcher = [], model()

    def seeing(name):
        def apply_model(executor, *args, **kwargs):
            seen.append(name)
            return executor(*args, **kwargs)

        return lambda guider: contextlib.nullcontext({WrappersMP.APPLY_MODEL: apply_model})

    for name in ("one", "other"):
        patcher = pack.module("dit").on_run(patcher, name, seeing(name))
    sample(stock_guider(patcher, conditioning(1), conditioning(2)))
    assert sorted(seen) == sorted(["one", "other"] * (len(seen) // 2)) and seen


@pytest.mark.parametrize("prefix", ["%date:yyyy%/it", "it:2"])
def test_a_colon_that_names_no_drive_is_a_name(pack, prefix, output):
    profile = made(pack, "MassiveActivationProfile")
    pack.outputs("SaveMassiveActivationProfile", profile=profile, filename_prefix=prefix)
    assert len(list(output.rglob("*.safetensors"))) == 1


def test_another_nodes_windows_can_be_copied(pack):
    windows = pack.module("dit.branch.windows").PerturbedWindows(types.SimpleNamespace(size=3), None, {}, [])
    assert copy.copy(windows).size == copy.deepcopy(windows).size == 3


@pytest.mark.parametrize("node, extra", [("DetailGuidance", {}), ("DetailGuider", {"cfg": 3.0})])
@pytest.mark.parametrize("call", ["execute", "EXECUTE_NORMALIZED"])
def test_nodes_without_hidden_inputs(pack, node, extra, call):
    """Exported scripts and other packs' executors give none."""
    values = {"dg_scale": 0.5, "layer_start": 0.5, "layer_end": 0.5, "start_percent": 0.0, "end_percent": 1.0}
    if extra:
        values |= {"positive": conditioning(1), "negative": conditioning(2), **extra}
    cls = pack.classes[node]
    assert cls.hidden is None
    assert getattr(cls, call)(model=model(), **values) is not None


def test_the_report_node_without_hidden_inputs(pack, monkeypatch):
    module = pack.module("nodes.detail_guidance_report")
    _, report = reported(pack, detail_guider(pack, model()))
    monkeypatch.setattr(module, "reports_of_this_prompt", lambda: [report])
    _, text = pack.classes["DetailGuidanceReport"].execute(latent=latent()).args
    assert text.startswith("Detail Guidance: SD3 / SD3.5")


@pytest.mark.parametrize("batching", ["auto", "together", "in turn"])
def test_a_patch_of_the_models_input_that_joins_one_row(pack, batching):
    """As core's USOStyleReference does on Flux: a forward of two rows would fail."""
    patcher = flux().clone()
    tokens = torch.randn(1, 3, 256, generator=torch.Generator().manual_seed(1))

    def join(args):
        txt = torch.cat([tokens, args["txt"]], dim=1)
        ids = torch.cat([torch.zeros(1, 3, 3), args["txt_ids"]], dim=1)
        return {**args, "txt": txt, "txt_ids": ids}

    patcher.set_model_post_input_patch(join)
    expected = sample(subject_of("Flux").plain(patcher, conditioning(1), None, 1.0, w=1.5, host_cfg=True), size=8)
    guider = detail_guider(pack, patcher, {"batching": batching}, cfg=1.0, negative=None)
    actual, report = reported(pack, guider, size=8)
    assert relative_error(actual, expected) <= 1e-5
    told = [warning for warning in report.warnings if "together was not possible here" in warning]
    assert bool(told) == (batching == "together")


def areas():
    area = node_helpers.conditioning_set_values(conditioning(1), {"area": (8, 16, 0, 0), "strength": 1.0})
    other = node_helpers.conditioning_set_values(conditioning(3), {"area": (8, 8, 8, 8), "strength": 1.0})
    return {"one beside the whole": area + conditioning(3), "one alone": area, "two of other shapes": area + other}


@pytest.mark.parametrize("positive", areas().values(), ids=areas())
def test_a_map_of_a_regional_prompt(pack, positive):
    """A region's maps are of the picture part that the first condition has."""
    inputs = {"positive": positive, "negative": conditioning(2), "latent_image": latent(), "steps": 2, "layer": 0.5}
    pictures, report, _ = pack.outputs("MassiveActivationMap", model=model(), **inputs).args
    assert len(pictures) == 2 and pictures.isfinite().all() and len(report.splitlines()) == 2


def test_a_mask_that_passes_one_by_rounding(pack):
    mask = torch.ones(1, 16, 16)
    exact = sample(detail_guider(pack, model(), {"mask": mask}))
    assert torch.equal(sample(detail_guider(pack, model(), {"mask": mask * 1.0000005})), exact)
    for wrong in (mask * 1.2, mask * -0.1):
        with pytest.raises(ValueError, match=r"mask: its values go from .* to .*, 0 to 1 is allowed\. Add masks with"):
            pack.run("DetailGuidanceOptions", mask=wrong)


def test_one_picture_of_a_batch_that_is_not_finite(pack):
    broken = model().clone()

    def second_is_nan(apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"])
        out[1::2] = torch.nan
        return out

    broken.set_model_unet_function_wrapper(second_is_nan)
    _, report = reported(pack, detail_guider(pack, broken), batch=2)
    assert "predictions of 1 of the pictures are not finite numbers" in " ".join(report.warnings)
    assert 0 < report.relative_strength < torch.inf


def test_an_empty_positive_is_not_the_guiders_fault(pack):
    guided = pack.run("DetailGuidance", model=model())
    guider = stock_guider(guided)
    guider.inner_set_conds({"positive": [], "negative": conditioning(2)})
    guider.predict_noise = lambda x, *args, **more: x
    _, report = reported(pack, guider)
    assert "the positive is empty. Connect a text encoder's conditioning" in " ".join(report.warnings)
    assert "does not predict" not in " ".join(report.warnings)
