"""The benchmark's page and picture say what was measured, also what looks bad."""

import json
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest

from benchmarks import nodes
from benchmarks.measuring import Family, Measured, Spent, ratio, ratios, spend, spread
from benchmarks.peers import LOCK, Peer, Work, all_peers
from benchmarks.report import Differing, Report, draw, make_page, write_report
from migration_platform.local.jars import parse_lock

SVG = "{http://www.w3.org/2000/svg}"
OURS = Work(name="this project, new times", group="copy", keeps="all <of> it")
THEIRS = Work(name="a peer", group="copy", lacks="TTL")
PEERS = (
    Peer(name="own", works=(OURS,), settings="two workers", module="own"),
    Peer(name="peer", works=(THEIRS,), settings="1g heap", commands=lambda place, work, where: []),
)


def measured(seconds: float, *, start: float | None = None, arrived: int = 10_000) -> Measured:
    began = None if start is None else Spent(1_000, start, start, start / 2)
    spent = Spent(10_000, seconds, seconds / 2, seconds / 4)
    return Measured(spent, began, peak_mb=300.0, largest_mb=100.0, arrived=arrived)


def report(**changes) -> Report:
    fields = {
        "command": "make bench",
        "rows": 10_000,
        "items": 0,
        "runs": 3,
        "mixed": False,
        "machine": {"cores": "2"},
        "versions": {"Cassandra": "5.0.6"},
        "starts": {"own": Spent(0, 2.5, 1.5, 0.0)},
        "results": {
            OURS.name: [measured(1.0), measured(0.5), measured(2.0)],
            THEIRS.name: [measured(4.0), measured(5.0), measured(4.0)],
        },
    }
    return Report(**(fields | changes))


def line_of(page: str, name: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(("| " + name, f"| **{name}")))


def test_a_work_is_shown_with_median_minimum_and_maximum() -> None:
    line = line_of(make_page(report(), PEERS), OURS.name)

    assert "| 10,000 (5,000 to 20,000) | 50 (25 to 100) | 25 (12 to 50) |" in line
    assert "| 300 (largest process 100) | 2.5 (1.5) | all <of> it | - |" in line


def test_what_starting_takes_is_no_part_of_a_rows_cost() -> None:
    run = measured(5.5, start=1.0)

    assert run.rows_per_second == pytest.approx(9_000 / 4.5)
    assert line_of(make_page(report(results={THEIRS.name: [run]}), PEERS), THEIRS.name).endswith(
        "| 1.0 (1.0) | - | TTL |"
    )


def test_a_start_that_hides_the_work_gives_no_figure_instead_of_a_wrong_one() -> None:
    run = measured(0.5, start=1.0)

    assert math.isnan(run.rows_per_second)
    assert "| a peer | - | - | - |" in make_page(report(results={THEIRS.name: [run]}), PEERS)
    assert math.isnan(spread([run], "client_us")[0])
    assert math.isnan(ratio([measured(1.0)], [run], "rows_per_second"))


def test_this_project_is_compared_with_each_peer_run_by_run() -> None:
    assert "| of a peer | 4.0 times |" in make_page(report(), PEERS)


def test_lost_and_changed_rows_and_failures_are_told() -> None:
    lost = {THEIRS.name: [measured(1.0, arrived=9_990), measured(1.0)]}
    page = make_page(
        report(
            results=lost,
            differing={THEIRS.name: Differing(7, 9, {"certificates": "null became []", "at": ""})},
            failed={OURS.name: "it ended with code 1; its log: /somewhere"},
        ),
        PEERS,
    )

    assert "- a peer: up to 10 rows did not arrive, in 1 of 2 runs." in page
    told = "of 9 rows that were compared, the values of 7 are not the origin's, in `at`, "
    assert f"- a peer: {told}`certificates` " in page
    assert "(null became [])." in page
    assert f"- {OURS.name}: failed; it ended with code 1." in page
    assert "/somewhere" not in page
    assert "All rows arrived" not in page


def test_values_are_only_vouched_for_where_they_were_compared() -> None:
    same = {OURS.name: Differing(0, 9)}

    assert "All rows arrived in every run." in make_page(report(), PEERS)
    assert "every run, with the values of the" in make_page(report(differing=same), PEERS)


def test_the_picture_has_a_bar_for_each_work_and_none_for_what_failed() -> None:
    for results in (report().results, {THEIRS.name: [measured(0.5, start=1.0)]}, {}):
        picture = ElementTree.fromstring(draw(report(results=results), PEERS))

        texts = [element.text for element in picture.iter(f"{SVG}text")]
        assert [text for text in texts if text in (OURS.name, THEIRS.name)] == list(results)
        assert "nan" not in draw(report(results=results), PEERS)


def test_page_picture_and_numbers_are_written_side_by_side(tmp_path: Path) -> None:
    page, picture, numbers = write_report(report(), PEERS, tmp_path)

    assert (page.parent / "images/benchmarks.svg") == picture
    work = json.loads(numbers.read_text())["results"][THEIRS.name][0]["work"]
    assert work == {"rows": 10_000, "seconds": 4.0, "client": 2.0, "server": 1.0}


def test_cpu_of_a_child_that_has_ended_is_counted() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass"
    family = Family(psutil.Process(), own=False)

    spent = spend(1, family, psutil.Process(), lambda: subprocess.run([sys.executable, "-c", burn]))

    assert spent.client >= 0.18


def test_a_server_of_the_benchmarks_own_is_no_part_of_its_client() -> None:
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE) as started:
        server = psutil.Process(started.pid)
        family = Family(psutil.Process(), without=[server])
        assert started.stdout

        spent = spend(1, family, [server, psutil.Process()], started.stdout.readline)

        started.kill()
    assert spent.server >= 0.18
    assert spent.client < 0.18


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ((1.0, 0.5), "faster in every run"),
        ((4.0, 3.0), "slower in every run"),
        ((1.0, 4.0), "faster in one run, slower in another"),
    ],
)
def test_the_page_of_the_nodes_says_what_came_out(seconds: tuple[float, ...], said: str) -> None:
    runs = {name: [measured(2.0), measured(2.0)] for name in nodes.WAYS}
    runs[nodes.TEN] = [measured(each) for each in seconds]
    result = nodes.ShapeResult(runs, dict.fromkeys(runs, 2.5))
    settings = nodes.Settings("command", 10_000, 2, 3, 3, 512, {"cores": "2"})

    page = nodes.make_page(settings, {nodes.Shape(1, 100): result})

    assert f"Requests of {nodes.TEN} were {said} than those of one partition with" in page
    shown = sorted(ratios(runs[nodes.TEN], runs[nodes.PARTITION], "rows_per_second"))
    assert f"({shown[0]:.2f} to {shown[1]:.2f})" in line_of(page, f"{nodes.TEN} to")
    assert line_of(page, "one row").startswith("| one row | 5,000 (5,000 to 5,000) | 100 ")


def test_every_peer_says_what_it_is_and_no_two_share_a_name() -> None:
    peers = all_peers()
    works = [work for peer in peers for work in peer.works]

    assert len({peer.name for peer in peers}) == len(peers)
    assert len({work.name for work in works}) == len(works)
    assert all(peer.settings and bool(peer.module) != bool(peer.commands) for peer in peers)


def test_the_locks_name_no_host() -> None:
    packages = LOCK.parent.parent / "requirements-bench.lock"

    assert set(parse_lock(LOCK.read_text())) == {"spark", "dsbulk"}
    assert all(part.jars for part in parse_lock(LOCK.read_text()).values())
    assert not [text for text in (LOCK, packages) if "://" in text.read_text()]
