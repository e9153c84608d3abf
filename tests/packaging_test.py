"""The content of an installation, and the scripts that test it."""

import os
import pathlib
import re
import subprocess
import sys
import zipfile

import fake_run
import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Tracked files of the repository, and a wheel that is built from them."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    tracked = [name for name in listing.stdout.splitlines() if (ROOT / name).exists()]
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked:
        path = folder / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Outside of the package only the names matter, except for what the build reads.
        whole = name.startswith(("uhman_jax/", "pyproject.toml", "README.md", "LICENSE"))
        path.write_bytes((ROOT / name).read_bytes() if whole else b"")
    build = ["-m", "pip", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, *build, "-w", str(folder), str(folder / "source")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = folder.glob("*.whl")
    return tracked, wheel


def test_a_wheel_has_every_file_of_the_package_but_guides(built):
    tracked, wheel = built
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {name for name in tracked if re.match(r"uhman_jax/.*(?<!\.md)$", name)}


def test_every_page_is_rendered_from_a_wheel(built, tmp_path):
    """The explanation, the part of it that the demo shows, and the report."""
    zipfile.ZipFile(built[1]).extractall(tmp_path / "installed")
    workdir, _ = fake_run.make_run(tmp_path, videos=False, num_seeds=1)
    code = """if True:
        import pathlib
        import sys
        import numpy as np
        import uhman_jax
        from uhman_jax.recommend import Profile, page
        from uhman_jax.recommend.occlusion import Why
        from uhman_jax.report import write_report
        assert uhman_jax.__file__.startswith(sys.argv[1])
        why = Why(np.full((1, 4), 0.25), np.ones(1), np.zeros((0, 1, 4)), np.zeros((0, 1)))
        for clip in (pathlib.Path("clip.mp4"), None):
            print(page.render(clip, np.zeros(1), [], [page.Side(Profile(), [], why, [])], {}))
        write_report(sys.argv[2])
    """
    installed = str(tmp_path / "installed")
    result = subprocess.run(
        [sys.executable, "-c", code, installed, workdir],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": installed},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    style = (ROOT / "uhman_jax/report/style.css").read_text().strip()
    report = (workdir / "report.html").read_text("utf-8")
    assert result.stdout.count(style) == 2 and style in report
    assert result.stdout.count("Where it looked") == 2 and "Every setting of the run" in report


@pytest.mark.parametrize("name", ["run", "compile-constraints", "try-newest"])
def test_shellcheck_finds_nothing_in(name):
    shellcheck = pathlib.Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("shellcheck is not installed")
    script = ROOT / ".ci" / name
    result = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
