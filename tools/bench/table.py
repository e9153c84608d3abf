"""What every benchmark prints and writes: medians of interleaved rounds, ratios, the machine."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any


def interleave(contestants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Figures of every contestant, asked in turn each round, so that drift hits all alike."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            figures[name].append(measure())
    return figures


def milliseconds(
    call: Callable[[], Any], finish: Callable[[], Any] = lambda: None, repeats: int = 1
) -> Callable[[], float]:
    """A contestant: the time of a call, of `repeats` that follow upon each other.

    It is called twice beforehand, so that it is compiled.

    Args:
        call: need not wait for its end.
        finish: waits for the end of all calls so far.
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


def ratio(figures: dict[str, list[float]], name: str, to: str) -> float:
    """Median over rounds of one contestant's figure over another's of the same round."""
    pairs = zip(figures[name], figures[to], strict=True)
    return statistics.median(one / other for one, other in pairs)


def machine(packages: tuple[str, ...]) -> dict[str, Any]:
    """The processor, its cores, the date and the versions of packages."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        model = names[0] if names else model
    except OSError:
        pass  # not Linux
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def report(
    title: str,
    unit: str,
    figures: dict[str, list[float]],
    ratios: dict[str, float],
    facts: dict[str, Any],
    json_path: str = "",
) -> None:
    """Prints the table and writes all of it to `json_path`, where one is given.

    Args:
        title: the question.
        unit: of the figures.
        figures: per contestant, one per round.
        ratios: by name.
        facts: the machine and the size of the task.
        json_path: file to write; "": none.
    """
    print(f"{title} ({unit}; median, lowest to highest of {len(next(iter(figures.values())))})")
    width = max(map(len, [*figures, *ratios]))
    for name, values in figures.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"  {name:{width}s}  {middle:10.2f}  {low:10.2f} to {high:.2f}")
    for name, value in ratios.items():
        print(f"  {name:{width}s}  {value:10.3f}")
    print("  " + ", ".join(f"{name} {value}" for name, value in facts.items()))
    if json_path:
        content = {"title": title, "unit": unit, "figures": figures, "ratios": ratios, **facts}
        pathlib.Path(json_path).write_text(json.dumps(content, indent=1) + "\n", "utf-8")
