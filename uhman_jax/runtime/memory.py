"""Finds the memory that this process may use."""

import contextlib
import os
import pathlib


def machine_memory() -> int:
    """Returns the bytes that this process may use; containers and jobs set limits by cgroups."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers in ("", "memory"):
                root = pathlib.Path("/sys/fs/cgroup", controllers)
                file = "memory.limit_in_bytes" if controllers else "memory.max"
                limits += _limits(root, name.strip("/"), file)
    return min(limits)


def _limits(root: pathlib.Path, name: str, file: str) -> list[int]:
    """Returns the limits of a control group and its parents; "max" is no limit."""
    folders = [root / name, *(root / name).parents]
    found = []
    for folder in folders[: 1 + len(pathlib.PurePath(name).parts)]:
        with contextlib.suppress(OSError, ValueError):
            found.append(int((folder / file).read_text("utf-8")))
    return found
