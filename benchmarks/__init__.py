"""Benchmarks: each module has a `main` that measures, and prints ratios to a peer in the same run (`make bench`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median


def medians(tasks: Mapping[str, Callable[[], object]], repeats: int = 5) -> dict[str, float]:
    """Return the median time of each task in seconds; the tasks take turns, so that a slow minute hits all."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()  # imports and page cache, for all alike
    for _ in range(repeats):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            times[name].append(time.perf_counter() - start)
    return {name: median(taken) for name, taken in times.items()}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(*columns, title=title, title_justify="left")
    for row in rows:
        shown.add_row(*map(str, row))
    Console().print(shown)
