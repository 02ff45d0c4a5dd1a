"""The soak, for some seconds: writers write, two synchronisations follow, their processes die."""

import re
from pathlib import Path

from benchmarks.soak import Soak, soak, write_page
from benchmarks.soak_sync import Ports
from migration_platform.local.stack import Running


def test_two_synchronisations_lose_nothing_while_their_processes_are_killed(
    cassandra: Running, kafka: Running, tmp_path: Path
) -> None:
    asked = Soak(
        hours=20 / 3600, rate=60, seed=3, every_seconds=2, breaks_servers=False, seconds_a_start=0.5
    )

    soak(asked, tmp_path, Ports(cassandra.port, kafka.port))

    assert asked.verdicts.keys() == {"messages", "rounds"}
    assert all(rows > 100 and not lines for rows, lines in asked.verdicts.values())
    assert asked.lost_nothing
    assert sum(asked.operations.values()) > 100
    assert sum(follower.kills for follower in asked.followers) >= 2
    page = write_page(asked, "a command")
    assert "Nothing: both targets hold the same rows" in page
    assert re.search(r"\| insert \| \d+ \|", page)


def test_a_row_that_differs_is_told_on_the_page(tmp_path: Path) -> None:
    asked = Soak(hours=1, rate=1, seed=1, every_seconds=1)
    assert not asked.lost_nothing
    asked.verdicts = {"messages": (10, ["Missing target row found for key: [1 %% 2]"])}
    asked.settle_seconds = {"messages": 1.0}

    assert not asked.lost_nothing
    page = write_page(asked, "a command")
    assert "**Rows differ.**" in page
    assert "- Missing target row found for key: [1 %% 2]" in page
