"""What an installation contains, and the scripts that try it."""

import pathlib
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def test_a_wheel_has_every_file_of_the_package_and_no_other(tmp_path):
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    tracked = [name for name in listing.stdout.splitlines() if (ROOT / name).exists()]
    source = tmp_path / "source"
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        # Empty but for what the build reads: only the names matter.
        whole = name in ("pyproject.toml", "README.md", "LICENSE", "uhman_jax/__init__.py")
        (source / name).write_bytes((ROOT / name).read_bytes() if whole else b"")
    build = ["-m", "pip", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, *build, "-w", str(tmp_path / "wheel"), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("wheel/*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {name for name in tracked if name.startswith("uhman_jax/")}


@pytest.mark.parametrize("name", ["run", "compile-constraints", "try-newest"])
def test_shellcheck_finds_nothing_in(name):
    shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("shellcheck is not installed")
    script = ROOT / ".ci" / name
    result = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
