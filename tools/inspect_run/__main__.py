"""Writes a page that shows how a trained model treats its users, and its numbers as JSON.

    python -m tools.inspect_run --run=runs/natural [--output=runs/natural/inspect.html]

The page shows which hashtags a kind of user gets more or less often than others, and whether such
users also write them more or less often; how the suggestions change if another user posts the same
clips; the nearest neighbours of hashtags, and a map; and the metrics by slice. Changing users needs
the features; this part is left out without them.
"""

from absl import flags

from tools import cli
from uhman_jax.runtime.streams import run_app

_RUN = flags.DEFINE_string("run", None, "Folder of a trained and evaluated run.", required=True)
_OUTPUT = flags.DEFINE_string("output", "", "The page; default: inspect.html in the run.")
_SEED = flags.DEFINE_integer("seed", None, "Seed of the model; default: the run's first.")
_TOP_K = flags.DEFINE_integer(
    "top_k", None, "Number of best hashtags that count as suggested; default: 10 or fewer."
)
_MAX_CLIPS = flags.DEFINE_integer(
    "max_clips", 500, "Test clips to rank for other users.", lower_bound=1
)


def main(_: list[str]) -> None:
    """Inspects a run; a user's mistake exits with status 2."""

    def work() -> list[str]:
        from tools.inspect_run.study import inspect_run  # imports JAX
        from uhman_jax.run import keep_compiled_programs

        keep_compiled_programs()
        return inspect_run(
            cli.on_disk("run", _RUN.value),
            cli.on_disk("output", _OUTPUT.value) if _OUTPUT.value else None,
            seed=_SEED.value,
            top_k=_TOP_K.value,
            max_clips=_MAX_CLIPS.value,
        )

    cli.print_report(work)


if __name__ == "__main__":
    run_app(main)
