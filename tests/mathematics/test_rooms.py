"""Who imports whom: docs/DEVELOPMENT.md has the picture. Imports for types alone count too."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("dit", "methods", "nodes")

# Which methods a method may stand on; what those stand on, it may too.
STANDS_ON = {
    "massive_activations": set(),
    "regions": set(),
    "perturbations": set(),
    "detail_guidance": {"massive_activations", "perturbations", "regions"},
    "calibration": {"detail_guidance"},
    "features": {"massive_activations"},
}
HOST = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "comfyui_version",
    "folder_paths",
    "latent_preview",
    "nodes",
    "server",
}

# Modules that are mathematics alone, by name: neither these nor what they import knows ComfyUI or `dit`.
MATHEMATICS = {
    "methods.common.layers",
    "methods.common.numbers",
    "methods.common.palette",
    "methods.common.drawing",
    "methods.massive_activations.channels",
    "methods.massive_activations.perturbations",
    "methods.massive_activations.profile",
    "methods.detail_guidance.curve",
    "methods.detail_guidance.formula",
    "methods.detail_guidance.reuse",
    "methods.detail_guidance.settings",
    "methods.detail_guidance.window",
    "methods.perturbations.grid",
    "methods.regions.foreground",
    "methods.regions.masks",
    "methods.regions.words",
    "methods.calibration.blind",
    "methods.calibration.figures",
    "methods.calibration.metrics",
    "methods.calibration.preset",
    "methods.calibration.recommendation",
    "methods.calibration.scores",
    "methods.calibration.sheet",
    "methods.features.features",
    "methods.features.matching",
    "methods.features.pictures",
    "methods.features.search",
}


def modules():
    """Module → its file, by names below the root."""
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts): file
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
    }


def imports():
    """Module → the pack's modules that it imports, and the host's packages."""
    every = modules()
    found = {name: set() for name in every}
    for name, file in every.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name.split(".")[0] for alias in node.names} & HOST
            if isinstance(node, ast.ImportFrom) and not node.level:
                found[name] |= {node.module.split(".")[0]} & HOST
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join(name.split(".")[: -node.level])  # `from .x` of a.b is a.x
                module = ".".join(filter(None, [base, node.module]))
                for alias in node.names:
                    target = f"{module}.{alias.name}"
                    found[name].add(target if target in every else module)
    known = every.keys() | HOST
    return {name: {each if each in known else f"{each}.__init__" for each in found[name]} for name in every}


def method_of(module):
    room, _, rest = module.partition(".")
    return rest.split(".")[0] if room == "methods" else None


def allowed(method):
    """A method, what it stands on, and what is common to all."""
    return {method, "common"}.union(*(allowed(each) for each in STANDS_ON.get(method, ())))


def test_no_module_is_in_an_import_circle():
    graph = imports()
    assert "dit.families" in graph["dit.anatomy"] and "dit.__init__" in graph["methods.detail_guidance.run"]
    assert "comfy" in graph["dit.run"], "the host's packages count"
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_dit_imports_no_method():
    for module, imported in imports().items():
        if module.startswith("dit."):
            assert not {each for each in imported - HOST if not each.startswith("dit.")}, module


def test_a_method_imports_dit_and_only_the_methods_it_stands_on():
    methods = {method_of(module) for module in modules() if method_of(module)} - {"common", "__init__"}
    assert methods == STANDS_ON.keys()
    for module, imported in imports().items():
        if (method := method_of(module)) is None:
            continue
        others = {method_of(each) for each in imported - HOST if method_of(each)}
        assert others <= allowed(method), module
        assert not {each for each in imported - HOST if each.startswith("nodes.")}, module


def test_nothing_imports_the_lab():
    for file in [
        *ROOT.glob("*.py"),
        *(file for room in (*ROOMS, "tools", "tests") for file in (ROOT / room).rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("lab", "paths", "laboratory", "judge")], file


def test_tools_import_no_test():
    tests = {file.stem for folder in ("host", "browser") for file in (ROOT / "tests" / folder).glob("*.py")}
    for file in (ROOT / "tools").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not tests & set(names), file


def test_mathematics_imports_neither_comfyui_nor_dit():
    graph = imports()
    assert graph.keys() >= MATHEMATICS
    for module in MATHEMATICS:
        assert not [each for each in graph[module] if each in HOST or each.startswith("dit.")], module
        own = {each for each in graph[module] - HOST if not each.endswith("__init__")}
        assert own <= MATHEMATICS, module


@pytest.mark.parametrize("module", sorted(MATHEMATICS))
def test_mathematics_runs_without_comfyui(module):
    """Each module, in a Python that has nothing of ComfyUI on its path."""
    code = (
        "import sys; sys.path.insert(0, 'tools'); import plain_modules, importlib;"
        f"importlib.import_module('pack.{module}');"
        f"sys.exit(', '.join(n for n in sys.modules if n.split('.')[0] in {sorted(HOST)!r}) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
