"""The walls between rooms, and the checks that keep the code in one style."""

import pathlib
import re
import subprocess
import sys
import time
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TESTED_ELSEWHERE = {
    *("__init__", "errors", "bucket_path", "config_checks"),
    *("cpu", "gpu", "video_input"),  # by region_projection_test and layers_test
}
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "LICENSE"),
    *("uhman_jax", "configs", "experiments", "tests", "tools"),
}


def run(*command: str) -> subprocess.CompletedProcess:
    """Runs a tool of the test environment in the repository."""
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
    )


def tracked_files() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return listing.stdout.splitlines()


@pytest.mark.parametrize(
    "command",
    [
        ["-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        ["-m", "ruff", "check", "."],
        ["-m", "ruff", "format", "--check", "."],
        ["-m", "pyrefly", "check", "--python-interpreter-path", sys.executable],
    ],
    ids=["walls", "lint", "format", "types"],
)
def test_tool_finds_nothing(command):
    result = run(*command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_top_level_is_as_designed():
    names = {name.split("/")[0] for name in tracked_files()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_every_library_module_has_a_test_file():
    tests = {path.name for path in (ROOT / "tests").glob("*_test.py")}
    for room in ("", "models", "kernels", "runtime"):
        for path in (ROOT / "uhman_jax" / room).glob("*.py"):
            if path.stem not in TESTED_ELSEWHERE:
                assert f"{path.stem}_test.py" in tests, path


def test_pins_cover_every_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = (ROOT / ".ci" / "constraints.txt").read_text().lower().replace("_", "-")
    declared = project["dependencies"] + project["optional-dependencies"]["test"]
    for requirement in declared:
        name = re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-")
        if name != "tensorflow":  # the other half of a platform choice
            assert re.search(rf"^{re.escape(name)}==", pins, re.M), f"{name} has no pin"


def test_help_is_quick_and_imports_no_heavy_library():
    started = time.monotonic()
    result = run("-X", "importtime", "-m", "uhman_jax.main", "--help")
    assert time.monotonic() - started < 15, "a generous bound; a benchmark measures the 3 s"
    assert "--config" in result.stdout
    for heavy in ("tensorflow", "jax", "flax", "av"):
        assert not re.search(rf"\|\s+{heavy}$", result.stderr, re.M), f"--help imports {heavy}"


def test_every_test_that_the_guide_names_exists():
    page = (ROOT / "tests" / "README.md").read_text()
    module, named = "", 0
    for path, name in re.findall(r"\]\(([\w/]+\.py)\)|`::(test_\w+)`", page):
        module = path or module
        if name:
            assert f"\ndef {name}(" in (ROOT / "tests" / module).read_text(), (module, name)
            named += 1
    assert named > 20


def test_every_file_that_a_readme_links_to_exists():
    for file in tracked_files():
        if file.endswith(".md"):
            for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / file).read_text()):
                assert (ROOT / file).parent.joinpath(link).exists(), (file, link)
