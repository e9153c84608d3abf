"""A run on small clips, with the small network for Inception: for whoever uses a trained run."""

import sys

import clips
import numpy as np
import small_network
import tiny_world

from uhman_jax import run
from uhman_jax.dataset.hashtags import normalise_hashtag
from uhman_jax.dataset.raw import User, Video, write_raw_dataset
from uhman_jax.preprocess import pipeline

COMMAND = (sys.executable, small_network.__file__, "serve")  # stands in for `on_demand.COMMAND`
NUM_CLIPS = 48


def make(root, *, write=lambda v, word: word, num_epochs=8):
    """Trains ROOT/run. A dark clip is #dark, a bright one #bright; women also write #w.

    `write` says how the user of clip v writes one of these words, which may be as another hashtag.
    """
    rng = np.random.default_rng(0)
    users, videos = [], []
    for v in range(NUM_CLIPS):
        level, woman = int(rng.integers(2)), int(rng.integers(2))
        images = [clips.gray(40 + 170 * level + int(rng.integers(20))) for _ in range(2 + v % 2)]
        clips.write_clip(root / f"c{v:02}.mp4", images, [400 * i for i in range(len(images))])
        words = ("bright" if level else "dark",) + (("w",) if woman else ())
        history = (normalise_hashtag(write(v, "dark")),) if v % 3 else ()
        users.append(User(f"u{v}", "female" if woman else "male", 20 + v, "", history))
        written = tuple(write(v, word) for word in words)
        names = tuple(map(normalise_hashtag, written))
        spellings = written if written != names else ()
        videos.append(Video(f"c{v:02}", f"c{v:02}.mp4", f"u{v}", names, v, spellings))
    write_raw_dataset(root, videos, users)
    config = tiny_world.make_config(root, num_epochs=num_epochs, num_seeds=2)
    config.preprocess = small_network.small_config(output_dir=str(root / "features" / "small"))
    config.evaluate.top_k = 3
    inputs = [(video.video_id, video.path) for video in videos]
    settings, network = config.preprocess, small_network.SmallNetwork
    pipeline.preprocess(
        root, inputs, settings.output_dir, settings, network=network, progress=False
    )
    run.run(config, root / "run", say=lambda line: None, report=False)


def code(module):
    """A program that is `python -m MODULE` with the small network."""
    return (
        "import runpy, sys; from uhman_jax.preprocess import on_demand; "
        f"on_demand.COMMAND = {COMMAND!r}; runpy.run_module({module!r}, run_name='__main__')"
    )
