"""The process that turns clips into features whenever it is asked to; `on_demand` starts it.

Run as `python -m uhman_jax.preprocess.feature_worker DIRECTORY CONFIG`: the features folder whose extractor
is used, and a PreprocessConfig as JSON. It reads one JSON job per line from standard input and
answers on standard output, one JSON line per clip, followed by the bytes of its
arrays, in the order in which that line names them. TensorFlow
stays in here, and so does a crash.
"""

import concurrent.futures
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from uhman_jax import storage, streams
from uhman_jax.config import PreprocessConfig, from_dict
from uhman_jax.errors import user_message
from uhman_jax.preprocess import ledger, saved_model_cache
from uhman_jax.preprocess.clip_file import IMAGE_SIZE
from uhman_jax.preprocess.extract_features import Meter, encode
from uhman_jax.preprocess.ledger import Entry
from uhman_jax.preprocess.shard_builder import decoder_pool, restore_extractor

_MAX_BATCH_FRAMES = 16

Arrays = dict[str, np.ndarray]  # of a record, by name


def serve(network: Any = None) -> None:
    """Answers jobs until standard input ends.

    Args:
        network: stands in for `extractor.Extractor`; tests use a small one.
    """
    directory, values = storage.path(sys.argv[1]), json.loads(sys.argv[2])
    config = from_dict(values, PreprocessConfig())
    streams.prepare()  # the one who started this may have closed its own
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not garble the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    loading = concurrent.futures.ThreadPoolExecutor(1).submit(_load, directory, network)
    is_new = network is None
    rule = ledger.frame_times(directory)

    for line in sys.stdin:
        try:
            for header, arrays in _answers(
                json.loads(line)["paths"], config, loading.result, network, rule
            ):
                _send(answers, header, arrays)
            _send(answers, {"done": True})
        except BrokenPipeError:
            os._exit(1)  # whoever asked is gone: nothing to log, nor at the end
        except Exception as error:
            if not (told := user_message(error)):
                raise
            _send(answers, {"error": told})
            continue
        if is_new:  # nobody waits for this
            saved_model_cache.keep(loading.result())
            is_new = False


def _load(directory: Path, network: Any) -> Any:
    """The extractor of a features folder, frozen where that is at hand.

    It runs on TensorFlow and in float32, whatever made the features: the accelerator is taken by
    whoever ranks, and a batch for one would be padding on a CPU.
    """
    facts = ledger.read_json(directory / ledger.SETTINGS_FILE)
    batch_frames = min(facts["settings"]["batch_frames"], _MAX_BATCH_FRAMES)
    if network is None and (found := saved_model_cache.load(facts["fingerprint"], batch_frames)):
        return found
    return restore_extractor(directory, network, batch_frames=batch_frames)


def _answers(
    paths: list[str],
    config: PreprocessConfig,
    load: Callable[[], Any],
    network: Any,
    frame_times: int,
) -> Iterator[tuple[dict[str, Any], Arrays]]:
    """One (header, arrays) per clip; those without a frame are told as soon as they are known."""
    entries: list[Entry] = []
    size, told = network.IMAGE_SIZE if network else IMAGE_SIZE, 0

    def failures() -> Iterator[tuple[dict[str, Any], Arrays]]:
        nonlocal told
        for entry in entries[told:]:
            if not entry.frames:
                yield (
                    {"index": int(entry.video_id), "state": entry.state, "reason": entry.reason},
                    {},
                )
        told = len(entries)

    with decoder_pool(paths, config, config.max_frames, size, frame_times) as pool:
        extractor = load()  # the decoders work meanwhile
        named = (((str(index), paths[index]), clip) for index, clip in enumerate(pool))
        with Meter(len(paths), 0, show=False) as meter:
            for record in encode(named, extractor, config.storage.value, entries, meter):
                yield from failures()
                arrays = record._asdict()
                index = int(arrays.pop("video_id"))
                yield _header(index, entries[index], arrays), arrays
            yield from failures()


def _header(index: int, entry: Entry, arrays: Arrays) -> dict[str, Any]:
    shapes = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    facts = {"state": "ok", "reason": entry.reason, "seconds": entry.seconds}
    return {"index": index, **facts, "arrays": shapes}


def _send(answers: BinaryIO, header: dict[str, Any], arrays: Arrays | None = None) -> None:
    answers.write(json.dumps(header).encode() + b"\n")
    for array in (arrays or {}).values():
        answers.write(np.ascontiguousarray(array).tobytes())
    answers.flush()


if __name__ == "__main__":
    serve()
