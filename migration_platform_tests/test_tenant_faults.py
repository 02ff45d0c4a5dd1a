"""A tenant's move whose server dies, whose line breaks, or whose run is killed: no row is lost."""

import json
from dataclasses import replace
from pathlib import Path

import dagster as dg
import psutil
import pytest
from cassandra.cluster import Session

from migration_platform.errors import TransientError
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.stack import Running, start
from migration_platform.stores.cassandra.connection import CassandraSettings, Connection
from migration_platform.tenant.records import newest_plan
from migration_platform.tenant.steps import read_progress
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    Output,
    end_tree,
    make_project,
    wait_until,
)
from migration_platform_tests.servers import (
    PATIENCE_SECONDS,
    SMALL_HEAP_MB,
    jars_folder,
    proxy_before,
    run_server,
)
from migration_platform_tests.tables import create_keyspace, fill, patient_connection, plain_session
from migration_platform_tests.tenants import NEW, OLD, ORGANISATION, OTHER, USER, Tenants, users_of

pytestmark = DAGSTERS_OWN_WARNINGS
USERS = 400
# Without this a killed server forgets up to ten seconds of what it has acknowledged.
DURABLE = {"commitlog_sync": "batch", "commitlog_sync_period": "0ms"}
WHOLE = "00-of-1"


def _fill(tenants: Tenants) -> None:
    """Make two tenants; the one that moves has so many users, and others have some."""
    tenants.make("organisation", ORGANISATION, [{"id": OLD}, {"id": NEW}])
    name = tenants.make("user", USER)
    rows = [(f"old-{number}", OLD, "etb", "name") for number in range(USERS)]
    rows += [(f"other-{number}", OTHER, "ap", "name") for number in range(USERS // 10)]
    fill(tenants.connection, name, "id, rootorgid, channel, name", rows)


def _moved(tenants: Tenants) -> int:
    """Count the users that moved; each is whole, moved or not, and nobody else did."""
    rows = tenants.rows("user")
    assert len(rows) == USERS + USERS // 10
    found = [(i.partition("-")[0], row["rootorgid"], row["channel"]) for i, row in rows.items()]
    assert set(found) <= {("old", OLD, "etb"), ("old", NEW, "rj"), ("other", OTHER, "ap")}
    assert {row["name"] for row in rows.values()} == {"name"}
    return sum(tenant == NEW for _, tenant, _ in found)


@pytest.fixture
def users(connection: Connection, reader: Session, keyspace: str, tmp_path: Path) -> Tenants:
    tenants = Tenants(connection, reader, keyspace, tmp_path / "move")
    _fill(tenants)
    users_of(tenants, token_ranges=1)
    return tenants


def test_a_server_that_is_killed_and_started_again_during_a_move_loses_no_row(tmp_path):
    server = Cassandra(cluster_name="moved", heap_mb=SMALL_HEAP_MB, settings=DURABLE)
    with run_server(server, tmp_path) as running:
        settings = CassandraSettings(port=running.port)
        done = 0

        def kill_halfway(rows: int) -> None:
            nonlocal done
            done += rows
            if done == USERS // 4:
                process = psutil.Process(running.pid)
                process.kill()
                psutil.wait_procs([process], timeout=PATIENCE_SECONDS)
                start(server, home=tmp_path, port=running.port, jars_folder=jars_folder())

        with patient_connection(settings) as connection, plain_session(settings) as reader:
            create_keyspace(connection, "moved", durable=True)
            tenants = Tenants(connection, reader, "moved", tmp_path / "move")
            _fill(tenants)
            step = users_of(tenants, token_ranges=1)
            tenants.plan(step)
            failures: list[BaseException] = []
            applied = tenants.apply(step, on_done=kill_halfway, on_retry=failures.append)
            assert failures
        assert (applied.changes.done, applied.proof.reason) == (USERS, "")
        # The driver's session of before may not have found the server again.
        with plain_session(settings) as reader:
            tenants.reader = reader
            assert _moved(tenants) == USERS


def test_a_rollback_whose_line_breaks_for_good_says_so_and_the_next_one_goes_on(users):
    step = users.steps[0]
    users.run(step)
    answers = 0

    def break_halfway(answer: bytes) -> bytes:
        nonlocal answers
        answers += answer.count(b"[applied]")
        if answers < USERS // 4:
            return answer
        proxy.cut()
        return b""

    users.settings["retry_seconds"] = 1.0
    with (
        proxy_before(users.connection.settings.port, break_halfway) as proxy,
        Connection(CassandraSettings(port=proxy.port)) as through,
    ):
        behind = replace(users, connection=through)
        with pytest.raises(TransientError):
            behind.restore(step)
    left = _moved(users)
    assert 0 < left < USERS
    restored = users.restore(step)
    assert (restored.changed, restored.already) == (left, USERS - left)
    assert (restored.conflicts, restored.gone) == (0, 0)
    assert _moved(users) == 0
    assert read_progress(users.folder, step).state == "rolled back"


def _declare(tenants: Tenants, **options: object) -> dict[str, object]:
    return {
        "store": "sunbird",
        "origin_tenant": OLD,
        "target_tenant": NEW,
        "organisations": f"{tenants.keyspace}.organisation",
        "steps": {
            "users": {
                "table": f"{tenants.keyspace}.user",
                "select": "rootorgid",
                "change": {"rootorgid": {"replace": "value"}, "channel": {"constant": "rj"}},
                "token_ranges": 1,
            }
        },
        **options,
    }


def test_a_run_that_is_killed_is_finished_by_the_next_which_keeps_the_first_backup(
    users: Tenants, cassandra: Running, tmp_path: Path
) -> None:
    project = make_project(tmp_path, cassandra_port=cassandra.port)
    users.folder = project.home / "tenant_moves" / "rajasthan"
    project.declare("rajasthan", "TenantMove", **_declare(users, rows_per_second=USERS // 4))
    assets = [dg.AssetKey(["rajasthan", name]) for name in ("users", "users_backup", "users_plan")]
    project.run(None, assets=assets[2:]).assert_success()
    config = {"ops": {"rajasthan__users": {"config": {"dry_run": False}}}}
    process = project.start_dg(
        *("launch", "--assets", "rajasthan/users,rajasthan/users_backup"),
        *("--partition", WHOLE, "--config-json", json.dumps(config)),
    )
    output = Output(process)
    try:
        wait_until(
            lambda: _moved(users) > 20 or process.poll() is not None, 60, "some rows were changed"
        )
        assert process.poll() is None, output.text
    finally:
        end_tree(process)
        output.close()
    assert 0 < _moved(users) < USERS
    plan = newest_plan(users.folder, "users")
    assert plan is not None
    backup = plan.part("backup", WHOLE).read_bytes()
    assert backup.count(b"\n") == USERS
    assert read_progress(users.folder, users.steps[0]).state == "planned"

    project.declare("rajasthan", "TenantMove", **_declare(users))
    result = project.run(WHOLE, assets=assets[:2], config=config).assert_success()

    assert all(check.passed for check in result.checks.values())
    assert _moved(users) == USERS
    assert plan.part("backup", WHOLE).read_bytes() == backup
    assert users.restore(users.steps[0]).changed == USERS
    assert _moved(users) == 0
