"""Exports a run as one folder: programs, hashtag vectors, vocabulary, model card and a loader.

    python -m tools.export --run=runs/natural --output=exported [--seed=0] [--queries=test]

Its load.py needs only JAX, NumPy and flatbuffers, on CPU, GPU or TPU; its README.md explains the
rest. --queries also writes the query vectors of a split, which needs the features. The output must
be new, empty or an earlier export, which is replaced.
"""

from absl import flags

from tools import cli
from uhman_jax.runtime.streams import run_app

_RUN = flags.DEFINE_string("run", None, "Folder of a trained and evaluated run.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)
_SEED = flags.DEFINE_integer("seed", None, "Seed of the model; default: the run's first.")
_QUERIES = flags.DEFINE_enum(
    "queries",
    "none",
    ["test", "validation", "train", "none"],
    "Split whose query vectors to write.",
)


def main(_: list[str]) -> None:
    """Exports a run; a user's mistake exits with status 2."""

    def work() -> list[str]:
        from tools.export.folder import export_run  # imports JAX

        return export_run(
            cli.on_disk("run", _RUN.value),
            cli.on_disk("output", _OUTPUT.value),
            _SEED.value,
            _QUERIES.value,
        )

    cli.print_report(work)


if __name__ == "__main__":
    run_app(main)
