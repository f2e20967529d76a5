"""What the page gets beside the nodes: workflows to drag onto it, help pages, translations."""

import asyncio
import json
import os
from itertools import product
from pathlib import Path
from typing import NamedTuple

import make_locale
import pytest
from comfy_server import Server
from make_locale import NODES
from make_workflows import FOLDER, build, file_of

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh", "ja", "ko", "es", "fr", "ru")
# Weights, and a video.
NOT_HERE = {"ckpt_name", "unet_name", "clip_name", "clip_name1", "clip_name2", "vae_name", "file"}


class Answers(NamedTuple):
    definitions: dict
    built: dict  # workflows, as their descriptions give them
    errors: dict  # why the host does not run them
    helps: dict
    templates: list
    thumbnails: dict  # HTTP status, by workflow
    translations: dict


async def answers():
    """What the host answers to a page, and to each of the graphs in API form."""
    async with Server() as server:
        definitions = await server.get("/object_info")
        errors = {}
        for file in FOLDER.glob("*.json"):
            prompt = await server.api_format(json.loads(file.read_text()))
            async with server.session.post("/prompt", json={"prompt": prompt}) as answer:
                errors[file.name] = await answer.json()
        folder = definitions["DetailGuider"]["python_module"].removeprefix("custom_nodes.")
        helps = {}
        for node, language in product(NODES, LANGUAGES):
            page = f"{node}.md" if language == "en" else f"{node}/{language}.md"
            async with server.session.get(f"/extensions/{folder}/docs/{page}") as answer:
                helps[node, language] = await answer.text() if answer.status == 200 else ""
        templates = (await server.get("/workflow_templates"))[folder]
        thumbnails = {}
        for name in templates:
            async with server.session.get(f"/api/workflow_templates/{folder}/{name}.jpg") as answer:
                thumbnails[name] = answer.status
        translations = await server.get("/i18n")
        return Answers(definitions, build(definitions), errors, helps, templates, thumbnails, translations)


@pytest.fixture(scope="module")
def host():
    return asyncio.run(answers())


@pytest.mark.skipif(bool(os.environ.get("COMFYUI_DIR")), reason="another host may give nodes other inputs")
def test_the_files_are_what_the_descriptions_give(host):
    found = {file.name: file.read_text() for file in FOLDER.glob("*.json")}
    assert found == host.built, "run tools/make_workflows.py"


def test_the_host_misses_nothing_but_weights(host):
    assert host.errors.keys() == host.built.keys()
    for name, answer in host.errors.items():
        problems = [problem for node in answer["node_errors"].values() for problem in node["errors"]]
        assert problems, f"{name}: the weights are here?"
        assert {problem["type"] for problem in problems} <= {"value_not_in_list", "custom_validation_failed"}, name
        assert {problem["extra_info"]["input_name"] for problem in problems} <= NOT_HERE, name


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_nodes_links_and_weights(host, file):
    """Nodes exist, links join equal types, every missing file says where it comes from."""
    definitions = host.definitions
    graph = json.loads(file.read_text())
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert {node["type"] for node in nodes.values()} <= definitions.keys() | {"MarkdownNote", "Note"}
    for _, source, slot, target, socket, kind in graph["links"]:
        assert definitions[nodes[source]["type"]]["output"][slot] == kind
        declared = definitions[nodes[target]["type"]]["input"]
        name = nodes[target]["inputs"][socket]["name"]
        assert {**declared.get("required", {}), **declared.get("optional", {})}[name][0] in (kind, "*")
    for node in nodes.values():
        named = {str(value) for value in node.get("widgets_values", []) if str(value).endswith(".safetensors")}
        models = node["properties"].get("models", [])
        assert {model["name"] for model in models} == named
        assert all(model["url"].startswith("https://") and model["directory"] for model in models)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_every_node_is_in_one_group(file):
    graph = json.loads(file.read_text())

    def holds(group, node):
        (left, top, width, height), (x, y), (across, down) = group["bounding"], node["pos"], node["size"]
        return left <= x and top <= y and x + across <= left + width and y + down <= top + height

    for node in graph["nodes"]:
        around = [group["title"] for group in graph["groups"] if holds(group, node)]
        assert len(around) == (node["type"] != "MarkdownNote"), f"{node['type']} in {around}"


@pytest.mark.parametrize("name", ["side_by_side", "words", "calibrate"])
def test_one_seed_for_all_that_is_compared(name):
    """Steps and cfg too: else two pictures, or a picture and its calibration, differ in more than Detail Guidance."""
    graph = json.loads(file_of(name).read_text())
    sources = {link[0]: link[1] for link in graph["links"]}
    samplers = [node for node in graph["nodes"] if node["type"] in ("KSampler", "DetailGuidanceCalibrate")]
    assert len(samplers) == 2
    for number in ("seed", "steps", "cfg"):
        links = [slot["link"] for node in samplers for slot in node["inputs"] if slot["name"] == number]
        assert len(links) == 2 and len({sources[link] for link in links}) == 1, number


def inputs(host, node):
    order = host.definitions[node]["input_order"]
    return {name for group in ("required", "optional") for name in order.get(group, [])}


def test_all_of_them_are_offered_as_templates(host):
    assert sorted(host.templates) == sorted(file.stem for file in FOLDER.glob("*.json"))
    assert set(host.thumbnails.values()) == {200}, "run tools/make_art.py"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_help_pages(host, language, node):
    """Every input has its line; node and page have one name."""
    page = host.helps[node, language]
    assert page.startswith(f"# {host.translations[language]['nodeDefs'][node]['display_name']}\n")
    of_the_graph = {"model", "positive", "negative"}
    assert [name for name in inputs(host, node) - of_the_graph if f"**{name}**" not in page] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_pages_refer_to_nodes_that_are_there(host, language):
    """By the names that the page shows. What else is in italics are warnings, labels and titles."""
    of = host.translations[language]["nodeDefs"]
    english = {name: host.translations["en"]["nodeDefs"][name]["display_name"] for name in NODES}
    for node in NODES:
        theirs, ours = (" ".join(host.helps[node, each].split()) for each in ("en", language))  # without line breaks
        for name, called in english.items():
            if f"*{called}*" in theirs:
                assert of[name]["display_name"] in ours, f"{node} in {language}: {called}"


@pytest.mark.skipif(bool(os.environ.get("COMFYUI_DIR")), reason="another host may give nodes other inputs")
def test_the_english_words_are_the_nodes_own(host):
    assert make_locale.FILE.read_text() == make_locale.build(host.definitions), "run tools/make_locale.py"


def test_the_panel_speaks_all_languages():
    """Whether each of them has every word, tests/javascript says."""
    assert {file.stem for file in (ROOT / "js/languages").iterdir()} == set(LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("node", NODES)
def test_translations_are_complete(host, language, node):
    translated = host.translations[language]["nodeDefs"][node]
    assert translated["display_name"] and translated["description"]
    assert len(translated["outputs"]) == len(host.definitions[node]["output"])
    assert all(text["tooltip"] for text in translated["outputs"].values())
    assert translated["inputs"].keys() == inputs(host, node)
    assert all(text["name"] and text["tooltip"] for text in translated["inputs"].values())
