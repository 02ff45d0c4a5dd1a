"""What the benchmarks share: work is accounted for, run some times in turn, and told as a table."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

FIGURES = ("rows_per_second", "client_us", "server_us")


@dataclass(frozen=True)
class Measured:
    """One measured piece of work: rows, wall seconds, CPU seconds of clients and server."""

    rows: int
    seconds: float
    client: float
    server: float

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds

    @property
    def client_us(self) -> float:
        return self.client / self.rows * 1e6

    @property
    def server_us(self) -> float:
        return self.server / self.rows * 1e6


Results = dict[str, list[Measured]]


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    """Add up user and system time."""
    return sum(t.user + t.system for t in (p.cpu_times() for p in processes))


def measure(
    rows: int, clients: Sequence[psutil.Process], server: psutil.Process, work: Callable[[], None]
) -> Measured:
    """Do the work once, and account for it."""
    client, served, began = cpu_seconds(clients), cpu_seconds([server]), time.monotonic()
    work()
    return Measured(
        rows,
        time.monotonic() - began,
        cpu_seconds(clients) - client,
        cpu_seconds([server]) - served,
    )


def run_in_turn(runs: int, one_run: Callable[[int], dict[str, Measured]]) -> Results:
    """Run so many times after a warm-up, which is run 0 and does not count."""
    results: Results = {}
    for run in range(runs + 1):
        done = one_run(run)
        if run:
            for name, measured in done.items():
                results.setdefault(name, []).append(measured)
        shown = ", ".join(f"{n} {m.rows_per_second:,.0f} rows/s" for n, m in done.items())
        print(f"{'run ' + str(run) if run else 'warm-up'}: {shown}", flush=True)
    return results


def print_table(results: Results, pairs: Sequence[tuple[str, str]], unit: str) -> None:
    """Print medians with their spread, and ratios taken pair by pair; `unit` is row or item."""
    print(f"\n{'':<24}{'rows/s':>26}{'client µs/' + unit:>22}{'server µs/' + unit:>22}")
    for name, runs in results.items():
        cells = []
        for figure in FIGURES:
            values = sorted(getattr(run, figure) for run in runs)
            median = statistics.median(values)
            cells.append(f"{median:,.0f} ({values[0]:,.0f} to {values[-1]:,.0f})")
        print(f"{name:<24}{cells[0]:>26}" + "".join(f"{cell:>22}" for cell in cells[1:]))
    print("\nmedians of pairs:")
    for name, other in pairs:
        if other not in results:
            continue
        both = list(zip(results[name], results[other], strict=True))
        speed, client, server = (
            statistics.median(getattr(a, figure) / getattr(b, figure) for a, b in both)
            for figure in FIGURES
        )
        print(
            f"  {name} / {other}: {speed:.2f} of the rows a second, "
            f"{client:.2f} of the client CPU, {server:.2f} of the server CPU"
        )
