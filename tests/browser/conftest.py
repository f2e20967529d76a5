import itertools
import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "tools")]

import provision_page  # noqa: E402
from comfy_page import ComfyPage  # noqa: E402
from comfy_server import Server  # noqa: E402
from playwright.async_api import async_playwright  # noqa: E402

CHROMIUM = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
)
PAGES = {"pinned": (), "newest": ("--front-end-root", str(provision_page.NEWEST_PAGE))}
RENDERERS = {"classic": False, "nodes2": True}
SCREENSHOTS = ROOT / "demo/screenshots"


@pytest.fixture(scope="session", params=itertools.product(PAGES, RENDERERS), ids="-".join)
def combination(request):
    return request.param


@pytest.fixture(scope="session")
async def browser():
    assert provision_page.browser(), "no browser: `make test` installs one, or says how"
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=provision_page.browser(), args=CHROMIUM)
        yield chromium
        await chromium.close()


@pytest.fixture(scope="session")
async def comfy(combination, browser):
    """ComfyUI's page in a browser; each test starts with an empty graph of its own."""
    page, renderer = combination
    settings = {"Comfy.TutorialCompleted": True, "Comfy.VueNodes.Enabled": RENDERERS[renderer]}
    async with Server(PAGES[page], page_settings=settings) as server:
        opened = await ComfyPage.open(browser, server, SCREENSHOTS, f"{page}_{renderer}")
        yield opened
        await opened.page.close()


@pytest.fixture
async def alone(comfy, browser):
    """A page that has shown nothing else: 1.32's Nodes 2.0 lays a second workflow out anew, and the newest page shows
    the pictures of earlier ones, on nodes of the same number."""
    opened = await ComfyPage.open(browser, comfy.server, comfy.screenshots, comfy.name)
    yield opened
    await opened.page.close()


@pytest.fixture(scope="session")
async def server_without_javascript(tmp_path_factory):
    """A host that has this pack without its `js`, and the reference model."""
    base = tmp_path_factory.mktemp("base")
    custom_nodes = base / "custom_nodes"
    for folder in ("dit", "methods", "nodes"):
        shutil.copytree(ROOT / folder, custom_nodes / "detail-guidance" / folder)
    shutil.copy(ROOT / "__init__.py", custom_nodes / "detail-guidance")
    (custom_nodes / "reference-model").symlink_to(ROOT / "tests/reference_model")
    async with Server(base=base, page_settings={"Comfy.TutorialCompleted": True}) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def screenshots():
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
