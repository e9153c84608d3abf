"""A run on small clips with the small network, for tests that use a trained run."""

import contextlib
import sys

import clips
import numpy as np
import pytest
import small_network
import tiny_world

from uhman_jax import run
from uhman_jax.dataset.hashtags import normalise_hashtag
from uhman_jax.dataset.raw import User, Video, write_raw_dataset
from uhman_jax.preprocess import feature_client, pipeline
from uhman_jax.recommend import Recommender

COMMAND = (sys.executable, small_network.__file__, "serve")  # replaces `feature_client.COMMAND`
NUM_CLIPS = 48


def make(root, *, write=lambda v, word: word):
    """Makes ROOT/run. A dark clip is #dark, a bright one #bright; women also write #w.

    `write` says how the user of clip v writes one of these words, which may be as another hashtag.
    The parameters of its models are set by hand, see `plant`.
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
    config = tiny_world.make_config(root, num_epochs=1, num_seeds=2)
    config.preprocess = small_network.small_config(output_dir=str(root / "features" / "small"))
    config.evaluate.top_k = 3
    inputs = [(video.video_id, video.path) for video in videos]
    settings, network = config.preprocess, small_network.SmallNetwork
    pipeline.preprocess(
        root, inputs, settings.output_dir, settings, network=network, progress=False
    )
    with tiny_world.planted(config, plant):
        run.run(config, root / "run", log=lambda line: None, report=False)


@contextlib.contextmanager
def recommender(root):
    """The Recommender of ROOT/run, whose extractor is the small network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_client, "COMMAND", COMMAND)
        with Recommender.load(root / "run") as loaded:
            yield loaded


def plant(params, view):
    """Puts a clip between #dark and #bright by its level, and #w first for women, last for men.

    Where the gender is unknown #w has the score of a clip of medium level.
    """
    settings = small_network.small_config()
    network = small_network.SmallNetwork.load(
        small_network.SmallNetwork.BACKBONE,
        "random",
        seed=settings.weights_seed,
        calibration_images=None,
        batch_frames=1,
        precision=settings.precision,
    )
    brighter_C = np.sign(network.matrix.sum(axis=(0, 1)))  # what a higher level does to a channel
    params["regions"]["kernel_JC"][:, 0], params["regions"]["kernel_JC"][:, 1] = (
        brighter_C,
        -brighter_C,
    )
    params["regions"]["bias_J"][:, :2] = 30  # no ReLU cuts anything off
    params["query_out"]["kernel"][:, [8, 9], 0] = 10, -10  # the video comes after the user
    for gender, unit, weight in (("female", 2, 3), ("male", 3, -3)):
        params["user"]["gender_AK"][:, view.genders.index(gender), unit] = 1
        for layer in ("hidden", "output"):
            params["user"]["ffn"][layer]["kernel"][:, unit, unit] = 1
        params["query_out"]["kernel"][:, unit, 1] = weight
    for name, row_D in {"bright": (1, 0), "dark": (-1, 0), "w": (0, 1)}.items():
        if name in view.hashtags:
            params["hashtag_TK"][:, view.hashtags.index(name), :2] = row_D
    return params


def code(module):
    """A program that is `python -m MODULE` with the small network."""
    return (
        "import runpy, sys; from uhman_jax.preprocess import feature_client; "
        f"feature_client.COMMAND = {COMMAND!r}; runpy.run_module({module!r}, run_name='__main__')"
    )
