"""What a user installs: the files of the registry's archive alone, in an empty custom_nodes."""

import asyncio
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
from comfy_server import Server

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 3_000_000  # bytes


def archived():
    """Paths below the root: those that git tracks and .comfyignore does not name."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ignored = (ROOT / ".comfyignore").read_text().split()
    for name in tracked.strip("\0").split("\0"):
        if not any(
            name.startswith(pattern) if pattern.endswith("/") else fnmatch(name, pattern) for pattern in ignored
        ):
            yield name


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A base directory with the pack in it, and what the host serves from there."""
    base = tmp_path_factory.mktemp("base")
    pack = base / "custom_nodes" / "detail-guidance"
    for name in archived():
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, pack / name)

    async def served():
        async with Server(base=base) as server:
            paths = ("/object_info", "/workflow_templates", "/i18n")
            definitions, templates, translations = [await server.get(path) for path in paths]
            async with server.session.get("/extensions/detail-guidance/docs/DetailGuider.md") as page:
                return definitions, templates, translations, page.status, server.log.read_text()

    return pack, asyncio.run(served())


def test_it_is_small_and_holds_no_development_files(installed):
    pack, _ = installed
    files = [file for file in pack.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) < LIMIT
    assert not {"tests", "tools", "bench", "docs", "Makefile"} & {file.name for file in pack.iterdir()}


def test_the_host_offers_its_nodes_templates_help_and_translations(installed):
    _, (definitions, templates, translations, page, log) = installed
    own = {name for name, node in definitions.items() if node["python_module"] == "custom_nodes.detail-guidance"}
    assert own == {"DetailGuider", "DetailGuidance", "DetailGuidanceOptions"}
    assert len(templates["detail-guidance"]) == 8
    assert {"zh", "ja"} <= translations.keys() and page == 200
    assert "IMPORT FAILED" not in "".join(line for line in log.splitlines() if "detail-guidance" in line)


def test_it_leaves_nothing_behind_when_it_is_removed(installed):
    """Everything that running it made lies in its own folder."""
    pack, _ = installed
    assert [path.name for path in pack.parent.iterdir()] == [pack.name]
    made = {path for path in pack.rglob("*") if path.is_file()} - {pack / name for name in archived()}
    assert all("__pycache__" in path.parts for path in made)
