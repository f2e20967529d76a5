"""A grid for a judge outside of this pack: it finds a planted best setting, and nothing where there is none."""

import json
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from in_process import reference_model
from models import conditioning, latent, model
from safetensors.torch import save_file
from test_calibrate import clip_vision, folders  # noqa: F401

from nodes import common_ksampler

PICTURES = 8
SAMPLING = {"seed": [3], "steps": [2], "cfg": [4.0], "sampler_name": ["euler"], "scheduler": ["simple"]}
GRID = {"layers": ["0.3, 0.7"], "scales": ["0.5"], "starts": ["0"], "perturbations": ["massive channels"]}


@pytest.fixture(scope="module")
def vae():
    return reference_model().load_vae()


@pytest.fixture(scope="module")
def gridded(pack, vae):
    """The batches of pictures and the grid, as the host calls the node: every input is a list."""

    def run(pictures=PICTURES, **inputs):
        given = {
            "model": [model()],
            "vae": [vae],
            "positive": [conditioning(1)],
            "negative": [conditioning(2)],
            "latent_image": [latent(pictures, 16, seed=5)],
            **SAMPLING,
            **GRID,
            "paths": ["positive"],
            **inputs,
        }
        with torch.inference_mode():
            return pack.outputs("DetailGuidanceGrid", **given).args

    return run


@pytest.fixture(scope="module")
def grid(gridded):
    """Two settings, eight pictures each."""
    return gridded()[1]


def judge(pack, grid, scores, save=False, **inputs):
    return pack.outputs("DetailGuidanceJudge", grid=[grid], scores=scores, save_preset=[save], **inputs).args


def scored(random, batches, best=None, better=1.0):
    """Noise for each picture, and one batch whose pictures score higher."""
    scores = random.normal(0, 0.5, (batches, PICTURES))
    if best is not None:
        scores[best] += better
    return scores


def test_its_pictures_are_those_of_the_nodes(pack, vae, gridded):
    pictures, grid = gridded(
        pictures=2,
        layers=["0.5"],
        starts=["0, 0.5"],
        perturbations=["massive channels, skipped block"],
        paths=["positive, negative"],
    )
    expected = [("massive channels", "positive"), ("massive channels", "negative")]
    expected += [("skipped block", "positive"), ("skipped block", "negative")]
    asked = [(kind, path, start) for kind, path in expected for start in (0.0, 0.5)]
    assert [len(batch) for batch in pictures] == [2] * (1 + len(asked)) and len(grid.cells) == len(asked)
    settings = [3, 2, 4.0, "euler", "simple", conditioning(1), conditioning(2), latent(2, 16, seed=5)]
    for (kind, path, start), batch in zip([(None, None, None), *asked], pictures, strict=True):
        patched = model()
        if kind:
            options = pack.run("DetailGuidanceOptions", perturbation=kind, path=path)
            bounds = {"dg_scale": 0.5, "layer_start": 0.5, "layer_end": 0.5, "start_percent": start}
            patched = pack.run("DetailGuidance", model=patched, options=options, **bounds)
        with torch.inference_mode():
            (out,) = common_ksampler(patched, *settings)
            assert torch.equal(batch, vae.decode(out["samples"])[..., :3].clamp(0, 1).float())
    variants = [cell.variant for cell in grid.cells]
    assert variants[:3] == ["", "from 0.5", "path negative"] and len(set(variants)) == len(asked)


def test_a_planted_best_setting_is_found_and_kept(pack, gridded, folders):  # noqa: F811
    _, grid = gridded(perturbations=["massive channels, skipped block"])
    scores = scored(np.random.default_rng(0), 5, best=4)
    layer, scale, sheet, plot, report, start, options = judge(pack, grid, [*scores.flatten()], save=True)
    assert (start, options.perturbation, options.path) == (0.0, "skipped block", "positive")
    assert (layer, scale) == (0.7, 0.5) and report.startswith("Detail Guidance helps this model")
    assert "skipped block, layer 0.7, scale 0.5 was the surest gain" in report and "they score higher by" in report
    assert sheet.ndim == plot.ndim == 4
    (file,) = folders.presets.glob("*.json")
    preset = json.loads(file.read_text())
    assert preset["sampling"]["judged by"] == "scores"
    assert preset["verdict"] == "helps" and preset["options"] == {"perturbation": "skipped block"}


def test_noise_recommends_nothing(pack, grid):
    """A setting that is chosen by noise is confirmed by noise in one of forty runs."""
    random = np.random.default_rng(1)
    helped = 0
    for _ in range(80):
        _, scale, *_ = judge(pack, grid, [*scored(random, 3).flatten()])
        helped += scale > 0
    assert helped <= 7, "of 80 by chance one run in forty: more than 7 would be one time in 500"


def test_worse_scores_recommend_nothing(pack, grid):
    scores = scored(np.random.default_rng(0), 3, best=0, better=3.0)  # best without
    _, scale, _, _, report, *_ = judge(pack, grid, [*scores.flatten()])
    assert scale == 0.0 and report.startswith("Detail Guidance does not help") and "Without it they score" in report


def test_a_guard_that_falls_is_a_no(pack, grid):
    random = np.random.default_rng(0)
    scores = [*scored(random, 3, best=1, better=3.0).flatten()]
    _, scale, *_ = judge(pack, grid, scores, guard=[*scored(random, 3, best=1, better=3.0).flatten()])
    assert scale == 0.5
    _, scale, _, _, report, *_ = judge(pack, grid, scores, guard=[*scored(random, 3, best=1, better=-3.0).flatten()])
    assert scale == 0.0 and "The guard falls." in report


def test_scores_in_whatever_form_scorers_have(pack, grid):
    scores = scored(np.random.default_rng(0), 3, best=1, better=3.0)
    forms = {
        "numbers": [*scores.flatten()],
        "lists of a batch": [[*row] for row in scores],
        "tensors": [torch.tensor(row) for row in scores],
        "arrays": [scores],
        "texts": [", ".join(map(str, row)) for row in scores],
        "nested": [[[value] for value in row] for row in scores],
    }
    reports = {name: judge(pack, grid, form)[4].split("\n")[0] for name, form in forms.items()}
    assert len(set(reports.values())) == 1


@pytest.mark.parametrize(
    "scores, message",
    [
        (
            [1.0] * 5,
            "scores: there are 5, the grid has 24 pictures: 8 without Detail Guidance, then 8 of each of its 2",
        ),
        ([float("nan")] * 24, "scores: 24 are no finite numbers"),
        ([object()], "scores: <object .* is no number"),
        (["high"], "scores: 'high' is not a list"),
    ],
)
def test_scores_that_are_none(pack, grid, scores, message):
    with pytest.raises(ValueError, match=message):
        judge(pack, grid, scores)


def test_too_few_pictures_to_choose_and_to_judge(pack, gridded):
    _, grid = gridded(pictures=2)
    with pytest.raises(
        ValueError, match="scores: choosing by some pictures and judging by others takes 8, the grid has 2"
    ):
        judge(pack, grid, [1.0] * 6)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"perturbations": ["blurred"]}, "perturbations: 'blurred' is not one of massive channels, "),
        ({"perturbations": [""]}, "perturbations: '' is not one of"),
        ({"perturbations": ["random blocks"]}, "perturbations: 'random blocks' is not one of"),
        ({"paths": ["positive, negative"], "cfg": [1.0]}, "cfg: 1 is not above 1, and path negative"),
        ({"paths": ["both"]}, "paths: 'both' is not one of positive, negative"),
        ({"starts": ["2"]}, r"starts: 2\.0 is outside 0 to 1"),
        ({"vae": [None]}, "vae: there is none"),
    ],
)
def test_bad_input_before_anything_is_sampled(gridded, inputs, message):
    with pytest.raises(ValueError, match=message):
        gridded(**inputs)


def test_how_long_it_takes_is_told_on_the_node_before_it_starts(pack, gridded, monkeypatch):
    page = pack.module("methods.common.page")
    said = []
    server = SimpleNamespace(client_id="page", send_progress_text=lambda *given: said.append(given))
    monkeypatch.setattr(page, "PromptServer", SimpleNamespace(instance=server))
    gridded(pictures=1)
    (few, *_), (first, node, client), (second, *_) = said
    assert few.startswith("1 pictures of each setting are too few to judge by")
    assert "2 settings and none, 1 pictures each: as long as" in first and (node, client) == ("7", "page")
    assert second.startswith("about ")


# Scorers


def a_head(folder, *widths):
    generator = torch.Generator().manual_seed(0)
    pairs = list(pairwise(widths))
    state = {}
    for number, (wide, narrow) in enumerate(pairs):
        name = f"layers.{2 * number}." if len(pairs) > 1 else ""
        state[f"{name}weight"] = torch.randn(narrow, wide, generator=generator)
        state[f"{name}bias"] = torch.randn(narrow, generator=generator)
    save_file(state, folder / "head.safetensors")
    return state


@pytest.fixture
def heads(tmp_path, monkeypatch):
    import folder_paths

    folder = tmp_path / "aesthetics"
    folder.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "aesthetics", ([str(folder)], {".safetensors", ".pth"}))
    return folder


@pytest.mark.parametrize("widths", [(16, 1), (16, 8, 4, 1)], ids=["one layer", "three"])
def test_an_aesthetics_head(pack, heads, clip_vision, widths):  # noqa: F811
    state = a_head(heads, *widths)
    images = torch.rand(3, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        scores = pack.run("DetailAestheticScore", images=images, clip_vision=clip_vision, head="head.safetensors")
        assert len(scores) == 3
        for image, score in zip(images, scores, strict=True):
            (x,) = clip_vision.encode_image(image[None])["image_embeds"]
            x = x / x.norm()
            for name in sorted(name for name in state if name.endswith("weight")):
                x = state[name] @ x + state[name.replace("weight", "bias")]
            assert score == pytest.approx(x.item(), rel=1e-5)


def test_heads_that_do_not_fit(pack, heads, clip_vision):  # noqa: F811
    images = torch.rand(1, 64, 64, 3)
    for widths, message in [
        ((32, 1), "is for embeddings of 32 numbers, this clip_vision's have 16"),
        ((16, 2), "no head"),
    ]:
        a_head(heads, *widths)
        with pytest.raises(ValueError, match=rf"head: head\.safetensors .*{message}"):
            pack.run("DetailAestheticScore", images=images, clip_vision=clip_vision, head="head.safetensors")
