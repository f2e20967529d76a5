"""The cut-outs that the reference model's pictures are made of: for `make evidence` and `make test`.

Safe to call again, like provision.py.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from provision import HOST, ensure, run

PACKAGE = "tuxpaint-stamps-default"  # of Debian, GPL-2
FOLDER = "usr/share/tuxpaint/stamps"
STAMPS = HOST / "stamps"
COMPLETE = STAMPS / "complete"


def _fetch() -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        sys.exit(
            f"[host] The evidence needs the pictures of Debian's package {PACKAGE}, and there is no apt-get here. "
            f"Unpack {FOLDER} of that package into {STAMPS}, create the file {COMPLETE}, and call this again."
        )
    with tempfile.TemporaryDirectory(dir=HOST) as folder:
        download = ["apt-get", "download", "-qq", PACKAGE]
        if subprocess.run(download, cwd=folder, capture_output=True).returncode != 0:
            if os.geteuid() == 0:  # there may be no list of packages yet
                run("apt-get", "update", "-qq", stdout=subprocess.DEVNULL)
            run(*download, cwd=folder)
        (package,) = Path(folder).glob("*.deb")
        run("dpkg-deb", "-x", package, folder)
        shutil.rmtree(STAMPS, ignore_errors=True)
        shutil.move(Path(folder) / FOLDER, STAMPS)
    COMPLETE.touch()


if __name__ == "__main__":
    ensure(f"cut-outs ({PACKAGE})", COMPLETE.is_file, _fetch)
