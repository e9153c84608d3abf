"""Makes shards on Apache Beam: on any of its runners, the same bytes as without it.

The elements are the shards. Each is a pure function of its videos, the settings and the weights,
and is written whole or not at all: an engine may make a shard twice, make it on two machines at
once or abandon it. Workers need this package, and the folders under the same paths.
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

NAMESPACE = "uhman_jax"  # of the metrics
_LOOK_EVERY = 1.0  # seconds between updates of the progress bar
_DIRECT_RUNNER = (  # defaults; of options with one name the last counts
    "direct_running_mode=multi_processing",
    "direct_num_workers=0",  # one per core
    "default_sdk_harness_log_level=ERROR",
    # With this option the direct runner does not look for an engine to download. It has no other
    # effect: this pipeline has no triggers.
    "allow_unsafe_triggers",
)


def options_of(arguments: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options from its arguments on the command line, --runner among them.

    By default the direct runner works in one process per core, and its workers log only errors.

    Raises:
        UserError: Beam does not know an argument, or the runner.
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
        """Loads the network with the weights that the folder keeps."""
        _, directory, config, network = self._arguments
        # Several workers of one machine would compete for its accelerator: only on request.
        backend = Backend.TENSORFLOW if config.backend is Backend.AUTO else config.backend
        self._extractor = shard_builder.restore_extractor(
            directory, network, precision=config.precision, backend=backend
        )

    def process(self, shard: Shard) -> Iterator[int]:
        """Makes a shard and counts; yields its index."""
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
        work: its folder holds the weights.
        missing: shards to make.
        num_shards: of the folder.
        options: of Beam.
        meter: shows how many clips are in finished shards.

    Returns:
        The metrics: clips by state, and frames.

    Raises:
        UserError: the pipeline failed; finished shards stay.
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


def _run(pipeline: beam.Pipeline, look: Callable[[], None]) -> Any:
    """Runs a pipeline to its end and returns its result; calls `look` every second.

    The direct runner waits forever for a worker that has died, but one of its threads raises an
    exception.
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
        while not ended.wait(_LOOK_EVERY):
            look()
    finally:
        threading.excepthook = hook
    if failure:
        raise UserError(
            f"the Beam pipeline must come to its end, got {failure.strip().splitlines()[-1]!r}; "
            "finished shards stay, the same command makes the others"
        )
    return result
