"""A dataset of a few seconds: clips that show one object, users who name it in two ways."""

import contextlib
import pathlib

import numpy as np
import pytest

from uhman_jax.config import Config, Estimator
from uhman_jax.dataset.raw import User, Video, read_raw_dataset, write_raw_dataset
from uhman_jax.dataset.view import build_view
from uhman_jax.shards import quantize, store
from uhman_jax.shards.record import FrameRecord, Schema

NUM_CLASSES, NUM_CHANNELS, NUM_COUNTRIES = 4, 7, 2


def write_dataset(root, *, num_videos=150, seed=0):
    """Writes tables and features; the word of a clip's object depends on the user's country.

    Every second clip or so also has the hashtag "all", so that popularity has something to win.
    """
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    users, videos, records = [], [], []
    for v in range(num_videos):
        kind, country = rng.integers(NUM_CLASSES), rng.integers(NUM_COUNTRIES)
        user = User(
            f"user{v}",
            gender="f" if v % 3 else "",
            age=20 + v % 40,
            country=f"land{country}",
            history=("all",) if v % 4 else (),
        )
        words = (f"thing{kind}land{country}", "all")[: 2 if rng.random() < 0.5 else 1]
        users.append(user)
        videos.append(Video(f"clip{v:03}", "", user.user_id, words, 1_600_000_000 + v))
        features_FMC = rng.normal(size=(1 + v % 3, 64, NUM_CHANNELS)).astype(np.float32)
        features_FMC[rng.integers(len(features_FMC)), 10:30, kind] += 4
        encoded = quantize.encode(features_FMC)
        times_F = np.arange(len(features_FMC), dtype=np.float32) / 5
        records.append(FrameRecord(f"clip{v:03}", *encoded, times_F))
    write_raw_dataset(root, videos, users)
    features = root / "features" / "simulated"
    features.mkdir(parents=True)
    schema = Schema(NUM_CHANNELS)
    store.write_shard(features, 0, 1, records, schema)
    info = {"extractor": "made by a test", "weights": "simulated"}
    store.write_metadata(features, 1, schema, info)
    return root


def load(root, config):
    """View and store of a dataset that `write_dataset` wrote."""
    frames = store.FrameStore.open(root / "features" / "simulated")
    raw = read_raw_dataset(root, strict=True, check_files=False)
    return build_view(raw, frames.video_ids, config.view), frames


def make_config(root, **train):
    """A small model that trains in seconds."""
    config = Config(name="tiny")
    config.data.root = str(root)
    config.view.min_count = 1
    config.model.hidden_size, config.model.embedding_size, config.model.num_heads = 8, 6, 2
    config.train.batch_size, config.train.num_epochs = 10, 4
    config.evaluate.batch_size = 16
    config.evaluate.select_by = "MAP"  # with nine hashtags every ranking has the same P@10
    for name, value in train.items():
        setattr(config.train, name, value)
    return config


def finished_run(folder, *, num_videos=150, test_share=0.2, by_hand=False, **train):
    """Config and directory of a run that was trained and evaluated, its data beside it.

    With `by_hand` its models are those of `plant`, and nothing is left to training.
    """
    from uhman_jax import run  # heavy, as below

    config = make_config(write_dataset(folder / "data", num_videos=num_videos), **train)
    config.view.test_share = test_share
    with planted(config, plant) if by_hand else contextlib.nullcontext():
        run.run(config, folder / "run", log=lambda line: None, report=False)
    return config, folder / "run"


@contextlib.contextmanager
def planted(config, plant):
    """Within it a run of the config starts from `plant(params, view)`, and training keeps that.

    `plant` changes zeros; what the video tower averages passes all its layers but for scale.
    """
    from uhman_jax import run
    from uhman_jax.train import loop

    view, init_state = run.prepare(config, lambda line: None).view, loop.init_state
    config.model.unit_length = False
    config.train.learning_rate = 1e-30  # far below the spacing of float32

    def start(*args):
        state = init_state(*args)
        params = plant(_passing(state.params), view)
        return state._replace(params=params, best_params=params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "init_state", start)
        yield


def _passing(params):
    """Zeros in NumPy, but for the layers between the regions' ReLU and the query."""
    import jax

    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    one_KK = np.eye(8)
    params["region_out_JK"][:], params["hashtag_out"]["kernel"][:] = one_KK, one_KK[:, :6]
    for block in (params["region_block"], params["frame_block"]):
        block["heads"]["value_KHW"][:] = one_KK.reshape(8, 2, 4)
        block["heads"]["output_HWK"][:] = one_KK.reshape(2, 4, 8)
        block["attention_norm"]["scale"][:] = block["ffn_norm"]["scale"][:] = 1
    return params


def plant(params, view):
    """Makes "all" the best hashtag, then the name of the clip's object in the user's country.

    The first seed's model takes every user for one of land0. Nothing else of a user counts.
    """
    kinds, countries = np.arange(NUM_CLASSES), NUM_CLASSES + np.arange(NUM_COUNTRIES)
    params["regions"]["kernel_JC"][:, kinds, kinds] = 1
    params["query_out"]["kernel"][:, 8 + kinds, kinds] = 1  # the video comes after the user
    params["query_out"]["kernel"][1:, countries, countries] = 10
    params["query_out"]["kernel"][0, countries, countries[0]] = 10
    network = params["user"]["ffn"]
    for country, unit in enumerate(countries):
        params["user"]["country_AK"][:, view.countries.index(f"land{country}"), unit] = 1
        network["hidden"]["kernel"][:, 2 * 8 + unit, unit] = 1  # after gender and age
        network["output"]["kernel"][:, unit, unit] = 1
        network["output"]["bias"][:, unit] = 0.1  # also where the country is unknown
    for hashtag, name in enumerate(view.hashtags):
        if name == "all":
            params["hashtag_TK"][:, hashtag, countries] = 9
        else:  # thing3land1
            own = [kinds[int(name[5])], countries[int(name[-1])]]
            params["hashtag_TK"][:, hashtag, own] = 1
    return params


def write_config(path, root, *, seed=0, **train):
    """Writes a config file for a process of its own: two seeds, and dropout."""
    lines = f"""
import sys
sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
import tiny_world
def get_config():
    config = tiny_world.smooth(tiny_world.make_config({str(root)!r}, num_seeds=2, **{train!r}))
    config.seed, config.model.dropout = {seed}, 0.1
    return config
"""
    path.write_text(lines)
    return path


def scores(model, params, statistics, view, store, rows_V, apart=1e-5):
    """Scores (S, V, T) of a population, and whether a clip's are further apart than roundings."""
    import jax

    from uhman_jax.input_pipeline import eval_batches

    batch = eval_batches(view, store, rows=rows_V, batch_size=len(rows_V))[0]
    scores_SVT = []
    for s in range(len(params["hashtag_TK"])):
        one = jax.tree.map(lambda leaf, s=s: leaf[s], params)
        variables = {"params": one, "statistics": statistics}
        scores_SVT.append(model.apply(variables, batch.video, batch.user))
    scores_SVT = np.array(scores_SVT)
    apart_SV = np.diff(np.sort(scores_SVT), axis=2).min(axis=2) > apart
    assert apart_SV.mean() > 0.9
    return scores_SVT, apart_SV


def smooth(config):
    """The same config with a margin that every pair of cosines violates.

    Rounding then opens or shuts no hinge: two programs of the same training stay close together.
    """
    config.loss.margin = 3.0
    return config


def fresh(config, world):
    """Model and initial state."""
    from uhman_jax import train  # heavy; a config file that imports this module must not be

    view, _, statistics = world
    model = train.build_model(config.model, view)
    return model, train.init_state(model, config, statistics)


def sampled(config):
    """The same config with the sampled estimator."""
    config.loss.estimator = Estimator.SAMPLED
    return config
