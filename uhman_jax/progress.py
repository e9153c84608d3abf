"""Progress bars: rate and time left on standard error."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Any = None, **options: Any) -> tqdm:
    """Returns a tqdm bar; it writes rarely to a standard error that is no terminal: a log.

    Args:
        iterable: to iterate over; None to call `update` by hand.
        options: of tqdm, such as `total`, `desc` and `unit`; TQDM_DISABLE=1 in the environment
            hides the bar too.
    """
    if not options.get("disable"):
        options.pop("disable", None)  # it would overrule the environment
    terminal = sys.stderr.isatty()
    rate: dict[str, Any] = {"mininterval": 0.2 if terminal else 10.0, "dynamic_ncols": terminal}
    return tqdm(iterable, **{**rate, **options})
