"""A broken or half-finished provisioning is noticed and repaired."""

import provision
import pytest

WHEEL, FOLDER = provision.TEXTURES_WHEEL, provision.TEXTURES_IN_WHEEL


def test_files_of_a_wheel(tmp_path):
    target = tmp_path / "textures"
    assert not provision.unpacked(WHEEL, FOLDER, target)
    provision.unpack(WHEEL, FOLDER, target)
    assert provision.unpacked(WHEEL, FOLDER, target)
    brick = target / "brick_wall_1.png"
    whole = brick.read_bytes()
    for damage in (lambda: brick.unlink(), lambda: brick.write_bytes(whole[:1000])):
        damage()
        assert not provision.unpacked(WHEEL, FOLDER, target)
        provision.unpack(WHEEL, FOLDER, target)
        assert brick.read_bytes() == whole


def test_what_a_python_has_is_not_installed_again(tmp_path, monkeypatch):
    """The tests' packages beside a Python of the user's must not shadow its own, torch first of all."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("torch\npytest\n")
    assert provision.missing(provision.comfyui_python(), requirements) == []


def test_a_half_downloaded_wheel_is_fetched_again(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # "fetched" from the cache of the provisioned host
    monkeypatch.setenv("PIP_FIND_LINKS", str(provision.HOST / "cache"))
    monkeypatch.setattr(provision, "HOST", tmp_path)
    (tmp_path / "cache").mkdir()
    broken = tmp_path / "cache/miniworld-2.1.0-py3-none-any.whl"
    broken.write_bytes(b"half a download")
    assert provision._wheel(WHEEL).stat().st_size > 1_000_000


def test_a_missing_or_other_version_of_a_package(tmp_path, capfd):
    requirements = tmp_path / "requirements.txt"
    python = provision.comfyui_python()
    requirements.write_text("# a comment\npytest==0.0.1\n")
    assert not provision._pins_installed(python, requirements)
    requirements.write_text("no-such-package-of-ours==1.0\n")
    assert not provision._pins_installed(python, requirements)
    assert "no-such-package-of-ours: nothing is installed, 1.0 is wanted" in capfd.readouterr().err
    assert not provision._pins_installed(tmp_path / "no/python", requirements)


def test_folders_that_hold_no_comfyui(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match=r"there is no ComfyUI \(no main.py\)"):
        provision.provision()
    monkeypatch.delenv("COMFYUI_DIR")
    monkeypatch.setenv("COMFYUI_PYTHON", str(tmp_path / "python"))
    with pytest.raises(SystemExit, match=r"COMFYUI_PYTHON is .*: no such file"):
        provision.provision()
