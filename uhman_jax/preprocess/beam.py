"""Makes shards on Apache Beam: on any of its runners, the same bytes as without it.

The elements are the shards. Each is a pure function of its videos, the settings and the weights,
and is written whole or not at all: a shard that an engine makes twice, makes on two machines at
once or abandons does no harm. Workers need this package, and the folders under the same paths.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    TypeOptions,
    WorkerOptions,
)
from apache_beam.runners.runner import PipelineState, create_runner

from uhman_jax.config import Backend
from uhman_jax.errors import UserError
from uhman_jax.preprocess import ledger, shard_builder
from uhman_jax.preprocess.extract_features import Meter
from uhman_jax.preprocess.ledger import Shard

NAMESPACE = "uhman_jax"  # of the metrics
_LOOK_EVERY = 1.0  # seconds between updates of the progress bar


def options_of(arguments: Sequence[str]) -> PipelineOptions:
    """Returns Beam's options from its arguments on the command line, --runner among them.

    By default the direct runner works in one process per core, and its workers log only errors.

    Raises:
        UserError: Beam does not know an argument, or the runner.
    """
    options = PipelineOptions(list(arguments))
    try:
        runner = options.get_all_options()["runner"]
    except SystemExit:  # argparse has said why
        raise UserError(f"Beam must know its options, got {' '.join(arguments)}") from None
    try:
        create_runner(runner)
    except (ValueError, ImportError) as error:
        raise UserError(f"--runner must be one that Beam has: {error}") from error
    if runner == "DirectRunner":
        if not any("direct_running_mode" in word for word in arguments):
            options.view_as(DirectOptions).direct_running_mode = "multi_processing"
        if not any("direct_num_workers" in word for word in arguments):
            options.view_as(DirectOptions).direct_num_workers = 0  # one per core
        if not any("sdk_harness_log_level" in word for word in arguments):
            options.view_as(WorkerOptions).default_sdk_harness_log_level = "ERROR"
        # With this option the direct runner does not look for an engine to download. It has no
        # other effect: this pipeline has no triggers.
        options.view_as(TypeOptions).allow_unsafe_triggers = True
    return options


class MakeShard(beam.DoFn):
    """Makes one shard; loads the network once per worker."""

    def __init__(self, work: shard_builder.Making, num_shards: int):
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
        work = shard_builder.Making(*self._arguments, meter)
        (entries,) = work.run([shard], self._num_shards, self._extractor).values()
        for state, count in ledger.counts(entries).items():
            Metrics.counter(NAMESPACE, f"clips_{state}").inc(count)
        Metrics.counter(NAMESPACE, "frames").inc(meter.frames)
        for name, seconds in (
            ("decoding_ms", meter.decoding_seconds),
            ("network_ms", meter.network_seconds),
        ):
            Metrics.counter(NAMESPACE, name).inc(round(1000 * seconds))
        yield shard.index


def make(
    work: shard_builder.Making,
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
        The metrics: clips by state, frames, milliseconds of decoding and of the network.

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
    with _shown(work.directory, missing, num_shards, meter):
        result = _run(pipeline)
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(NAMESPACE))
    return {counter.key.metric.name: counter.result for counter in counters["counters"]}


def _run(pipeline: beam.Pipeline) -> Any:
    """Runs a pipeline to its end and returns its result.

    The direct runner waits forever for a worker that has died, but its thread raises an exception.

    Raises:
        UserError: the pipeline failed.
    """
    ends: queue.Queue = queue.Queue()

    def target() -> None:
        try:
            result = pipeline.run()
            state = result.wait_until_finish()
        except Exception as error:  # runners raise what they like
            ends.put((None, str(error) or type(error).__name__))
        else:
            ends.put((result, "" if state == PipelineState.DONE else f"it ended as {state}"))

    hook = threading.excepthook
    threading.excepthook = lambda failure: ends.put((None, "a worker is lost"))
    try:
        threading.Thread(target=target, daemon=True).start()
        result, trouble = ends.get()
    finally:
        threading.excepthook = hook
    if trouble:
        raise UserError(
            f"the Beam pipeline must come to its end, got {trouble.strip().splitlines()[-1]!r}; "
            "finished shards stay, the same command makes the others"
        )
    return result


@contextlib.contextmanager
def _shown(
    directory: Path, missing: Sequence[Shard], num_shards: int, meter: Meter
) -> Iterator[None]:
    """Counts the clips of finished shards while the block runs, by reading the ledgers."""
    ended = threading.Event()

    def look() -> None:
        waiting, last = list(missing), False
        while waiting and not last:
            last = ended.wait(_LOOK_EVERY)
            for shard in list(waiting):
                if ledger.read_finished(directory, shard, num_shards):
                    waiting.remove(shard)
                    for _ in shard.videos:
                        meter.add_clip()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
