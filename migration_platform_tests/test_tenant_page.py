"""Every command of the page about a tenant's move runs in a shell, as it is printed."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from migration_platform.demo import sample_tenants
from migration_platform.demo.sample_tenants import ORIGIN_TENANT
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.neo4j import Neo4j
from migration_platform.local.ports import free_port
from migration_platform.local.stack import start_all, stop
from migration_platform.local.sunbird_service import Sunbird
from migration_platform_tests.pages import Clone, make_clone, shell_blocks
from migration_platform_tests.servers import jars_folder

PAGE = "tenant.md"


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Clone]:
    servers = Cassandra(), Neo4j(), Sunbird()
    clone = make_clone(tmp_path / "clone", {server.name: free_port() for server in servers})
    try:
        start_all(servers, home=clone.home, ports=clone.ports, jars_folder=jars_folder())
        yield clone
    finally:
        for server in servers:
            stop(server.name, home=clone.home)


def test_the_whole_page_runs_as_printed_without_the_demo(clone: Clone) -> None:
    setup, fill = shell_blocks(PAGE, "Before the first command")
    done = clone.run(setup + fill)
    assert done.returncode == 0, done.stdout + done.stderr

    blocks = shell_blocks(PAGE, "Commands")
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) == 17
    for command in commands:
        done = clone.run(setup + command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    users = {
        user["id"]
        for user in sample_tenants.tenant_users(1000)
        if user["rootorgid"] == ORIGIN_TENANT
    }
    (alone,) = shell_blocks(PAGE, "A search sync on its own")
    dry, real = alone.splitlines()
    told = clone.run(setup + dry)
    assert f"Dry run: {len(users)} ids of type user in 1 calls" in told.stdout, told.stderr
    sent = clone.run(setup + real)
    assert f"{len(users)} ids in 1 calls were accepted" in sent.stdout, sent.stderr
    assert len(list(clone.folder.glob("SyncSuccess_*.log"))) == 1
    assert "local-sunbird" not in told.stdout + told.stderr + sent.stdout + sent.stderr

    wrong = setup.replace("local-sunbird", "of-yesterday")
    for command in (commands[6], dry):
        refused = clone.run(wrong + command)
        assert refused.returncode != 0
        assert re.search(
            "does not accept the API key; check the environment variable",
            "".join((refused.stdout, refused.stderr)),
        )
