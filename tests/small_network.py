"""A small backbone and faulty decoders for tests; as a program, the processes that they start."""

import dataclasses
import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from uhman_jax.backbone import INCEPTION_V3
from uhman_jax.config import PreprocessConfig
from uhman_jax.runtime.errors import UserError, user_message
from uhman_jax.runtime.storage import atomic_write


class SmallNetwork:
    """Four regions of five channels; checks that batches never exceed their size."""

    BACKBONE = dataclasses.replace(INCEPTION_V3, image_size=8, grid=2, num_channels=5)
    backbone = BACKBONE
    calls_at_once = 1
    fail_after = None  # calls until it dies

    def __init__(self, matrix, description, batch_frames):
        self.matrix, self.description, self.batch_frames = matrix, description, batch_frames
        self.fingerprint = hashlib.sha256(matrix.tobytes()).hexdigest()
        self.calls = 0

    @classmethod
    def load(cls, backbone, weights, *, seed, calibration_images, batch_frames, precision):
        matrix = np.random.default_rng(seed).standard_normal((4, 48, 5), np.float32)
        if calibration_images is not None:
            assert calibration_images.shape[1:] == (8, 8, 3)
            matrix = matrix / np.float32(1 + calibration_images.mean())
        return cls(matrix, f"{weights} numbers", batch_frames)

    @classmethod
    def restore(cls, backbone, path, description, batch_frames, precision):
        try:
            matrix = np.load(path)
        except ValueError as error:
            raise UserError(f"{path} is damaged") from error
        return cls(matrix, description, batch_frames)

    def save(self, path):
        with atomic_write(path) as file:
            np.save(file, self.matrix)

    def features(self, images):
        assert 0 < len(images) <= self.batch_frames
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        time.sleep(float(os.environ.get("SMALL_NETWORK_SECONDS", "0")))
        patches = images.astype(np.float32).reshape(-1, 2, 4, 2, 4, 3).swapaxes(2, 3)
        return np.einsum("nrp,rpc->nrc", patches.reshape(-1, 4, 48), self.matrix) / 255


def small_config(**changes):
    values = {"max_frames": 3, "videos_per_shard": 2, "batch_frames": 4, "num_decoders": 1}
    return PreprocessConfig(**(values | {"calibration_frames": 0} | changes))


def encode(
    root, output, inputs=None, *, network=SmallNetwork, retry=(), part=None, beam=None, **changes
):
    """Preprocesses a folder, or a folder of a bucket, with the small network."""
    from uhman_jax.preprocess import find_videos, pipeline
    from uhman_jax.runtime import storage

    return pipeline.preprocess(
        root,
        find_videos.list_inputs(storage.path(root)) if inputs is None else inputs,
        output,
        small_config(**changes),
        network=network,
        progress=False,
        retry=retry,
        part=part,
        beam_options=beam,
    )


def misbehave(path, **options):
    """A decoder for `decode_worker.serve` that hangs or crashes on files named so."""
    from uhman_jax.preprocess.decode import sample_frames

    name = os.path.basename(path)
    if "hang" in name:
        time.sleep(1000)
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "exit" in name:
        os._exit(3)
    if "greedy" in name:
        np.ones(1 << 33, np.uint8)
    if "surprise" in name:
        raise ZeroDivisionError("a defect of a library")
    if "odd" in name:  # messages differ, the line does not
        raise AttributeError(f"no such box in {name}")
    return sample_frames(path, **options)


def outdated(path, **options):
    """A decoder on a library of another version, which lacks an argument."""
    raise TypeError("open() got an unexpected keyword argument")


def turning(path, **options):
    """A decoder that works until the file $TURNED exists."""
    from uhman_jax.preprocess.decode import sample_frames

    if os.path.exists(os.environ["TURNED"]):
        return outdated(path, **options)
    return sample_frames(path, **options)


if __name__ == "__main__":
    if sys.argv[1] == "preprocess":
        from uhman_jax.preprocess import pipeline

        folder, output, *arguments = sys.argv[2:]
        videos = [(path.name, path.name) for path in Path(folder).glob("*.mp4")]
        options = None
        if arguments:
            from uhman_jax.preprocess import beam

            options = beam.options_of(arguments)
        # Pickled by the name of a module that workers can import.
        network = __import__("small_network").SmallNetwork
        try:
            pipeline.preprocess(
                folder, videos, output, small_config(), network=network, beam_options=options
            )
        except Exception as error:  # as the command line does
            if not user_message(error):
                raise
            print(user_message(error), file=sys.stderr)
            sys.exit(2)
    elif sys.argv[1] == "serve":
        from uhman_jax.preprocess import feature_worker

        del sys.argv[1]
        feature_worker.serve(SmallNetwork)
    else:
        from uhman_jax.preprocess import decode_worker

        decoders = {"misbehave": misbehave, "outdated": outdated, "turning": turning}
        decode_worker.serve(decoders[sys.argv.pop(1)])
