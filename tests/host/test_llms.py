"""docs/llms.txt says what the host says of the nodes, and its graphs run."""

import asyncio
import json
import os
import re

import make_llms
import pytest
from comfy_server import Server
from reference_graphs import on_the_reference_model


@pytest.fixture(scope="module")
def host():
    """The host's definitions, and how many pictures each graph of the file gave on the reference model."""

    async def answers():
        async with Server() as server:
            graphs = re.findall(r"```json\n(.*?)```", make_llms.FILE.read_text(), re.S)
            ran = [await server.run(on_the_reference_model(json.loads(graph), "brick wall", 1)) for graph in graphs]
            return await server.get("/object_info"), [len(pictures) for pictures in ran]

    return asyncio.run(answers())


@pytest.mark.skipif(bool(os.environ.get("COMFYUI_DIR")), reason="another host may give nodes other inputs")
def test_it_is_what_the_host_says(host):
    definitions, _ = host
    assert make_llms.FILE.read_text() == make_llms.build(definitions), "run tools/make_llms.py"


def test_its_graphs_run(host):
    _, ran = host
    assert ran == [1] * len(make_llms.WIRINGS)
