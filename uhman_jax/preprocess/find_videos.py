"""Finds the clips of a folder."""

import collections
import sys
from collections.abc import Iterable
from pathlib import Path

from uhman_jax.preprocess.clip_file import FRAME_TIMES, printable
from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

# Suffixes of the containers and streams that FFmpeg decodes as video. The last two are for files of
# unknown container, from yt-dlp and our list for aria2c. Audio, subtitles, images, partial
# downloads, links and tables beside clips have other suffixes.
VIDEO_SUFFIXES = frozenset(
    "3g2 3gp 3gp2 3gpp 264 265 amv asf avi avc dav divx dv dvr-ms f4v flv gif gifv h264 h265 hevc "
    "insv ismv ivf m1v m2p m2t m2ts m2v m4v mj2 mjpeg mjpg mk3d mkv mod mov mp2v mp4 mp4v mpe mpeg "
    "mpg mpv mts mxf nsv nut obu ogm ogv qt rm rmvb rv tod tp trp ts vob vro webm wmv wtv xvid y4m "
    "unknown_video video".split()
)
# Rule 1 (see `list_inputs`) takes all files except these; old features folders still use it.
_NOT_VIDEOS = {".csv", ".json", ".jsonl", ".txt", ".md", ".html", ".parquet", ".h5", ".npz"}


def list_inputs(root: Path, rule: int = FRAME_TIMES) -> list[tuple[str, str]]:
    """Returns (video_id, path) of the videos in videos.csv; without it, of the clips below root.

    It prints the number of other files on standard error.

    Args:
        root: the folder.
        rule: `ledger.frame_times` of the features folder; 1: every file except tables and texts is
            a clip, and version 1 of `dataset.rules` applies to the tables.

    Raises:
        UserError: root is not a folder, or the tables cannot be used.
    """
    if not root.is_dir():
        raise UserError(f"--root must be a folder of videos, got {str(root)!r}; correct the path")
    if (root / "videos.csv").exists():
        from uhman_jax.dataset.raw import read_raw_dataset
        from uhman_jax.dataset.rules import CURRENT

        rules = 1 if rule == 1 else CURRENT
        raw = read_raw_dataset(root, strict=False, check_files=False, rules=rules)
        for problem in raw.problems:
            print(problem, file=sys.stderr)
        return [(video.video_id, video.path) for video in raw.videos]
    names, others = _clips(root)
    if rule == 1:
        return [(_id_by_rule_1(name), name) for name in sorted([*names, *others], key=Path)]
    if others:
        kinds = collections.Counter(Path(name).suffix.lower() for name in others)
        listing = ", ".join(f"{n} {kind or 'without one'}" for kind, n in kinds.most_common(5))
        print(
            f"{len(others)} {'file does' if len(others) == 1 else 'files do'} not have a video "
            f"suffix ({printable(listing)}{', ...' if len(kinds) > 5 else ''}); a file named in "
            "videos.csv is tried whatever its suffix",
            file=sys.stderr,
        )
    return [(printable(name), name) for name in names]


def _id_by_rule_1(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        return printable(name)
    return name


def files_below(root: Path) -> list[str]:
    """Returns the sorted paths of the clips below a folder, relative to it.

    A clip is a file with the suffix of a container that FFmpeg decodes as video. Hidden files and
    folders, the folder `features` and shards are left out.
    """
    return _clips(root)[0]


def _clips(root: Path) -> tuple[list[str], list[str]]:
    """Returns names of the clips below a folder, and of other files except tables and texts."""
    clips, others = [], []
    for name in storage.files_below(root):
        suffix, hidden = name.suffix.lower(), any(part.startswith(".") for part in name.parts)
        # Features may have been written below the clips.
        if hidden or name.parts[0] == "features" or ".tfrecord-" in name.name:
            continue
        if suffix[1:] in VIDEO_SUFFIXES:
            clips.append(name.as_posix())
        elif suffix not in _NOT_VIDEOS:
            others.append(name.as_posix())
    return clips, others


def clips_of(names: Iterable[str]) -> list[str]:
    """Returns the named files, and the clips below the named folders.

    Raises:
        UserError: there is no clip, or a name does not exist.
    """
    clips: list[str] = []
    for name in names:
        path = Path(name)
        if not name:
            raise UserError("--video must name a file or a folder, got an empty name; write one")
        if path.is_dir():
            inside = [str(path / clip) for clip in files_below(path)]
            if not inside:
                raise UserError(
                    f"a folder of clips must hold a video (.mp4, .webm, ...), got {name!r}; name "
                    "another, or a file, which is tried whatever its suffix"
                )
            clips += inside
        elif path.exists():
            clips.append(name)
        else:
            raise UserError(f"--video must name a file or a folder, got {name!r}; correct the path")
    if not clips:
        raise UserError("suggestions need a clip, got none; write e.g. --video=clip.mp4")
    return clips
