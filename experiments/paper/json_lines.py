"""Files with one JSON object per line."""

import json
import pathlib
from collections.abc import Iterable
from typing import Any

from uhman_jax.runtime.storage import atomic_write


def read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the objects of a file, and none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def write_lines(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replaces the file in one step, so that it is never half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
