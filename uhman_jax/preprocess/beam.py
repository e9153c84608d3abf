"""Makes shards on Apache Beam; on every runner their bytes are the same as without Beam.

The elements are the shards. Each is a pure function of its videos, the settings and the weights,
and is written atomically: a runner may make a shard twice, make it on two machines at once or
abandon it. Workers need this package, and access to the folders under the same paths.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState, create_runner

from uhman_jax.config import Backend
from uhman_jax.preprocess import ledger, shard_builder
from uhman_jax.preprocess.extract_features import Meter
from uhman_jax.preprocess.ledger import Shard
from uhman_jax.runtime.errors import UserError

NAMESPACE = "uhman_jax"  # namespace of the metrics
_UPDATE_SECONDS = 1.0  # between updates of the progress bar
_DIRECT_RUNNER = (  # defaults; a later option of the same name overrides them
    "direct_running_mode=multi_processing",
    "direct_num_workers=0",  # one per core
    "default_sdk_harness_log_level=ERROR",
    # Keeps the direct runner from trying an engine that must be downloaded. It has no other effect,
    # because this pipeline has no triggers.
    "allow_unsafe_triggers",
)


def options_of(arguments: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options, parsed from command-line arguments that include --runner.

    By default the direct runner uses one process per core, and its workers log only errors.

    Raises:
        UserError: Beam does not know an argument or the runner.
    """
    try:
        runner = PipelineOptions(list(arguments)).get_all_options()["runner"]
    except SystemExit:  # argparse has printed the reason
        raise UserError(f"Beam must know its options, got {' '.join(arguments)}") from None
    try:
        create_runner(runner)
    except (ValueError, ImportError) as error:
        raise UserError(f"--runner must be one that Beam has: {error}") from error
    defaults = _DIRECT_RUNNER if runner == "DirectRunner" else ()
    return PipelineOptions([*(f"--{option}" for option in defaults), *arguments])


class MakeShard(beam.DoFn):
    """Makes one shard; loads the network once per worker."""

    def __init__(self, work: shard_builder.ShardBuilder, num_shards: int):
        self._arguments = work.root, work.directory, work.config, work.network
        self._num_shards = num_shards
        self._extractor: Any = None

    def setup(self) -> None:
        """Loads the network with the weights stored in the folder."""
        _, directory, config, network = self._arguments
        # Workers of one machine would compete for its accelerator, so AUTO does not use it.
        backend = Backend.TENSORFLOW if config.backend is Backend.AUTO else config.backend
        self._extractor = shard_builder.restore_extractor(
            directory, network, precision=config.precision, backend=backend
        )

    def process(self, shard: Shard) -> Iterator[int]:
        """Makes a shard, adds its counts to the metrics and yields its index."""
        meter = Meter(len(shard.videos), 0, show=False)
        work = shard_builder.ShardBuilder(*self._arguments, meter)
        (entries,) = work.run([shard], self._num_shards, self._extractor).values()
        counts = {f"clips_{state}": count for state, count in ledger.counts(entries).items()}
        for name, count in (counts | {"frames": meter.frames}).items():
            Metrics.counter(NAMESPACE, name).inc(count)
        yield shard.index


def make(
    work: shard_builder.ShardBuilder,
    missing: Sequence[Shard],
    num_shards: int,
    options: PipelineOptions,
    meter: Meter,
) -> dict[str, int]:
    """Makes the missing shards on the runner that the options name.

    Args:
        work: builds a shard; its folder holds the weights.
        missing: shards to make.
        num_shards: number of shards in the folder.
        options: see `options_of`.
        meter: shows how many clips are in finished shards.

    Returns:
        The metrics: number of clips in each state, and of frames.

    Raises:
        UserError: the pipeline failed; finished shards are kept.
    """
    pipeline = beam.Pipeline(options=options)
    _ = (
        pipeline
        | "Shards" >> beam.Create(list(missing))
        | "Spread" >> beam.Reshuffle()
        | "Make" >> beam.ParDo(MakeShard(work, num_shards))
    )
    waiting = list(missing)

    def show_finished() -> None:
        for shard in list(waiting):
            if ledger.read_finished(work.directory, shard, num_shards):
                waiting.remove(shard)
                for _ in shard.videos:
                    meter.add_clip()

    result = _run(pipeline, show_finished)
    show_finished()
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))
    return {counter.key.metric.name: counter.result for counter in counters["counters"]}


def _run(pipeline: beam.Pipeline, update: Callable[[], None]) -> Any:
    """Runs a pipeline until it ends and returns its result; calls `update` every second.

    If a worker dies, the direct runner waits forever, but one of its threads raises an exception,
    which ends the wait here.
    """
    result, failure, ended = None, "a worker is lost", threading.Event()

    def target() -> None:
        nonlocal result, failure
        try:
            result = pipeline.run()
            state = result.wait_until_finish()
            failure = "" if state == PipelineState.DONE else f"it ended as {state}"
        except Exception as error:  # runners raise exceptions of any type
            failure = str(error) or type(error).__name__
        ended.set()

    hook = threading.excepthook
    threading.excepthook = lambda arguments: ended.set()
    try:
        threading.Thread(target=target, daemon=True).start()
        while not ended.wait(_UPDATE_SECONDS):
            update()
    finally:
        threading.excepthook = hook
    if failure:
        raise UserError(
            f"the Beam pipeline must finish, got {failure.strip().splitlines()[-1]!r}; "
            "finished shards stay, the same command makes the rest"
        )
    return result
