"""Shell scripts that are printed or run: both are the same text."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

_GO_ON = " \\\n  "
HEAD = "#!/usr/bin/env bash\nset -euo pipefail\n"


def command(*words: str, redirect: str = "") -> str:
    """Returns one command, quoted; a long one over several lines.

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
    r"""Returns a redirection that gives a command this text as it is.

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


def run_verb(
    verbs: Mapping[str, Callable[[list[str]], list[str]]],
    argv: Sequence[str],
    mistake: str,
    dry_run: bool,
) -> NoReturn:
    """Launches the script of the verb in `argv`, or says what is wrong; ends the process."""
    given = argv[1] if len(argv) > 1 else "none"
    if given not in verbs:
        sys.exit(f"say what to do, one of {', '.join(verbs)}, got {given}; see --help")
    sys.exit(mistake or launch(verbs[given](list(argv[2:])), dry_run))
