"""`comfy node validate`: what the registry checks before it takes a version, for `make check`.

Its packages lie in a folder of their own: they are not the host's. Once they are there it needs no network.
"""

import os
import subprocess
import sys

from provision import HOST, comfyui_python, ensure, run

REQUIREMENT = "comfy-cli==1.23.0"  # as in .github/workflows/publish.yml
PACKAGES = HOST / "comfy-cli"
INSTALLED = PACKAGES / REQUIREMENT  # an empty file that is written last
PASSED = "All validation checks passed"


def install() -> None:
    run(comfyui_python(), "-m", "pip", "install", "--quiet", "--upgrade", "--target", PACKAGES, REQUIREMENT)
    INSTALLED.touch()


def main() -> None:
    ensure(REQUIREMENT, INSTALLED.is_file, install)
    command = [comfyui_python(), "-m", "comfy_cli", "--skip-prompt", "--no-enable-telemetry", "node", "validate"]
    environment = os.environ | {"PYTHONPATH": str(PACKAGES), "HOME": str(PACKAGES)}  # it writes settings to its home
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(result.stdout, end="")
    # Odd values are but warnings to it, with which it publishes and leaves the value out.
    if result.returncode or PASSED not in result.stdout or "Warning" in result.stdout:
        sys.exit("comfy node validate: pyproject.toml or the code has what the registry does not take.")


if __name__ == "__main__":
    main()
