"""Measures how this project's cost a row changes with rows, workers and token ranges.

    python -m benchmarks.growth --rows 100000,1000000,10000000

One table grows by added rows, on a server of the benchmark's own. At each size it is copied and
compared; at the size of --base-rows also with other numbers of workers and ranges, all of them in
turn. Each work has processes of its own, so that a peak of memory is its own too; they are started,
connected and have done one range each before it is measured. Writes docs/benchmarks-growth.md and
all figures as JSON, anew after each size.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import psutil

from benchmarks.bench import Bench, PeerError, machine, serving, versions
from benchmarks.measuring import Measured, say, spread, wait_until_idle
from benchmarks.peers import KEYSPACE, PROCESSES, TOKEN_RANGES, Peer, Place, Work, own
from benchmarks.report import command_line, lay_table, show_figure
from benchmarks.tables import open_writer, prepare_rows
from migration_platform.cql.names import TableName
from migration_platform.cql.rows import UNSET, join_cells
from migration_platform.demo import sample
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.stack import available_disk_mb, home_folder, jars_cache, running
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.tables import describe_table

PAGE = "benchmarks-growth.md"
DISK_BYTES_A_ROW = 2_000
"""Origin and target with what compaction needs beside them: a row weighs some 500 bytes."""
# A server that has taken 10^7 rows compacts them for some minutes.
IDLE_TRIES_AFTER_FILLING = 900
MANY_ROWS = 1_000_000
VALUES_MADE = 20_000
ROWS_A_STEP = 500_000
FIGURES = ("rows_per_second", "client_us", "server_us", "largest_mb")
HEAD = ("rows/s", "client CPU, µs a row", "server CPU, µs a row", "largest process, MB", "runs")
NEW, OWN = own.PEERS


@dataclass(frozen=True, order=True)
class Setting:
    """What is varied."""

    rows: int
    workers: int = PROCESSES
    ranges: int = TOKEN_RANGES


@dataclass(frozen=True)
class Growth:
    """Everything that the page says.

    Attributes:
        command: How it was measured.
        base: Rows with which workers and ranges were varied.
        fill: Rows -> how many a second were added to reach them.
        results: A setting and a work's name -> its runs.
    """

    command: str
    base: int
    heap_mb: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    fill: dict[int, float] = field(default_factory=dict)
    results: dict[tuple[Setting, str], list[Measured]] = field(default_factory=dict)


def make_items(
    tails: Sequence[bytes], first: int, last: int
) -> Iterator[tuple[bytes, list[bytes]]]:
    """Make the rows from `first` to before `last` as they are bound, user by user.

    Users and batches are none of those before `first`, as many for a number of rows as
    `sample.enrolments` makes. Keys are a row's own; what follows them is one of `tails`.
    """
    rng = random.Random(first)
    batch = first // sample.ENROLMENTS_A_BATCH
    # A user takes part in as many batches as there are rows of it.
    most = max(last // sample.ENROLMENTS_A_BATCH, batch + sample.ENROLMENTS_A_USER)
    batches = range(batch, most)
    for start in range(first, last, sample.ENROLMENTS_A_USER):
        user = sample.name_user(rng, start // sample.ENROLMENTS_A_USER).encode()
        count = min(sample.ENROLMENTS_A_USER, last - start)
        chosen: set[int] = set()
        while len(chosen) < count:
            chosen.add(batches[int(rng.random() * len(batches))])
        items = []
        for batch in chosen:
            keys = (user, sample.name_course(batch).encode(), sample.name_batch(batch).encode())
            items.append(join_cells(keys, UNSET) + tails[int(rng.random() * len(tails))])
        yield user, items


def make_tails(connection: Connection, statement) -> list[bytes]:
    """Make all values but the keys' of some enrolments as they are bound."""
    from cassandra.query import UNSET_VALUE

    names = [name for name, _ in sample.COLUMNS]
    tails = []
    for row in sample.enrolments(VALUES_MADE):
        bound = statement.prepared.bind([row.get(name, UNSET_VALUE) for name in names])
        cells = (None if value is UNSET_VALUE else value for value in bound.values[3:])
        tails.append(join_cells(cells, UNSET))
    return tails


def grow(connection: Connection, have: int, want: int) -> float:
    """Add rows to the origin; gives how many a second."""
    table = describe_table(connection, TableName(KEYSPACE, sample.ORIGIN_TABLE))
    statement = prepare_rows(connection, table, [name for name, _ in sample.COLUMNS])
    tails = make_tails(connection, statement)
    writer = open_writer(connection, table, statement, consistency="LOCAL_ONE")
    began = time.monotonic()
    for user, items in make_items(tails, have, want):
        before = writer.rows_written // ROWS_A_STEP
        writer.write_group(items, user)
        if writer.rows_written // ROWS_A_STEP > before:
            say(f"  {have + writer.rows_written:,} of {want:,} rows")
    writer.flush()
    if writer.rows_written != want - have:
        raise SystemExit(f"{writer.rows_written:,} of {want - have:,} rows were written")
    return (want - have) / (time.monotonic() - began)


def measure(bench: Bench, setting: Setting, peer: Peer, work: Work) -> Measured:
    """Measure a work once by processes of its own that have each done one range."""
    options = ("--workers", str(setting.workers), "--ranges", str(setting.ranges))
    told = replace(peer, arguments=(*peer.arguments, *options))
    bench.rows = setting.rows
    with serving(told, bench.place) as served:
        served.wait_until_ready()
        served.ask(work=work.name, ranges=setting.workers)
        served.go()
        bench.served = {peer.name: served}
        return bench.do(told, work)


def measure_in_turn(
    bench: Bench,
    settings: Sequence[Setting],
    works: Sequence[tuple[Peer, Work]],
    runs: int,
    growth: Growth | None,
) -> None:
    """Measure works with several settings, another setting first in each run."""
    for run in range(runs):
        at = run % len(settings)
        for setting in (*settings[at:], *settings[:at]):
            for peer, work in works:
                done = measure(bench, setting, peer, work)
                if done.lost:
                    raise SystemExit(f"{done.lost:,} rows did not arrive: {work.name}, {setting}")
                say(
                    f"{f'run {run + 1}' if growth else 'warm-up'}: {work.name}, "
                    f"{setting.rows:,} rows, {setting.workers} workers, {setting.ranges} ranges: "
                    f"{done.rows_per_second:,.0f} rows/s, {done.client_us:,.1f} and "
                    f"{done.server_us:,.1f} µs a row, {done.largest_mb:,.0f} MB"
                )
                if growth:
                    growth.results.setdefault((setting, work.name), []).append(done)


def make_page(growth: Growth) -> str:
    """Write the page in Markdown."""
    settings = sorted({setting for setting, _ in growth.results})
    standard = [each for each in settings if each == Setting(each.rows)]
    at_base = [each for each in settings if each.rows == growth.base]
    by_workers = [each for each in at_base if each.ranges == TOKEN_RANGES]
    by_ranges = [each for each in at_base if each.workers == PROCESSES]
    sections = [
        "# Growth",
        "What a row costs this project as rows, workers and token ranges grow. This page and "
        f"[all figures](benchmarks-growth.json) are written by `{growth.command}`.",
        _conditions(growth),
        "## By rows",
        f"{PROCESSES} workers, {TOKEN_RANGES} ranges.",
        *_compare(growth, standard, "rows"),
    ]
    base = f"{growth.base:,} rows"
    if len(by_workers) > 1:
        sections += ["## By workers", f"{base}, {TOKEN_RANGES} ranges."]
        sections += _compare(growth, by_workers, "workers")
    if len(by_ranges) > 1:
        sections += ["## By ranges", f"{base}, {PROCESSES} workers."]
        sections += _compare(growth, by_ranges, "ranges")
    sections += ["## How it is measured", _method(growth)]
    sections += ["## How to repeat it", f"```\n{growth.command}\n```"]
    sections.append("Nothing else should run on the machine meanwhile.")
    return "\n\n".join(sections) + "\n"


def _conditions(growth: Growth) -> str:
    return (
        "Enrolments of 19 columns and about 500 bytes, from a table by user to one by batch, one "
        f"node, replication factor 1, {growth.heap_mb:,} MB of heap. "
        f"{', '.join(growth.machine.values())}; server and clients share it. Each figure is the "
        "median of its runs, with minimum and maximum where there are several. "
        + ", ".join(f"{name} {version}" for name, version in growth.versions.items())
        + "."
    )


def _compare(growth: Growth, settings: Sequence[Setting], varied: str) -> list[str]:
    """Give a table of what one thing changes, and its outcome in words."""
    rows = [["", varied, *HEAD]]
    said = []
    for work in (work for peer in own.PEERS for work in peer.works):
        measured = [
            (each, growth.results[each, work.name])
            for each in settings
            if (each, work.name) in growth.results
        ]
        for number, (setting, runs) in enumerate(measured):
            rows.append(
                [
                    "" if number else f"**{work.name}**",
                    f"{getattr(setting, varied):,}",
                    *(show_figure(runs, figure) for figure in FIGURES),
                    f"{len(runs)}",
                ]
            )
        if len(measured) > 1:
            (least, first), (most, last) = measured[0], measured[-1]
            shares = [spread(last, figure)[0] / spread(first, figure)[0] for figure in FIGURES]
            compared = f"{getattr(most, varied):,} for {getattr(least, varied):,} {varied}"
            said.append(
                f"- {work.name}, {compared}: "
                f"{shares[0]:.2f} times the rows a second, {shares[1]:.2f} times the client's CPU "
                f"a row, {shares[2]:.2f} times the server's, {shares[3]:.2f} times the memory."
            )
    return [lay_table(rows), "\n".join(said)] if said else [lay_table(rows)]


def _method(growth: Growth) -> str:
    filled = ", ".join(f"{rate:,.0f} rows/s up to {rows:,}" for rows, rate in growth.fill.items())
    return (
        "The origin grows by added rows, of users and in batches that are new as well, and is left "
        f"alone until the server is idle ({filled}). Keys are a row's own; the other values repeat "
        f"after {VALUES_MADE:,} rows. Each work is done by processes that were started for it, "
        "connected, and have done one range each beforehand; the target is emptied before a copy "
        "and counted after it, and a comparison finds every row equal or ends the benchmark. The "
        "smallest size is done once as a warm-up that does not count.\n"
        "\n"
        "CPU is the kernel's account of all client processes and of the server's; what a server "
        "compacts while it is written to counts, what it does later is nobody's. Memory is the "
        "kernel's peak of the largest client process. More workers than cores compete with the "
        "server, which shares them."
    )


def write_page(growth: Growth, folder: Path) -> list[Path]:
    """Write page and numbers; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / PAGE
    figures = page.with_suffix(".json")
    page.write_text(make_page(growth), encoding="utf-8")
    results = [
        asdict(setting) | {"work": work, "runs": [asdict(run) for run in runs]}
        for (setting, work), runs in growth.results.items()
    ]
    shown = {name: getattr(growth, name) for name in ("command", "machine", "versions", "fill")}
    figures.write_text(json.dumps(shown | {"results": results}, indent=1) + "\n", encoding="utf-8")
    return [page, figures]


def require_disk(rows: int, folder: Path) -> None:
    """Refuse what would fill the disk.

    Raises:
        SystemExit: with one sentence.
    """
    needed, free = rows * DISK_BYTES_A_ROW // 2**20, available_disk_mb(folder)
    if free < needed:
        raise SystemExit(
            f"{rows:,} rows need some {needed:,} MB of disk and {folder} has {free:,} MB; take "
            "fewer --rows or another MIGRATION_PLATFORM_HOME."
        )


def numbers(text: str) -> list[int]:
    """Read a list of numbers."""
    found = sorted({int(part) for part in text.split(",")})
    if not found or found[0] < 1:
        raise argparse.ArgumentTypeError("numbers above 0 with commas between them are wanted")
    return found


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.growth", description=(__doc__ or "").splitlines()[0]
    )
    add = parser.add_argument
    add("--rows", type=numbers, default=numbers("100000,1000000,10000000"), help="sizes")
    add("--workers", type=numbers, default=numbers("1,2,3,4"), help="at the size of --base-rows")
    add("--ranges", type=numbers, default=numbers("16,64,256,1024"), help="likewise")
    add("--base-rows", type=int, default=200_000)
    add("--runs", type=int, help="of each; 3 unless given, and 1 above a million rows")
    add(
        "--times-rows",
        type=int,
        default=MANY_ROWS,
        help="up to this size also with every cell's own times",
    )
    add("--heap-mb", type=int, default=Cassandra.heap_mb, help="of the server")
    add("--docs", type=Path, default=Path("docs"), help="where the page goes")
    options = parser.parse_args()
    if min(*options.rows, options.base_rows) < sample.ENROLMENTS_A_BATCH:
        parser.error(f"at least {sample.ENROLMENTS_A_BATCH} rows are needed")
    return options


def main() -> None:
    """Run the benchmark and write its page."""
    options = parse_arguments()
    sizes = sorted({*options.rows, options.base_rows})
    home_folder().mkdir(parents=True, exist_ok=True)
    require_disk(sizes[-1], home_folder())
    cache = jars_cache(home_folder())
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=home_folder())))
        server = Cassandra(heap_mb=options.heap_mb)
        cassandra = stack.enter_context(running(server, home=home, jars_folder=cache, report=say))
        connection = stack.enter_context(Connection(CassandraSettings(port=cassandra.port)))
        place = Place(
            host=cassandra.host,
            port=cassandra.port,
            dynamodb_url="",
            folder=home,
            packages=home,
            jars=cache,
        )
        process = psutil.Process(cassandra.pid)
        bench = Bench(place, 0, 0, connection, process, None, None, {})
        growth = Growth(
            command=command_line("growth"),
            base=options.base_rows,
            heap_mb=options.heap_mb,
            machine=machine(),
            versions=versions(list(own.PEERS), place, connection),
        )
        sample.create_tables(connection, KEYSPACE)
        for have, rows in pairwise((0, *sizes)):
            say(f"adding {rows - have:,} rows to {have:,}")
            growth.fill[rows] = grow(connection, have, rows)
            say(f"  {growth.fill[rows]:,.0f} rows/s; waiting until the server is idle")
            wait_until_idle(process, IDLE_TRIES_AFTER_FILLING)
            new = [(NEW, work) for work in NEW.works]
            both = [*new, *((OWN, work) for work in OWN.works)]
            works = both if rows <= options.times_rows else new
            runs = options.runs or (1 if rows > MANY_ROWS else 3)
            try:
                if not have:
                    measure_in_turn(bench, [Setting(rows)], works, 1, None)
                if rows in options.rows:
                    measure_in_turn(bench, [Setting(rows)], works, runs, growth)
                if rows == options.base_rows:
                    measured = [Setting(rows)] if rows in options.rows else []
                    varied = {Setting(rows, workers=each) for each in options.workers}
                    varied |= {Setting(rows, ranges=each) for each in options.ranges}
                    settings = sorted(varied - set(measured))
                    if settings:
                        measure_in_turn(bench, settings, new, runs, growth)
            except PeerError as error:
                raise SystemExit(f"A work failed: {error}") from error
            say(f"wrote {', '.join(str(p) for p in write_page(growth, options.docs))}")


if __name__ == "__main__":
    main()
