"""The graphs that users drag onto the page: as tools/make_workflows.py writes them, valid for the host."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from comfy_server import Server
from make_workflows import build

FOLDER = Path(__file__).resolve().parents[2] / "workflows"
DEMO = "detail_guidance_demo.json"  # needs no weights of others; test_server.py runs it
WEIGHTS = {"ckpt_name", "unet_name", "clip_name1", "clip_name2", "vae_name"}


async def answers():
    """What the description gives, and the host's answer to each of the graphs in API form."""
    async with Server() as server:
        definitions = await server.get("/object_info")
        errors = {}
        for file in FOLDER.glob("*.json"):
            if file.name != DEMO:
                prompt = await server.api_format(json.loads(file.read_text()))
                async with server.session.post("/prompt", json={"prompt": prompt}) as answer:
                    errors[file.name] = await answer.json()
        return definitions, build(definitions), errors


@pytest.fixture(scope="module")
def host():
    return asyncio.run(answers())


@pytest.mark.skipif("COMFYUI_DIR" in os.environ, reason="another host may give nodes other inputs")
def test_the_files_are_what_the_descriptions_give(host):
    _, built, _ = host
    found = {file.name: file.read_text() for file in FOLDER.glob("*.json") if file.name != DEMO}
    assert found == built, "run tools/make_workflows.py"


def test_the_host_misses_nothing_but_weights(host):
    _, built, errors = host
    assert errors.keys() == built.keys()
    for name, answer in errors.items():
        problems = [problem for node in answer["node_errors"].values() for problem in node["errors"]]
        assert problems, f"{name}: the weights are here?"
        assert {problem["type"] for problem in problems} == {"value_not_in_list"}, name
        assert {problem["extra_info"]["input_name"] for problem in problems} <= WEIGHTS, name


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_nodes_links_and_weights(host, file):
    """Nodes exist, links join equal types, every missing file says where it comes from."""
    definitions, *_ = host
    graph = json.loads(file.read_text())
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert {node["type"] for node in nodes.values()} <= definitions.keys() | {"MarkdownNote", "Note"}
    for _, source, slot, target, socket, kind in graph["links"]:
        assert definitions[nodes[source]["type"]]["output"][slot] == kind
        declared = definitions[nodes[target]["type"]]["input"]
        name = nodes[target]["inputs"][socket]["name"]
        assert {**declared.get("required", {}), **declared.get("optional", {})}[name][0] == kind
    for node in nodes.values():
        named = {str(value) for value in node.get("widgets_values", []) if str(value).endswith(".safetensors")}
        models = node["properties"].get("models", [])
        assert {model["name"] for model in models} == named
        assert all(model["url"].startswith("https://") and model["directory"] for model in models)
