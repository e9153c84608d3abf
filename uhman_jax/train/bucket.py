"""Checkpoints in a bucket: each a folder of objects, of which the seal is uploaded last.

Orbax writes and reads a folder of this machine, and whole checkpoints are copied. A checkpoint
without its seal is one whose upload, or removal, was cut off: it counts as not there.
"""

import pathlib
import shutil

SEAL = "crc32c.json"


def fetch(remote: pathlib.Path, local: pathlib.Path) -> None:
    """Copies all sealed checkpoints of a bucket's folder to a local one, each whole."""
    for step in _steps(remote):
        folder = remote / str(step)
        partial = local / f".{step}"
        for name in folder.sizes():  # type: ignore[missing-attribute]
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).download(partial / name)  # type: ignore[missing-attribute]
        if (partial / SEAL).exists():
            partial.rename(local / str(step))
        else:
            shutil.rmtree(partial, ignore_errors=True)


def send(local: pathlib.Path, remote: pathlib.Path, step: int, keep: int) -> None:
    """Uploads the checkpoint of a step, then removes all but the newest.

    Args:
        local: its files, the seal among them.
        remote: folder of all checkpoints.
        step: of this one; one of the same step is removed first.
        keep: how many stay.
    """
    _remove(remote / str(step))
    files = [path for path in sorted(local.rglob("*")) if path.is_file()]
    for path in sorted(files, key=lambda path: path == local / SEAL):
        (remote / str(step) / path.relative_to(local).as_posix()).upload(path)  # type: ignore[missing-attribute]
    for other in _steps(remote)[:-keep]:
        _remove(remote / str(other))


def _steps(remote: pathlib.Path) -> list[int]:
    """Steps that have an object, in order."""
    return sorted(int(path.name) for path in remote.iterdir() if path.name.isdigit())


def _remove(folder: pathlib.Path) -> None:
    """Removes a checkpoint, the seal first."""
    names = folder.sizes()  # type: ignore[missing-attribute]
    for name in sorted(names, key=lambda name: name != SEAL):
        (folder / name).unlink(missing_ok=True)
