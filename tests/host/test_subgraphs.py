"""Blocks of the node library: the files are the generator's, the host offers them, and they name what is there."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from comfy_server import Server
from make_subgraphs import INPUTS, OUTPUTS, build

FOLDER = Path(__file__).resolve().parents[2] / "subgraphs"
FILES = sorted(FOLDER.glob("*.json"))


async def answers():
    """The host's definitions of nodes, and the blocks that it offers: name → text."""
    async with Server() as server:
        offered = await server.get("/global_subgraphs")
        texts = {
            block["name"]: (await server.get(f"/global_subgraphs/{key}"))["data"] for key, block in offered.items()
        }
        return await server.get("/object_info"), texts


@pytest.fixture(scope="module")
def host():
    return asyncio.run(answers())


@pytest.mark.skipif(bool(os.environ.get("COMFYUI_DIR")), reason="another host may give nodes other inputs")
def test_the_files_are_what_the_descriptions_give(host):
    definitions, _ = host
    assert {file.name: file.read_text() for file in FILES} == build(definitions), "run tools/make_subgraphs.py"


def test_the_host_offers_them(host):
    _, offered = host
    assert FILES and {file.stem: file.read_text() for file in FILES}.items() <= offered.items()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_links_join_equal_types(host, file):
    definitions, _ = host
    (subgraph,) = json.loads(file.read_text())["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    nodes |= {INPUTS: {"outputs": subgraph["inputs"]}, OUTPUTS: {"inputs": subgraph["outputs"]}}
    assert {node["type"] for number, node in nodes.items() if number > 0} <= definitions.keys()
    for link in subgraph["links"]:
        source = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
        target = nodes[link["target_id"]]["inputs"][link["target_slot"]]
        assert source["type"] == target["type"] == link["type"]
        assert link["id"] in (target.get("linkIds") or [target["link"]])
        assert link["id"] in (source.get("linkIds") or source["links"])
