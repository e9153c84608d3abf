"""Reads and writes the truth about a simulated dataset: its hashtag probabilities and object boxes.

ROOT/simulated.json          the settings; written last, so it marks a complete dataset
ROOT/truth/world.json        hashtags and video ids of the tables, and the names of the tables
ROOT/truth/probability.npy   p(hashtag | clip, user), float32 [V, T]
ROOT/truth/observable.npy    the same averaged over all that a model cannot observe
ROOT/truth/content.npy       p(hashtag | clip), averaged over users
ROOT/truth/user.npy          p(hashtag | observable data of the user), averaged over clips
ROOT/truth/objects.parquet   a row per video, object and grid time at which the object is visible
ROOT/truth/clips.parquet     a row per video: its objects, the user's preferences, the tagged object
"""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uhman_jax.runtime import storage
from uhman_jax.runtime.errors import UserError

MARKER = "simulated.json"
SIMULATED_FEATURES = Path("features") / "simulated"  # folder of the features, if there are no clips
_TABLES = ("probability", "observable", "content", "user")
TIME_TOLERANCE = 0.1 + 1e-6  # seconds; half the distance between grid times

OBJECTS_SCHEMA = pa.schema(
    [("video_id", pa.string()), ("object", pa.int32()), ("class_name", pa.string())]
    + [(name, pa.float32()) for name in ("time_s", "x0", "y0", "x1", "y1")]
)
CLIPS_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("object", pa.int32()),  # the tagged object; -1: none or all objects
        ("class_names", pa.list_(pa.string())),  # of the clip's objects
        ("affinity", pa.list_(pa.float32())),  # the user's preference logit for each object
    ]
)


@dataclasses.dataclass(frozen=True)
class Truth:
    """The truth about a simulated dataset.

    Attributes:
        hashtags: columns of the tables.
        video_ids: rows of the tables.
        probability_VT: float32, true p(hashtag is attached | clip, user).
        observable_VT: float32, its mean given all that a model can observe, see
            `simulator.observable_oracle`.
        content_VT: float32, its mean given only the clip, see `simulator.marginal_oracles`; None in
            datasets of earlier versions.
        user_VT: float32, its mean given only the observable data of the user; or None.
        objects: columns of OBJECTS_SCHEMA; boxes are fractions of the frame, origin top left.
        clips: columns of CLIPS_SCHEMA, in the order of `video_ids`.
    """

    hashtags: tuple[str, ...]
    video_ids: tuple[str, ...]
    probability_VT: np.ndarray
    observable_VT: np.ndarray
    objects: pa.Table
    clips: pa.Table
    content_VT: np.ndarray | None = None
    user_VT: np.ndarray | None = None

    def rows(self, video_ids) -> np.ndarray:
        """Returns the row of each video, int64.

        Raises:
            UserError: a video is not in this dataset.
        """
        missing = [video_id for video_id in video_ids if video_id not in self._row]
        if missing:
            raise UserError(
                f"every video must be one of the simulated ones, got {missing[0]!r}; "
                "evaluate on the dataset that the run was trained on"
            )
        return np.array([self._row[video_id] for video_id in video_ids], np.int64)

    def region_masks(self, video_id: str, times_F, num_regions: int) -> np.ndarray:
        """Returns which regions show which object in the frames at `times_F` seconds.

        A region shows an object if the object's box covers at least half of the region, or the
        region at least half of the box. The box of the nearest grid time (5 per second) at which
        the object is visible is used; if that is more than 0.1 s away, no region shows the object.

        Returns:
            mask_FOM, bool; M are the cells of a square grid over the frame, row by row, and O all
            objects of the clip, also the ones that no frame shows.
        """
        num_objects = len(self.clips["class_names"][int(self.rows([video_id])[0])])
        span = self._spans.get(video_id, slice(0))
        times_F = np.asarray(times_F, np.float64)
        mask_FOM = np.zeros((len(times_F), num_objects, num_regions), bool)
        object_N, time_N, box_N4 = (column[span] for column in self._columns)
        for index in np.unique(object_N):
            mine = object_N == index
            distance_FN = np.abs(times_F[:, None] - time_N[mine])
            nearest_F = distance_FN.argmin(1)
            shown_F = distance_FN.min(1) <= TIME_TOLERANCE
            regions_NM = box_regions(box_N4[mine], num_regions)
            mask_FOM[:, index] = regions_NM[nearest_F] & shown_F[:, None]
        return mask_FOM

    @functools.cached_property
    def tagged(self) -> dict[str, int]:
        """The index of the tagged object by video; only videos with exactly one tagged object."""
        chosen = zip(self.video_ids, self.clips["object"].to_pylist(), strict=True)
        return {video_id: index for video_id, index in chosen if index >= 0}

    @functools.cached_property
    def _row(self) -> dict[str, int]:
        return {video_id: row for row, video_id in enumerate(self.video_ids)}

    @functools.cached_property
    def _columns(self):
        boxes = [self.objects[name].to_numpy() for name in ("x0", "y0", "x1", "y1")]
        times = self.objects["time_s"].to_numpy().astype(np.float64)
        return self.objects["object"].to_numpy(), times, np.stack(boxes, axis=1).astype(np.float64)

    @functools.cached_property
    def _spans(self) -> dict[str, slice]:
        """The rows of each video in `objects`."""
        runs = pc.call_function("run_end_encode", [self.objects["video_id"].combine_chunks()])
        stops = runs.run_ends.to_pylist()
        return dict(zip(runs.values.to_pylist(), map(slice, [0, *stops], stops), strict=True))


def box_regions(boxes_N4: np.ndarray, num_regions: int) -> np.ndarray:
    """Returns bool [N, M], the regions that show the object of a box; see `Truth.region_masks`.

    >>> box_regions(np.array([[0.0, 0.0, 0.25, 0.125]]), 64).nonzero()[1].tolist()
    [0, 1]
    """
    grid = math.isqrt(num_regions)
    edges = np.arange(grid + 1) / grid
    x0_N1, y0_N1, x1_N1, y1_N1 = (boxes_N4[:, [column]] for column in range(4))
    width_NX = np.clip(np.minimum(x1_N1, edges[1:]) - np.maximum(x0_N1, edges[:-1]), 0, None)
    height_NY = np.clip(np.minimum(y1_N1, edges[1:]) - np.maximum(y0_N1, edges[:-1]), 0, None)
    overlap_NM = (height_NY[:, :, None] * width_NX[:, None, :]).reshape(-1, num_regions)
    box_N1 = (x1_N1 - x0_N1) * (y1_N1 - y0_N1)
    half = 0.5 - 1e-6  # boxes are stored as float32
    enough_NM = (overlap_NM >= half / num_regions) | (overlap_NM >= half * box_N1)
    return enough_NM & (overlap_NM > 0)


def write_truth(root: Path, truth: Truth) -> None:
    """Writes the files of `ROOT/truth`, each whole or not at all; all rows keep their order."""
    folder = root / "truth"
    folder.mkdir(parents=True, exist_ok=True)
    tables = {name: getattr(truth, f"{name}_VT") for name in _TABLES}
    tables = {name: table_VT for name, table_VT in tables.items() if table_VT is not None}
    world = {"hashtags": truth.hashtags, "video_ids": truth.video_ids, "tables": list(tables)}
    with storage.atomic_write(folder / "world.json") as file:
        file.write(json.dumps(world, indent=0).encode())
    for name, table_VT in tables.items():
        with storage.atomic_write(folder / f"{name}.npy") as file:
            np.save(file, table_VT)
    for name, table in (("objects", truth.objects), ("clips", truth.clips)):
        with storage.atomic_write(folder / f"{name}.parquet") as file:
            pq.write_table(table, file)


def load_truth(root: str | Path) -> Truth | None:
    """Returns the truth about the dataset in `root`, or None if it is not simulated.

    Raises:
        UserError: a file of the truth is missing or damaged.
    """
    root = storage.path(root)
    if not (root / MARKER).exists():
        return None
    folder = root / "truth"
    with _readable(folder / "world.json") as path:
        world = json.loads(path.read_bytes())
        fields: dict[str, Any] = {name: tuple(world[name]) for name in ("hashtags", "video_ids")}
        shape = len(fields["video_ids"]), len(fields["hashtags"])
        names = list(world.get("tables", _TABLES[:2]))  # the first format does not name its tables
    for name in names:
        with _readable(folder / f"{name}.npy") as path:
            table_VT = np.load(path, mmap_mode="r", allow_pickle=False)
            if table_VT.shape != shape or table_VT.dtype != np.float32:
                raise ValueError(f"{table_VT.dtype} {table_VT.shape}")
            fields[f"{name}_VT"] = np.asarray(table_VT)
    for name, schema in (("objects", OBJECTS_SCHEMA), ("clips", CLIPS_SCHEMA)):
        with _readable(folder / f"{name}.parquet") as path:
            fields[name] = pq.read_table(path).select(schema.names).cast(schema)
    return Truth(**fields)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """Yields a local copy of a file; errors in the block become a UserError about the file."""
    try:
        yield storage.cached_copy(path)
    except (OSError, ValueError, KeyError, EOFError, pa.ArrowException) as error:
        raise UserError(
            f"the truth of a simulated dataset must be whole, got {path}: {error}; "
            f"delete {path.parent.parent} and simulate it again"
        ) from error
