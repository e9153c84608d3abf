"""Every command of every README: the module exists and knows every flag as written.

`readme_commands_test.py` runs the commands.
"""

import pathlib
import re
import shlex

import pytest
from command_flags import flags_of

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


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_command_uses_existing_flags_and_configs(page, command):
    module, *words = command
    for word in words[: words.index("--")] if "--" in words else words:
        flag, _, value = word.partition("=")
        if flag.startswith("--") and not flag.startswith("--direct_"):  # an option of Beam
            assert flag[2:] in flags_of(module), f"{page}: {module} has no flag {flag}"
        assert flag != "--config" or (ROOT / value).is_file(), (page, word)
