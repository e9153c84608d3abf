"""Composes shell scripts, which are printed or run."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from uhman_jax.runtime.errors import UserError, exit_on_user_error

_CONTINUED = " \\\n  "
HEAD = "#!/usr/bin/env bash\nset -euo pipefail\n"


def command(*words: str, redirect: str = "") -> str:
    """Returns one quoted command; a long one has a line per flag.

    >>> print(command("echo", "a b", redirect="> log"))
    echo 'a b' > log
    """
    lines = [""]
    for word in words:
        if word.startswith("--"):
            lines.append("")
        lines[-1] += " " * bool(lines[-1]) + shlex.quote(word)
    long = sum(map(len, lines)) + len(lines) > 100
    return f"{(_CONTINUED if long else ' ').join(filter(None, lines))} {redirect}".rstrip()


def here_document(text: str) -> str:
    r"""Returns a redirection that passes this text, unchanged, to a command.

    >>> print(here_document("one\n"))
    <<'EOF'
    one
    EOF
    """
    return f"<<'EOF'\n{text.rstrip()}\nEOF"


def run_verb(
    scripts: Callable[[list[str]], Mapping[str, list[str]]],
    argv: list[str],
    mistake: str,
    dry_run: bool,
) -> NoReturn:
    """Runs the script of the verb in `argv` and exits with its status, or with an error message.

    Args:
        scripts: returns the commands of each verb, given the arguments after the verb.
        argv: the program's name, the verb and its arguments.
        mistake: error message, "" if there is none.
        dry_run: whether to print the script instead of running it.
    """
    verbs, given = scripts(argv[2:]), argv[1] if len(argv) > 1 else "none"
    if given not in verbs:
        mistake = f"the verb must be one of {', '.join(verbs)}, got {given}; see --help"
    with exit_on_user_error():
        if mistake:
            raise UserError(mistake)
    text = HEAD + "\n".join(verbs[given]) + "\n"
    if not dry_run:
        sys.exit(subprocess.run(["bash", "-c", text]).returncode)
    print(text, end="")
    sys.exit(0)
