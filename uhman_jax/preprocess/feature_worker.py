"""Encodes clips on request, in a process that `feature_client` starts.

Run it as `python -m uhman_jax.preprocess.feature_worker DIRECTORY CONFIG`: the features folder
whose extractor is used, and a PreprocessConfig as JSON. It reads one JSON job per line from
standard input and answers on standard output with pickles: an `Encoded` per clip and None at the
end, or a message for the user. Its parent does not import TensorFlow and survives a crash here.
"""

import concurrent.futures
import json
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

from uhman_jax.config import PreprocessConfig, from_dict
from uhman_jax.preprocess import ledger, litert
from uhman_jax.preprocess.decode_pool import DecoderPool
from uhman_jax.preprocess.extract_features import Meter, encode
from uhman_jax.preprocess.feature_client import Encoded
from uhman_jax.preprocess.shard_builder import backbone_of, restore_extractor
from uhman_jax.runtime import storage, streams
from uhman_jax.runtime.errors import user_message
from uhman_jax.shards.record import FrameRecord

_MAX_BATCH_FRAMES = 16


def serve(network: Any = None) -> None:
    """Answers jobs until standard input ends.

    Args:
        network: replaces `extractor.Extractor`; tests use a small one.
    """
    directory, values = storage.path(sys.argv[1]), json.loads(sys.argv[2])
    config = from_dict(values, PreprocessConfig())
    streams.prepare()  # the parent may have closed its streams
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not garble the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    loading = concurrent.futures.ThreadPoolExecutor(1).submit(_load, directory, network)
    convert = network is None

    def send(message: Encoded | str | None) -> None:
        pickle.dump(message, answers)
        answers.flush()

    def answer(paths: list[str]) -> None:
        size, rule = backbone_of(directory, network).image_size, ledger.frame_times(directory)
        with (
            DecoderPool(paths, config, config.max_frames, size, rule) as pool,
            Meter(len(paths), 0, show=False) as meter,
        ):  # the decoders work while the network is loaded
            encoded = encode(pool, loading.result(), config.storage.value, meter)
            for index, (clip, arrays) in enumerate(encoded):
                record = FrameRecord("", **arrays) if arrays else None
                send(Encoded(index, record, clip.state, clip.reason))
        send(None)

    for line in sys.stdin:
        try:
            answer(json.loads(line)["paths"])
        except BrokenPipeError:
            os._exit(1)  # no process is left to read a message
        except Exception as error:
            if not (message := user_message(error)):
                raise
            send(message)
            continue
        if convert:  # after the answers, which must not wait for it
            litert.keep(loading.result())
            convert = False


def _load(directory: Path, network: Any) -> Any:
    """Returns the extractor of a features folder, converted if the cache has it.

    It always runs in float32 on the CPU, with small batches: the process that ranks uses the
    accelerator, and large batches would mostly be padding.
    """
    facts = ledger.read_json(directory / ledger.SETTINGS_FILE)
    batch_frames = min(facts["settings"]["batch_frames"], _MAX_BATCH_FRAMES)
    if network is None:
        backbone = backbone_of(directory)
        if found := litert.load(backbone, facts["fingerprint"], batch_frames):
            return found
    return restore_extractor(directory, network, batch_frames=batch_frames)


if __name__ == "__main__":
    serve()
