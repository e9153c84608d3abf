"""Progress bars: rate and time left on standard error."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Any = None, **options: Any) -> tqdm:
    """A tqdm bar; where standard error is no terminal it writes rarely, so that logs stay short.

    Args:
        iterable: what to go through; None to call `update` by hand.
        options: tqdm's own, such as `total`, `desc` and `unit`; without `disable`, or where it is
            false, TQDM_DISABLE=1 in the environment hides the bar.
    """
    if not options.get("disable"):
        options.pop("disable", None)  # it would overrule the environment
    terminal = sys.stderr.isatty()
    rate: dict[str, Any] = {"mininterval": 0.2 if terminal else 10.0, "dynamic_ncols": terminal}
    return tqdm(iterable, **{**rate, **options})
