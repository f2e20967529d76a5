"""What the tests of the page need besides the host: a browser, the newest page, JavaScript packages: for `make test`.

Safe to call again, like provision.py. With the argument `javascript` only the packages: `make check` needs no browser.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from provision import HOST, ROOT, ensure, run, unpack, unpacked

NEWEST_PAGE_WHEEL = "comfyui-frontend-package==1.58.1"  # the host pins 1.32.9
PAGE_IN_WHEEL = "comfyui_frontend_package/static"
NEWEST_PAGE = HOST / "page"

BROWSERS = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
BROWSER_OF_A_MAC = Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")

JAVASCRIPT_TESTS = ROOT / "tests/javascript"
JAVASCRIPT = HOST / "javascript"  # packages beside the sources would be searched by every tool
NODE = 20  # the oldest that Vitest runs on
VITEST = JAVASCRIPT / "node_modules/.bin/vitest"


def browser() -> Path | None:
    """A browser that starts: what is called one may be a stub that asks to install it."""
    candidates = [Path(found) for found in map(shutil.which, BROWSERS) if found] + [BROWSER_OF_A_MAC]
    return next((candidate for candidate in candidates if _answers(candidate)), None)


def provision(javascript_only: bool) -> None:
    ensure("JavaScript packages and drawings (76 MB)", _javascript_ready, _install_javascript)
    if javascript_only:
        return
    ensure(
        f"the newest page ({NEWEST_PAGE_WHEEL})",
        lambda: unpacked(NEWEST_PAGE_WHEEL, PAGE_IN_WHEEL, NEWEST_PAGE),
        lambda: unpack(NEWEST_PAGE_WHEEL, PAGE_IN_WHEEL, NEWEST_PAGE),
    )
    ensure("a browser", lambda: browser() is not None, _install_browser)


def _answers(program: Path) -> bool:
    try:
        return subprocess.run([program, "--version"], capture_output=True).returncode == 0
    except OSError:  # missing, or damaged
        return False


def _install_browser() -> None:
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root or shutil.which("apt-get") is None:
        sys.exit(
            "[host] The tests of the page need Chromium or Chrome, and neither is on the PATH. Install one (Debian: "
            "`apt install chromium`), or run the other tests: `make test-host`."
        )
    run("apt-get", "update", "-qq", stdout=subprocess.DEVNULL)
    run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium", stdout=subprocess.DEVNULL)


def _javascript_ready() -> bool:
    lock = JAVASCRIPT / "package-lock.json"
    wanted = (JAVASCRIPT_TESTS / lock.name).read_bytes()
    return lock.is_file() and lock.read_bytes() == wanted and _answers(VITEST)


def _install_javascript() -> None:
    node = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout if shutil.which("node") else ""
    if shutil.which("npm") is None or int(node.strip().lstrip("v").partition(".")[0] or 0) < NODE:
        sys.exit(
            f"[host] The page's code is tested with Node.js {NODE} or newer and npm, found: {node.strip() or 'none'}. "
            "Install it (nodejs.org, or your system's packages), or run the other tests: `make test-host`."
        )
    JAVASCRIPT.mkdir(exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(JAVASCRIPT_TESTS / file, JAVASCRIPT / file)
    run("npm", "ci", "--silent", "--no-audit", "--no-fund", cwd=JAVASCRIPT)


if __name__ == "__main__":
    provision(javascript_only=sys.argv[1:] == ["javascript"])
