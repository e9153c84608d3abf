"""A shell script that is printed or run: both are the same text."""

import shlex
import subprocess
import sys
from collections.abc import Sequence

_GO_ON = " \\\n  "
HEAD = "#!/usr/bin/env bash\nset -euo pipefail\n"


def command(*words: str, redirect: str = "") -> str:
    """One command, quoted, a long one over several lines.

    >>> print(command("echo", "a b", redirect="> log"))
    echo 'a b' > log
    """
    lines = [""]
    for word in words:
        if word.startswith("--"):
            lines.append("")
        lines[-1] += " " * bool(lines[-1]) + shlex.quote(word)
    long = sum(map(len, lines)) + len(lines) > 100
    return f"{(_GO_ON if long else ' ').join(filter(None, lines))} {redirect}".rstrip()


def here_document(text: str) -> str:
    r"""A redirection that gives a command this text, taken as it is.

    >>> print(here_document("one\n"))
    <<'EOF'
    one
    EOF
    """
    return f"<<'EOF'\n{text.rstrip()}\nEOF"


def launch(lines: Sequence[str], dry_run: bool) -> int:
    """Prints the script, or runs it; returns its exit status."""
    text = HEAD + "\n".join(lines) + "\n"
    if dry_run:
        print(text, end="")
        return 0
    return subprocess.run(["bash", "-c", text], stdin=sys.stdin).returncode
