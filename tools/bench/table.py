"""Times the contestants of a benchmark in interleaved rounds; prints and writes the figures."""

import datetime
import importlib
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any


def milliseconds(
    call: Callable[[], Any], finish: Callable[[], Any] = lambda: None, repeats: int = 1
) -> Callable[[], float]:
    """Returns a contestant that measures the mean time of `repeats` calls in a row.

    Calls the function twice beforehand, so that it is compiled.

    Args:
        call: may return before its work is done.
        finish: waits until the work of all calls is done.
        repeats: calls in a round.
    """

    def measure() -> float:
        begin = time.perf_counter()
        for _ in range(repeats):
            call()
        finish()
        return 1e3 * (time.perf_counter() - begin) / repeats

    call()
    call()
    finish()
    return measure


def installed(library: str) -> bool:
    """Returns whether the library of a peer is installed; prints a line if it is not."""
    try:
        importlib.import_module(library)
    except ImportError as error:
        print(f"{library} is not installed ({error}): its rows are left out")
        return False
    return True


def ratio(figures: dict[str, list[float]], name: str, to: str) -> float:
    """Returns the median over rounds of one contestant's figure divided by another's."""
    pairs = zip(figures[name], figures[to], strict=True)
    return statistics.median(one / other for one, other in pairs)


def machine(packages: Iterable[str]) -> dict[str, Any]:
    """Returns the processor, its cores, the date and the versions of packages."""
    model = platform.processor() or platform.machine()
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass  # not Linux
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    return {
        "processor": model,
        "cores": len(usable(0)),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def compare(
    title: str,
    unit: str,
    contestants: dict[str, Callable[[], float]],
    rounds: int,
    ratios: Iterable[tuple[str, ...]],
    facts: dict[str, Any],
    json_path: str,
) -> None:
    """Measures the contestants, prints a table and writes it to `json_path` (unless "").

    Each round measures every contestant once, so that drift affects all equally.

    Args:
        title: title of the table.
        unit: unit of the figures.
        contestants: each returns one figure.
        rounds: number of figures per contestant.
        ratios: contestant, contestant to divide by and, optionally, the latter's printed name.
        facts: the machine and the size of the task.
        json_path: file to write.
    """
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            figures[name].append(measure())
    medians = {f"{name} / {to[-1]}": ratio(figures, name, to[0]) for name, *to in ratios}
    print(f"{title} ({unit}; median, lowest to highest of {rounds})")
    width = max(map(len, [*figures, *medians]))
    for name, values in figures.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"  {name:{width}s}  {middle:10.2f}  {low:10.2f} to {high:.2f}")
    for name, value in medians.items():
        print(f"  {name:{width}s}  {value:10.3f}")
    print("  " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    if json_path:
        content = {"title": title, "unit": unit, "figures": figures, "ratios": medians, **facts}
        pathlib.Path(json_path).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
