"""Serves a web page for a trained run: hashtags for a clip and a user, and an explanation.

    python -m uhman_jax.demo --run=runs/natural

Listens on http://127.0.0.1:7860, which only this machine can reach (see --host). Needs the extra
[demo]. Other programs can send the same requests: see README.md in this folder.
"""

import os
import signal
import tempfile
import threading

from absl import flags, logging

from uhman_jax.runtime import signals
from uhman_jax.runtime.errors import UserError, exit_on_user_error
from uhman_jax.runtime.streams import run_app

_RUN = flags.DEFINE_string("run", None, "Directory of a trained run.", required=True)
_FEATURES = flags.DEFINE_string(
    "features",
    "",
    "Features folder of the run, which has the extractor; default: as in the run's config.",
)
_SEED = flags.DEFINE_integer("seed", None, "Seed of the model; default: the first.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen on; 0.0.0.0: all networks.")
_PORT = flags.DEFINE_integer(
    "port", 7860, "Port to listen on; 0: any.", lower_bound=0, upper_bound=65535
)
_EXAMPLES = flags.DEFINE_string("examples", "", "Folder of example clips; default: test clips.")
_MEGABYTES = flags.DEFINE_float(
    "max_megabytes", 100.0, "Maximum clip size in MiB.", lower_bound=0.1
)
_SECONDS = flags.DEFINE_float("max_seconds", 180.0, "Maximum clip length.", lower_bound=1.0)
_TIMEOUT = flags.DEFINE_float("timeout", 20.0, "Maximum decoding time in seconds.", lower_bound=1.0)
_QUEUE = flags.DEFINE_integer("queue", 16, "Maximum number of waiting requests.", lower_bound=1)


def run() -> None:
    """Serves the page until a signal arrives, then deletes the uploads."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError("the page needs gradio; pip install -e '.[demo]'") from error
    from uhman_jax.demo.server import Answers, build, examples_of, launch
    from uhman_jax.recommend.recommender import Recommender

    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRADIO_TEMP_DIR"] = os.path.join(folder, "uploads")
        bounds = {
            "clip_timeout": _TIMEOUT.value,
            "max_seconds": _SECONDS.value,
            "max_megabytes": _MEGABYTES.value,
        }
        with Recommender.load(
            _RUN.value, features=_FEATURES.value, seed=_SEED.value, bounds=bounds
        ) as recommender:
            print("Loading the network.", flush=True)
            recommender.warm_up()
            examples = examples_of(recommender, folder, _EXAMPLES.value)
            simulated = bool(recommender.metrics.get("simulated"))
            blocks = build(Answers(recommender), recommender.view, examples, simulated)
            blocks.queue(max_size=_QUEUE.value)
            address = launch(blocks, _HOST.value, _PORT.value, folder, _MEGABYTES.value)
            ended = threading.Event()
            for number in signals.NUMBERS:
                signal.signal(number, lambda *unused: ended.set())
            print(f"Open {address} (Ctrl-C stops the server).", flush=True)
            ended.wait()
            blocks.close(verbose=False)


def main(_: list[str]) -> None:
    """Runs the command line; a user error prints one sentence and gives exit status 2."""
    logging.set_verbosity(logging.ERROR)
    with exit_on_user_error("error: "), signals.exit_on_signal():
        run()


if __name__ == "__main__":
    run_app(main)
