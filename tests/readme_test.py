"""Every command of every README: the module exists and knows every flag as written.

`readme_commands_test.py` runs the commands; `own_clips_test.py` runs the five steps on real clips.
"""

import pathlib
import re
import shlex
import subprocess
import sys

import pytest

from uhman_jax.config import Config, flatten

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("uhman_jax", "configs", "tools", "tests", "experiments")
PAGES = [
    ROOT / "README.md",
    *(page for room in ROOMS for page in sorted((ROOT / room).rglob("README.md"))),
]


def commands():
    """Words after `python -m` of each command, by the page that has it."""
    found = []
    for page in PAGES:
        for line in page.read_text().splitlines():
            if match := re.match(r"^ {4,}(?:.*&& )?(?:\.venv/bin/)?python -m (.*)$", line):
                words = shlex.split(match[1], comments=True)
                if words[0] not in ("venv", "pytest"):
                    found.append((page.relative_to(ROOT).as_posix(), words))
    return found


COMMANDS = commands()
MODULES = sorted({words[0] for _, words in COMMANDS})


def test_the_readme_is_read_in_three_minutes():
    assert len((ROOT / "README.md").read_text().split()) <= 900


def test_the_pages_have_commands():
    assert len(COMMANDS) > 15
    for module in ("main", "preprocess", "recommend", "demo"):
        assert f"uhman_jax.{module}" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_commands_use_existing_flags(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--helpfull"], cwd=ROOT, capture_output=True, text=True
    )
    known = set(re.findall(r"--(?:\[no\])?([\w.]+)", done.stdout + done.stderr))
    known |= {f"config.{field}" for field in flatten(Config())}
    for page, (name, *words) in COMMANDS:
        own = words[: words.index("--")] if "--" in words else words
        flags = [word[2:].split("=")[0] for word in own if word.startswith("--")]
        for flag in flags if name == module else ():
            beam = flag.startswith("direct_")  # an option of Beam
            assert flag in known or beam, f"{page}: {' '.join(words)}: no flag --{flag}"


def test_configs_that_commands_name_exist():
    for page, words in COMMANDS:
        for word in words:
            if match := re.match(r"--config=(.+)", word):
                assert (ROOT / match[1]).is_file(), (page, word)
