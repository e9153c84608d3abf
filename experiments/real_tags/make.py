"""Makes a dataset of real pictures with real tags: videos.csv and clips.

    python -m experiments.real_tags.make --packages=FOLDER --collection=openclipart --root=DATA
    python -m experiments.real_tags.make --packages=FOLDER --composites --root=DATA

`single` clips show one picture. `--composites` show three of three artists: the poster is the
artist of one of them, and the tags are this picture's. The pictures are divided into blocks of
about 100, near copies together, and a clip has pictures of one block only. videos.csv names the
block as the group of the clip, so no picture is in two parts of a split.
"""

import pathlib
import sys

from absl import flags

from experiments.real_tags.dataset import make, unix_time
from experiments.real_tags.pictures import COLLECTIONS, read
from uhman_jax.runtime.errors import UserError, exit_on_user_error
from uhman_jax.runtime.streams import run_app

_PACKAGES = flags.DEFINE_string("packages", "", "Folder of the unpacked packages.")
_COLLECTION = flags.DEFINE_enum("collection", "openclipart", list(COLLECTIONS), "Pictures to use.")
_COMPOSITES = flags.DEFINE_bool("composites", False, "Three pictures per clip instead of one.")
_DATED = flags.DEFINE_bool("dated", False, "Only pictures with a date.")
_ROOT = flags.DEFINE_string("root", "", "Folder of the dataset; created.")


def main(_: list[str]) -> None:
    """Reads the pictures, renders missing clips and writes the tables."""
    with exit_on_user_error():
        if not _ROOT.value:
            raise UserError("--root must name the folder to write, got none; use e.g. --root=DATA")
        pictures = read(_COLLECTION.value, pathlib.Path(_PACKAGES.value))
        if _DATED.value:
            pictures = [picture for picture in pictures if unix_time(picture.date)]
        print(
            f"{len(pictures)} pictures of {len({p.artist for p in pictures})} artists; "
            f"{len(pictures) - len({p.group for p in pictures})} are near copies of another."
        )
        make(pathlib.Path(_ROOT.value), pictures, composites=_COMPOSITES.value)


if __name__ == "__main__":
    sys.exit(run_app(main))
