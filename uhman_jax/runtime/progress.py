"""Shows progress bars with rate and remaining time on standard error."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Any = None, **options: Any) -> tqdm:
    """Returns a tqdm bar; it writes rarely if standard error is a log, not a terminal.

    Args:
        iterable: to iterate over; None if the caller calls `update`.
        options: of tqdm, such as `total`, `desc` and `unit`; TQDM_DISABLE=1 in the environment
            also hides the bar.
    """
    if not options.get("disable"):
        options.pop("disable", None)  # False would override the environment
    terminal = sys.stderr.isatty()
    rate: dict[str, Any] = {"mininterval": 0.2 if terminal else 10.0, "dynamic_ncols": terminal}
    return tqdm(iterable, **{**rate, **options})
