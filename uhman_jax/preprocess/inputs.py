"""Which files of a folder are clips."""

import sys
from collections.abc import Iterable
from pathlib import Path

from uhman_jax import storage
from uhman_jax.errors import UserError

_NOT_VIDEOS = {".csv", ".json", ".jsonl", ".txt", ".md", ".html", ".parquet", ".h5", ".npz"}
_SHARD = ".tfrecord-"


def list_inputs(root: Path) -> list[tuple[str, str]]:
    """(video_id, path) of the videos that videos.csv lists; without it, of every file below root.

    Raises:
        UserError: root is no folder, or the tables cannot be used.
    """
    if not root.is_dir():
        raise UserError(f"--root must be a folder of videos, got {str(root)!r}; correct the path")
    if (root / "videos.csv").exists():
        from uhman_jax.dataset.raw import read_raw_dataset

        raw = read_raw_dataset(root, strict=False, check_files=False)
        for problem in raw.problems:
            print(problem, file=sys.stderr)
        return [(video.video_id, video.path) for video in raw.videos]
    return [(name, name) for name in files_below(root)]


def files_below(root: Path) -> list[str]:
    """Paths below a folder that may be clips, relative to it, sorted.

    Hidden files and folders, the folder `features`, and tables, texts and shards are left out.
    """
    found = []
    for name in storage.files_below(root):
        hidden = any(part.startswith(".") for part in name.parts)
        if hidden or name.parts[0] == "features" or name.suffix.lower() in _NOT_VIDEOS:
            continue
        if _SHARD in name.name:  # features that were written below the clips
            continue
        found.append(name.as_posix())
    return found


def clips_of(names: Iterable[str]) -> list[str]:
    """The files that are named, and those of the folders that are.

    Raises:
        UserError: there are none, or a name is of nothing.
    """
    clips: list[str] = []
    for name in names:
        path = Path(name)
        if not name:
            raise UserError("--video must name a file or a folder, got an empty name; write one")
        if path.is_dir():
            inside = [str(path / clip) for clip in files_below(path)]
            if not inside:
                raise UserError(f"a folder of clips must hold a file, got {name!r}; name another")
            clips += inside
        elif path.exists():
            clips.append(name)
        else:
            raise UserError(f"--video must name a file or a folder, got {name!r}; correct the path")
    if not clips:
        raise UserError("suggestions need a clip, got none; write e.g. --video=clip.mp4")
    return clips
