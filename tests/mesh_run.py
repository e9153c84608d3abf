"""Trains a tiny world on eight virtual devices, or weighs what a large vocabulary takes on them.

    python tests/mesh_run.py ROOT OUT MODEL_PARALLEL[,THEN] [--estimator=sampled]
    python tests/mesh_run.py --num_hashtags=1000000

With THEN the run is stopped in its middle and goes on with another shape of the mesh.
"""

import argparse
import json
import os
import pathlib
import sys

if __name__ == "__main__":  # before JAX starts
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax  # noqa: E402
import numpy as np  # noqa: E402
import tiny_world  # noqa: E402

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from tools.bench import synthetic  # noqa: E402
from uhman_jax import input_pipeline, train  # noqa: E402
from uhman_jax.config import Estimator, Optimiser  # noqa: E402
from uhman_jax.dataset.view import TEST  # noqa: E402
from uhman_jax.evaluate.ranking import make_ranker, rank_videos  # noqa: E402
from uhman_jax.runtime.mesh import Devices  # noqa: E402


def config_of(root, estimator="exact"):
    """Adam keeps moments of every table; a moving average too; two seeds."""
    config = tiny_world.make_config(root, batch_size=16, num_epochs=2, num_seeds=2)
    tiny_world.smooth(config)
    if estimator == "sampled":
        return tiny_world.sampled(config)
    config.train.optimiser, config.train.ema, config.train.learning_rate = (
        Optimiser.ADAMW,
        0.9,
        0.01,
    )
    return config


def ends(config, root, workdir, devices=None, stop_at=None):
    """Arrays of the last state, and of the ranking of the test videos by it.

    One device also tells for which videos (S, V) the scores are further apart than roundings.
    """
    view, store = tiny_world.load(root, config)
    statistics = input_pipeline.channel_statistics(view, store, progress=False)
    asked = iter(range(10**6))
    should_stop = (lambda: False) if stop_at is None else (lambda: next(asked) >= stop_at)
    how = dict(log=lambda line: None, should_stop=should_stop)
    state = train.train(config, view, store, statistics, workdir, devices=devices, **how)
    model = train.build_model(config.model, view)
    ranker = make_ranker(model, 5, devices)
    params = devices.shard_state(state.params) if devices else state.params
    batches = input_pipeline.eval_batches(view, store, rows=view.rows(TEST), batch_size=16)
    ranking = rank_videos(ranker, params, state.statistics, batches)
    leaves = {f"state/{index}": leaf for index, leaf in enumerate(jax.tree.leaves(state))}
    leaves |= {f"ranking/{name}": array for name, array in ranking._asdict().items()}
    if not devices:
        world = state.statistics, view, store, view.rows(TEST)
        leaves["apart_SV"] = tiny_world.scores(model, params, *world, apart=5e-5)[1]
    return leaves


def weigh(num_hashtags, estimator):
    """Bytes of the first device for a training step, a dict for each shape of the mesh."""
    config = synthetic.config_of(hidden_size=32, batch_size=8)
    config.loss.estimator = Estimator(estimator)
    model = train.build_model(config.model, synthetic.view_sizes(num_hashtags))
    initial = train.init_state(model, config, synthetic.statistics(16))
    initial = jax.tree.map(np.asarray, initial)
    batch = synthetic.make_batch(
        batch_size=8, num_frames=1, num_channels=16, num_hashtags=num_hashtags
    )
    for model_parallel in (2, 4):
        devices = Devices(num_hashtags, (8 // model_parallel, model_parallel))
        places = devices.state_shardings(initial), devices.replicated()
        step = train.make_train_step(model, config, 100, places)
        state, shared = devices.shard_state(initial), devices.shard_batch(batch, 8)
        shards = [shard for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards]
        held = sum(shard.data.nbytes for shard in shards if shard.device == jax.devices()[0])
        memory = step.lower(state, shared).compile().memory_analysis()
        for _ in range(3):
            state, metrics = step(state, shared)
        yield {
            "model": model_parallel,
            "held": held,
            "temporary": memory.temp_size_in_bytes,
            "loss": float(metrics.loss_S[0]),
        }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=pathlib.Path, nargs="?")
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("shapes", nargs="?", default="")
    parser.add_argument("--estimator", default="exact")
    parser.add_argument("--num_hashtags", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.num_hashtags:
        for line in weigh(arguments.num_hashtags, arguments.estimator):
            print(json.dumps(line), flush=True)
        return
    config = config_of(arguments.root, arguments.estimator)
    for shapes in arguments.shapes.split():
        name, workdir = shapes.replace(",", "then"), arguments.out / shapes
        first, *then = (int(number) for number in shapes.split(","))
        view, _ = tiny_world.load(arguments.root, config)
        if then:
            try:
                ends(
                    config,
                    arguments.root,
                    workdir,
                    Devices(len(view.hashtags), (8 // first, first)),
                    stop_at=5,
                )
            except train.Interrupted as interrupted:
                print(f"stopped at step {interrupted.step}")
        last = (then or [first])[0]
        devices = Devices(len(view.hashtags), (8 // last, last))
        np.savez(arguments.out / f"{name}.npz", **ends(config, arguments.root, workdir, devices))
        print(f"{shapes}: mesh {dict(devices.mesh.shape)}", flush=True)


if __name__ == "__main__":
    main()
