"""Who imports whom: one direction between the rooms, no circle inside them, and no ComfyUI below `host/`."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("dit", "methods", "nodes")


def imports():
    """Module → the pack's modules that it imports, for types alone too, by their names below the root."""
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
    }
    found = {name: set() for name in modules}
    for name, file in modules.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join(name.split(".")[: -node.level])  # `from .x` of a.b is a.x
                module = ".".join(filter(None, [base, node.module]))
                for alias in node.names:
                    target = f"{module}.{alias.name}"
                    found[name].add(target if target in modules else module)
    return {name: {each if each in modules else f"{each}.__init__" for each in found[name]} for name in modules}


def test_no_module_is_in_an_import_circle():
    graph = imports()
    assert {"methods.detail_guidance.formula", "dit.families", "methods.massive_activations.perturbation"} <= graph[
        "methods.detail_guidance.run"
    ] | graph["dit.branch.request"]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_rooms_have_one_direction():
    allowed = {
        "detail_guidance": {"detail_guidance"},
        "instruments": {"instruments", "detail_guidance"},
        "host": {"host", "instruments", "detail_guidance"},
        "nodes": set(ROOMS),
    }
    for module, imported in imports().items():
        assert {each.split(".")[0] for each in imported} <= allowed[module.split(".")[0]], module


@pytest.mark.parametrize("room", ["detail_guidance", "instruments"])
def test_it_does_not_import_comfyui(room):
    """Each of its modules, in a Python that has nothing of ComfyUI on its path."""
    code = (
        "import sys; sys.path.insert(0, 'tools'); import rooms, importlib, pathlib;"
        f"[importlib.import_module('pack.{room}.' + p.stem) for p in pathlib.Path('{room}').glob('*.py')];"
        "own = ('comfy', 'comfy_api', 'nodes', 'server', 'folder_paths');"
        "sys.exit(', '.join(n for n in sys.modules if n.split('.')[0] in own) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
