"""What a user installs: the files of the registry's archive alone, in an empty custom_nodes."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import provision
import pytest
import yaml
from comfy_server import Server
from make_locale import NODES
from make_subgraphs import BLOCKS
from PIL import Image

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


def unpack(pack):
    for name in archived():
        (pack / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, pack / name)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The pack in a base directory beside the reference model's loader, and what the host serves and runs there."""
    base = tmp_path_factory.mktemp("base")
    pack = base / "custom_nodes" / "detail-guidance"
    unpack(pack)
    (pack.parent / "reference-model").symlink_to(ROOT / "tests/reference_model")
    pip = [provision.comfyui_python(), "-m", "pip", "install", "--quiet", "--no-index"]  # all of it is there already
    subprocess.run([*pip, "-r", pack / "requirements.txt"], check=True, env=provision.environment())

    async def served():
        async with Server(base=base) as server:
            paths = ("/object_info", "/workflow_templates", "/i18n", "/global_subgraphs")
            definitions, templates, translations, blocks = [await server.get(path) for path in paths]
            demo = json.loads((ROOT / "tests/reference_model/demo.json").read_text())
            pictures = await server.run(await server.api_format(demo))
            async with server.session.get("/extensions/detail-guidance/docs/DetailGuider.md") as page:
                return definitions, templates, translations, blocks, page.status, pictures, server.log.read_text()

    return pack, asyncio.run(served())


def test_it_is_small_and_holds_no_development_files(installed):
    pack, _ = installed
    files = [file for file in pack.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) < LIMIT
    assert not {"tests", "tools", "lab", "bench", "docs", "Makefile"} & {file.name for file in pack.iterdir()}


def test_a_scanner_of_node_packs_finds_nothing(tmp_path):
    """One that users run. Its verdict is clean only where not even prose looks odd to it."""
    unpack(tmp_path)
    command = [provision.comfyui_python(), "-m", "nodesafe.cli", "scan", "--format", "json", tmp_path]
    result = subprocess.run(command, env=provision.environment(), capture_output=True, text=True)
    found = json.loads(result.stdout)
    assert found["findings"] == [] and found["verdict"]["label"] == "clean"


def test_the_host_offers_its_nodes_templates_help_and_translations(installed):
    _, (definitions, templates, translations, blocks, page, _, log) = installed
    own = {name for name, node in definitions.items() if node["python_module"] == "custom_nodes.detail-guidance"}
    assert own == set(NODES)
    assert len(templates["detail-guidance"]) == len(list((ROOT / "workflows").glob("*.json")))
    assert {block["name"] for block in blocks.values()} == BLOCKS.keys()
    assert {"en", "zh", "ja"} <= translations.keys() and page == 200
    assert "IMPORT FAILED" not in "".join(line for line in log.splitlines() if "detail-guidance" in line)


def test_its_demo_runs(installed):
    _, (*_, pictures, log) = installed
    assert len(pictures) == 1 and "Detail Guidance: SD3 / SD3.5, block 7 of 10" in log


def test_it_leaves_nothing_behind_when_it_is_removed(installed):
    """Everything that running it made lies in its own folder."""
    pack, _ = installed
    assert {path.name for path in pack.parent.iterdir()} <= {pack.name, "reference-model", "__pycache__"}
    made = {path for path in pack.rglob("*") if path.is_file()} - {pack / name for name in archived()}
    assert all("__pycache__" in path.parts for path in made)


WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_what_workflows_use_is_pinned(file):
    """Actions by commit, or files of this repository."""
    jobs = yaml.safe_load(file.read_text())["jobs"].values()
    used = [step["uses"] for job in jobs for step in [job, *job.get("steps", [])] if "uses" in step]
    assert used and all(re.fullmatch(r"\./.+\.yml|[\w./-]+@[0-9a-f]{40}", each) for each in used)


def test_nothing_is_published_untested():
    jobs = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())["jobs"]
    assert jobs["publish"]["needs"] == "test" and jobs["test"]["uses"] == "./.github/workflows/test.yml"
    tested = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    for name, job in tested.items():
        assert job["steps"][-1] == {"run": f"make {name}"}
    assert tested.keys() == {"check", "test"} and len(tested["test"]["strategy"]["matrix"]["comfyui"]) > 1


def test_what_the_registry_is_told(tmp_path):
    """The publish workflow's step gives the description the addresses of pictures that are there."""
    steps = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())["jobs"]["publish"]["steps"]
    (addresses,) = [step["run"] for step in steps if "addresses" in step.get("name", "")]
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "README.md", tmp_path)
    repository = {"GITHUB_REPOSITORY": "someone/somewhere", "GITHUB_SHA": "0123abc"}
    subprocess.run(["bash", "-c", addresses], cwd=tmp_path, check=True, env=repository | {"PATH": "/usr/bin:/bin"})
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())
    told = project["tool"]["comfy"]
    urls = project["project"]["urls"]
    assert urls["Repository"] == "https://github.com/someone/somewhere"
    assert (
        urls["Documentation"].startswith(urls["Repository"]) and urls["Bug Tracker"] == f"{urls['Repository']}/issues"
    )
    assert "git clone https://github.com/someone/somewhere " in (tmp_path / "README.md").read_text()
    assert "comfyui" not in project["project"]["name"]
    assert told["PublisherId"] and told["DisplayName"] == "Detail Guidance" and told["requires-comfyui"] == ">=0.3.75"
    before = "https://raw.githubusercontent.com/someone/somewhere/0123abc/"
    with Image.open(ROOT / told["Icon"].removeprefix(before)) as icon:
        assert icon.width == icon.height <= 400
    with Image.open(ROOT / told["Banner"].removeprefix(before)) as banner:
        assert banner.width / banner.height == pytest.approx(21 / 9, abs=0.01)


def test_the_registry_is_told_what_changed(tmp_path):
    """The section of this version in CHANGELOG.md, and of no other."""
    steps = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())["jobs"]["publish"]["steps"]
    (changes,) = [step["run"] for step in steps if "changes" in step.get("name", "")]
    subprocess.run(["bash", "-ec", changes], cwd=ROOT, check=True, env=os.environ | {"RUNNER_TEMP": str(tmp_path)})
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    (section,) = re.findall(
        rf"^## {re.escape(version)}\n(.*?)(?=^## |\Z)", (ROOT / "CHANGELOG.md").read_text(), re.M | re.S
    )
    assert (tmp_path / "changes.md").read_text().strip() == section.strip() != ""
    assert '--changelog-file "$RUNNER_TEMP/changes.md"' in steps[-1]["run"]


def test_the_registrys_check_finds_odd_values(tmp_path):
    """A classifier that it does not know is a warning to it, and an error here."""
    wrong = (ROOT / "pyproject.toml").read_text().replace("OS Independent", "every one")
    (tmp_path / "pyproject.toml").write_text(wrong)
    for folder, passes in ((ROOT, True), (tmp_path, False)):
        command = [provision.comfyui_python(), ROOT / "tools/validate.py"]
        assert (subprocess.run(command, cwd=folder, capture_output=True).returncode == 0) == passes
