"""README and docs/: short enough, their commands work, their links lead somewhere, the functions they name exist."""

import ast
import json
import os
import re
import subprocess
from pathlib import Path

import provision
import pytest

ROOT = Path(__file__).resolve().parents[2]
README, DEVELOPMENT = ROOT / "README.md", ROOT / "docs/DEVELOPMENT.md"
WORDS = 900
REPOSITORY = "https://github.com/detail-guidance/ComfyUI-Detail-Guidance"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "tests/reference_model/README.md"]


def commands(page):
    """The lines of its indented blocks that are commands."""
    return re.findall(r"^    ((?:git|make|python|pip) .+)$", page.read_text(), re.M)


def run(command, folder=ROOT, **variables):
    """As a person would, in a shell, with ComfyUI's Python first."""
    path = os.pathsep.join([str(provision.comfyui_python().parent), os.environ["PATH"]])
    return subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=provision.environment() | {"PATH": path} | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_readme_is_short():
    assert len(README.read_text().split()) <= WORDS


def test_no_command_is_untested():
    """The suite itself is what `make test` runs, after `make check`; the others have their tests below."""
    installation, demo, test = commands(README)[:2], commands(README)[2], commands(README)[3]
    assert [command.split()[0] for command in installation] == ["git", "python"]
    assert (demo, test) == ("make demo", "make test") and len(commands(README)) == 4
    named = {"host", "demo", "test", "test-core", "test-host", "check", "evidence", "bench"}
    assert set(commands(DEVELOPMENT)) == {f"make {target}" for target in named}


def test_installation(tmp_path):
    """The repository's address stands for this clone, the package index for what is installed."""
    clone, install = commands(README)[:2]
    assert REPOSITORY in clone
    own = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": f"url.{ROOT}.insteadOf", "GIT_CONFIG_VALUE_0": REPOSITORY}
    own |= {"GIT_CONFIG_KEY_1": "safe.directory", "GIT_CONFIG_VALUE_1": "*"}
    for command in (clone, install):
        result = run(command, tmp_path, PIP_NO_INDEX="1", **own)
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "custom_nodes/detail-guidance/__init__.py").is_file()


def test_make_demo(tmp_path):
    result = run(f'make demo DEMO="--pairs 6 --out {tmp_path}"')
    assert result.returncode == 0, result.stderr
    assert {"baseline.png", "detail.png", "comparison.png", "report.json"} <= {file.name for file in tmp_path.iterdir()}
    median = json.loads((tmp_path / "report.json").read_text())["median"]
    assert median["low_pass_correlation"] > 0.9, "the same picture"
    assert median["distance_detail"] < median["distance_baseline"], "nearer to the drawing"
    assert "smaller is better" in result.stdout


def test_make_host_again():
    result = run("make host")
    assert result.returncode == 0 and "Python:" in result.stdout, result.stderr


def test_make_bench_starts():
    """A round of one family takes minutes."""
    result = run("make bench BENCH=--help")
    assert result.returncode == 0 and "--rounds" in result.stdout, result.stderr


@pytest.mark.parametrize("target", ["test-core", "test-host", "evidence", "test", "check"])
def test_what_is_too_long_to_run_here_is_what_runs(target):
    """test_quick_evidence runs the evidence; these tests are run by `make test` or `make test-host`."""
    dry = run(f"make --dry-run {target}")
    assert dry.returncode == 0, dry.stderr
    expected = {"evidence": "lab/evidence", "check": "ruff check"}.get(target, "-m pytest")
    assert expected in dry.stdout and ("ruff check" in dry.stdout) == (target in ("test", "check"))


@pytest.mark.parametrize("target", ["test-core", "test-host"])
def test_what_needs_no_browser_can_be_collected(target):
    lines = [
        line for line in run(f"make --dry-run {target}").stdout.replace("\\\n", "").splitlines() if "-m pytest" in line
    ]
    assert len(lines) == 2
    for line in lines:
        result = run(f"{line} --collect-only")
        assert result.returncode == 0 and "error" not in result.stdout.lower().splitlines()[-1], result.stdout[-2000:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_way_of_dg_scale_is_as_it_is_told():
    """Each named function stands in its file."""
    steps = re.findall(r"^\| `([\w/]+\.py)`: `([\w.]+)` \|", DEVELOPMENT.read_text(), re.M)
    assert 8 <= len(steps) <= 12
    for file, name in steps:
        *owner, function = name.split(".")
        tree = ast.parse((ROOT / file).read_text())
        for part in (*owner, function):
            found = [each for each in tree.body if getattr(each, "name", None) == part]
            assert found, f"{file}: {name}"
            (tree,) = found


def test_the_layers_of_the_house_are_as_they_are_drawn():
    """Every file that docs/DEVELOPMENT.md names of `dit` is there, and none is left out."""
    (drawn,) = re.findall(r"^    dit/ .*?(?=^    js/)", DEVELOPMENT.read_text(), re.M | re.S)
    named = {word for word in re.findall(r"[a-z_]+", drawn)}
    assert {file.stem for file in (ROOT / "dit").glob("*.py")} - {"__init__", "fingerprint"} <= named


def test_what_users_read_is_short():
    """README and the five pages that it sends them to."""
    pages = [README, *(ROOT / f"docs/{name}.md" for name in ("MODELS", "NEIGHBOURS", "COST", "DEFAULTS", "EVIDENCE"))]
    assert sum(len(page.read_text().split()) for page in pages) <= 8_000
