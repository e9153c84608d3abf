"""`python -m uhman_jax.preprocess --root=FOLDER`: videos to TFRecord shards of region features.

With --runner=NAME the shards are made on Apache Beam, and what is no flag here goes to Beam.

Without it several machines that share the folders can each make a part: first --part=0/16, which
keeps the weights that all need; then 1/16 to 16/16, at once; last the same command without --part.
"""

import dataclasses
import enum

from absl import flags

from uhman_jax import stop, storage
from uhman_jax.config import Config, PreprocessConfig
from uhman_jax.config_checks import validate
from uhman_jax.errors import UserError, count_of, exit_on_user_error
from uhman_jax.streams import run_app

_ROOT = flags.DEFINE_string(
    "root",
    None,
    "Folder of the videos; those that its videos.csv lists, else all.",
    required=True,
)
_OUTPUT = flags.DEFINE_string("output", "", "Folder of the shards; default: ROOT/features/<hash>.")
_RETRY = flags.DEFINE_list("retry", [], "States (e.g. timeout) whose shards are made again.")
_RUNNER = flags.DEFINE_string(
    "runner", "", "Beam runner, e.g. DirectRunner, FlinkRunner, SparkRunner, DataflowRunner."
)
_PART = flags.DEFINE_string("part", "", "NUMBER/COUNT of the shards to make, e.g. 2/16; see above.")
_HELP = {
    "weights": "random (no download), imagenet (download) or a Keras .h5 file (no top)",
    "weights_seed": "seed of random weights",
    "calibration_frames": "frames that set the batch statistics of random weights; 0: none",
    "frames_per_second": "sampling rate",
    "max_frames": "frames kept per clip, spread evenly",
    "storage": "how features are held",
    "videos_per_shard": "videos in a shard, the unit of work",
    "batch_frames": "frames per call of the network; 128 on a GPU",
    "precision": "of the network's activations; bfloat16 for a GPU",
    "backend": "what runs the network; auto: JAX where it has an accelerator, else TensorFlow",
    "num_decoders": "decoding processes; 0: one per core, at most 8",
    "clip_timeout": "seconds of decoding after which a clip is given up",
    "max_megabytes": "larger files are not read",
    "max_seconds": "longer clips are not decoded",
    "max_megapixels": "clips with larger pictures are not decoded",
    "decoder_memory": "GiB of address space of a decoding process; 0: no limit",
}
_DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float}


def _define_flags() -> dict[str, flags.FlagHolder]:
    holders = {}
    for field in dataclasses.fields(PreprocessConfig):
        if field.name not in _HELP:
            continue
        if isinstance(field.default, enum.Enum):
            holders[field.name] = flags.DEFINE_enum_class(
                field.name, field.default, type(field.default), _HELP[field.name]
            )
        else:
            define = _DEFINE[type(field.default)]
            holders[field.name] = define(field.name, field.default, _HELP[field.name])
    return holders


_FIELDS = _define_flags()


def run(beam_arguments: list[str]) -> None:
    """Makes the features and prints the ledger's counts.

    Args:
        beam_arguments: what the command line says to Beam.

    Raises:
        UserError: as `pipeline.preprocess`.
    """
    from uhman_jax.preprocess import ledger, pipeline
    from uhman_jax.preprocess.find_videos import list_inputs

    root = storage.path(_ROOT.value)
    config = Config(preprocess=PreprocessConfig(**{k: f.value for k, f in _FIELDS.items()}))
    try:
        validate(config)
    except UserError as error:  # it names settings by their path in a config
        raise UserError(str(error).replace("preprocess.", "--")) from error
    if unknown := set(_RETRY.value) - set(ledger.STATES):
        raise UserError(
            f"--retry must name states of {', '.join(ledger.STATES)}, got "
            f"{', '.join(map(repr, sorted(unknown)))}; leave out the others"
        )
    part = pipeline.Part.parse(_PART.value) if _PART.value else None
    if part and (_RUNNER.value or _RETRY.value):
        other = "--runner" if _RUNNER.value else "--retry"
        raise UserError(
            f"--part goes with neither --runner nor --retry, got {other}; leave one out"
        )
    beam_options = None
    if _RUNNER.value:
        try:
            from uhman_jax.preprocess import beam
        except ImportError as error:
            raise UserError(
                "--runner needs Apache Beam, which is not installed; pip install -e '.[beam]'"
            ) from error
        beam_options = beam.options_of([f"--runner={_RUNNER.value}", *beam_arguments])
    directory = storage.path(_OUTPUT.value or pipeline.features_dir(root, config.preprocess))
    if _OUTPUT.value or root.is_dir():
        storage.check_folder(directory, "--output")
    inputs = list_inputs(root, ledger.frame_times(directory))
    summary = pipeline.preprocess(
        root,
        inputs,
        directory,
        config.preprocess,
        retry=tuple(_RETRY.value),
        beam_options=beam_options,
        part=part,
    )
    if part and not part.number:
        print(f"the weights are in {directory}; go on with --part=1/{part.count}")
        return
    for state, count in summary.counts.items():
        print(f"{state:12s} {count:8d}")
    if summary.seconds:
        rate = summary.frames / summary.seconds
        frames = count_of(summary.frames, "frame")
        print(f"{frames} in {summary.seconds:.1f} s, {rate:.1f} frames/s")
    if summary.reused:
        print(f"{summary.reused} of {count_of(len(summary.entries), 'clip')} had features already")
    if part:
        print(f"part {part} is in {directory}; when all are, run once more without --part")
    else:
        print(f"features and ledger.jsonl are in {directory}")


def main(argv: list[str]) -> None:
    """Turns a user's mistake into one sentence and exit status 2, a signal into 75."""
    with exit_on_user_error(), stop.exit_on_signal():
        if len(argv) > 1 and not _RUNNER.value:
            raise UserError(f"everything is a flag, got {argv[1]!r}; write e.g. --root=FOLDER")
        run(argv[1:])


def _for_beam(argv: list[str]) -> bool:
    """Whether unknown flags are left to Beam."""
    return any(word.lstrip("-").split("=")[0] == "runner" for word in argv[1:])


if __name__ == "__main__":
    run_app(main, known_only=_for_beam)
