"""What the tests of the page need besides the host: a browser, the newest page, JavaScript packages: for `make test`.

Safe to call again, like provision.py.
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
VITEST = JAVASCRIPT / "node_modules/.bin/vitest"


def browser() -> Path | None:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        return Path(found)
    return BROWSER_OF_A_MAC if BROWSER_OF_A_MAC.is_file() else None


def provision() -> None:
    ensure(
        f"the newest page ({NEWEST_PAGE_WHEEL})",
        lambda: unpacked(NEWEST_PAGE_WHEEL, PAGE_IN_WHEEL, NEWEST_PAGE),
        lambda: unpack(NEWEST_PAGE_WHEEL, PAGE_IN_WHEEL, NEWEST_PAGE),
    )
    ensure("a browser", lambda: browser() is not None, _install_browser)
    ensure("the tests' JavaScript packages", _javascript_ready, _install_javascript)


def _install_browser() -> None:
    is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    if not is_root or shutil.which("apt-get") is None:
        sys.exit(
            "[host] The tests of the page need Chromium or Chrome, and neither is on the PATH. Install one (Debian: "
            "`apt install chromium`), or run the other tests: see README, Development."
        )
    run("apt-get", "update", "-qq", stdout=subprocess.DEVNULL)
    run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "chromium", stdout=subprocess.DEVNULL)


def _javascript_ready() -> bool:
    lock = JAVASCRIPT / "package-lock.json"
    if not VITEST.exists() or lock.read_bytes() != (JAVASCRIPT_TESTS / lock.name).read_bytes():
        return False
    return subprocess.run([VITEST, "--version"], capture_output=True).returncode == 0


def _install_javascript() -> None:
    if shutil.which("npm") is None:
        sys.exit(
            "[host] The tests of the page's code need Node.js 20 or newer with npm, and there is no npm on the PATH. "
            "Install it (Debian: `apt install nodejs npm`), or run the other tests: see README, Development."
        )
    JAVASCRIPT.mkdir(exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(JAVASCRIPT_TESTS / file, JAVASCRIPT / file)
    run("npm", "ci", "--silent", "--no-audit", "--no-fund", cwd=JAVASCRIPT)


if __name__ == "__main__":
    provision()
