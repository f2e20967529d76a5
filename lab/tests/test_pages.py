"""The pages of `make evidence`, by quick runs of all of it."""

import re
import subprocess

import objects
import provision
import pytest
import short_page
from PIL import Image


def test_a_quick_run_does_not_overwrite_the_page():
    command = [provision.comfyui_python(), "lab/evidence", "--quick"]
    result = subprocess.run(command, cwd=provision.ROOT, env=provision.environment(), capture_output=True, text=True)
    assert result.returncode == 2 and "--out" in result.stderr


@pytest.mark.skipif(
    not objects.DRAWINGS.is_dir(), reason="the drawings come with the JavaScript packages: `make check`"
)
def test_quick_evidence(tmp_path):
    command = [provision.comfyui_python(), "lab/evidence", "--quick", "--out", tmp_path]
    result = subprocess.run(command, cwd=provision.ROOT, env=provision.environment(), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    page = (tmp_path / "EVIDENCE.md").read_text()
    assert "quick run" in page and not re.search(r"\b(nan|inf)\b", page)
    sections = page.split("\n## ")[1:]
    assert [section.partition(".")[0] for section in sections] == [str(number) for number in range(1, 14)]
    for section in sections:
        assert re.search(
            r"^- \*\*.+: (holds|holds in part|contradicted|inconclusive|not testable here|measured)\.\*\*",
            section,
            re.M,
        )
        assert "|---|" in section.replace(" ", "")
        figures = re.findall(r"\]\((evidence/.+\.png)\)", section)
        assert figures
        for figure in figures:
            with Image.open(tmp_path / figure) as picture:
                assert picture.convert("L").getextrema() != (255, 255)
    committed = (provision.ROOT / "lab/pages/EVIDENCE.md").read_text()
    assert re.findall(r"^## .+", committed, re.M) == re.findall(r"^## .+", page, re.M)


def model_page(*arguments):
    command = [provision.comfyui_python(), "lab/evidence", "--size", "128", "--steps", "2", *arguments]
    return subprocess.run(command, cwd=provision.ROOT, env=provision.environment(), capture_output=True, text=True)


def test_a_page_of_another_model(tmp_path):
    result = model_page("--model", "10x192", "--prompts", "brick wall | wood planks", "--out", tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "27 pictures of 2 steps: about 127 forwards" in result.stdout  # 27 · 2 · 2, and 2 · 3 · 1.6 · 2
    page = (tmp_path / "EVIDENCE.md").read_text()
    assert "channel" in page and "reference" not in page and not re.search(r"\b(nan|inf)\b", page)
    layers = re.findall(r"^\| (0\.\d+) \| (\S+) \| (.+?) \|", page, re.M)
    assert len(layers) == 12
    strengths = {(layer, w): float(found.split()[0]) for layer, w, found in layers if found[0].isdigit()}
    assert strengths["0.7", "0.5"] > 1.5 * strengths["0.7", "0.25"] > 0
    for figure in re.findall(r"\]\((evidence/.+\.png)\)", page):
        with Image.open(tmp_path / figure) as picture:
            assert picture.convert("L").getextrema() != (255, 255)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "nothing.safetensors", "--prompts", "a"], "no model 'nothing.safetensors'. There are:.*10x192"),
        (["--model", "10x192"], "--prompts is empty"),
        (["--model", "10x192", "--prompts", "a unicorn"], "does not know the words a, unicorn"),
    ],
)
def test_what_another_models_page_needs(arguments, message, tmp_path):
    result = model_page(*arguments, "--out", tmp_path)
    assert result.returncode != 0 and re.search(message, result.stderr)
    assert not (tmp_path / "EVIDENCE.md").exists()


def test_the_page_for_people_is_the_full_pages(tmp_path):
    full, page = short_page.FULL.read_text(), short_page.SHORT.read_text()
    assert page == short_page.short(full), "run lab/evidence/short_page.py"
    claims = re.findall(r"^- \*\*(.+): [^:*]+\.\*\*", full, re.M)
    assert page.count("\n|") - 2 * page.count("\n## ") == len(claims) > 50, "every claim is there"
