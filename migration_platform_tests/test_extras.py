"""What an extra brings may be missing: only a store of that kind says so, and names the extra."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from migration_platform.errors import PreflightError
from migration_platform.extras import needed_for
from migration_platform.local.ports import free_port
from migration_platform.local.stack import Running

SENTENCE = (
    "a Neo4j store needs the package neo4j, which is not installed; install it with: "
    "pip install 'migration-platform[neo4j]'"
)
# Both ways in which a package can be missing: nobody finds it, or something has forbidden it.
WITHOUT_NEO4J = {
    "not found": """
        import sys

        class NoNeo4j:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] == "neo4j":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, NoNeo4j())
    """,
    "forbidden": """
        import sys

        sys.modules["neo4j"] = None
    """,
}


def run_python(program: str, *, without: str = "not found", **environment: str) -> Any:
    """Run a program in an interpreter of its own; give what it writes last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WITHOUT_NEO4J[without]) + textwrap.dedent(program)],
        cwd=Path(__file__).parents[1],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_only_modules_of_a_graph_need_its_driver():
    told = run_python("""
        import importlib, json, pkgutil
        import migration_platform

        failed = {}
        names = [found.name for found in pkgutil.walk_packages(
            migration_platform.__path__, "migration_platform.")]
        for name in names:
            if not name.endswith("__main__"):
                try:
                    importlib.import_module(name)
                except Exception as error:
                    failed[name] = str(error)
        print(json.dumps([len(names), failed]))
    """)
    count, failed = told
    assert count > 100
    assert set(failed.values()) == {SENTENCE}
    assert set(failed) == {
        "migration_platform.stores.neo4j",
        "migration_platform.tenant.content",
        "migration_platform.tenant.graph_step",
        "migration_platform.demo.sample_tenants",
        "migration_platform.demo.tenant",
        "migration_platform.demo.demo",
    }


@pytest.mark.parametrize("without", list(WITHOUT_NEO4J))
def test_a_project_with_a_graph_loads_and_says_what_is_missing_when_it_is_opened(
    cassandra: Running, dynamodb: Running, tmp_path: Path, without: str
):
    told = run_python(
        """
        import json, os
        import dagster as dg
        from migration_platform.definitions import defs

        loaded = defs()
        graph, origin, items = (loaded.resources[n] for n in ("content", "sunbird", "dynamodb"))
        with (
            origin.process_config_and_initialize().connect() as cluster,
            items.process_config_and_initialize().connect() as dynamo,
        ):
            rows = len(list(cluster.session.execute("SELECT key FROM system.local")))
            tables = dynamo.administer("list_tables")["TableNames"]
        reasons = []
        for open_it in (graph.to_settings, graph.connect):
            try:
                open_it()
            except Exception as error:
                reasons.append(f"{type(error).__name__}: {error}")
        with dg.DagsterInstance.local_temp(os.environ["DAGSTER_HOME"]) as instance:
            job = loaded.resolve_implicit_global_asset_job_def()
            keys = [key for key in job.asset_layer.executable_asset_keys
                    if key.path[-1] == "content_plan"]
            ended = job.execute_in_process(
                asset_selection=keys, raise_on_error=False, instance=instance)
            failures = [event.step_failure_data.user_failure_data.description
                        for event in ended.all_events if event.is_step_failure]
        print(json.dumps([rows, type(tables).__name__, reasons, len(keys), failures]))
        """,
        without=without,
        MIGRATION_PLATFORM_CASSANDRA_PORT=str(cassandra.port),
        MIGRATION_PLATFORM_DYNAMODB_PORT=str(dynamodb.port),
        DAGSTER_HOME=str(tmp_path),
    )
    rows, tables, reasons, keys, failures = told
    assert (rows, tables) == (1, "list")
    assert reasons == [f"PreflightError: {SENTENCE}"] * 2
    assert keys == 1
    assert len(failures) == 1
    assert SENTENCE in failures[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["demo", "--job", "tenant"], f"Error: {SENTENCE}"),
        (
            ["local", "up", "neo4j", "--port", f"neo4j={free_port()}"],
            "Error: neo4j needs its driver; install it with: "
            "pip install 'migration-platform[local]'.",
        ),
    ],
)
def test_a_command_that_needs_the_driver_says_so(
    tmp_path: Path, arguments: list[str], sentence: str
):
    told = run_python(
        f"""
        import json
        from click.testing import CliRunner
        from migration_platform.cli import main

        ended = CliRunner().invoke(main, {arguments!r})
        print(json.dumps([ended.exit_code, ended.output]))
        """,
        MIGRATION_PLATFORM_HOME=str(tmp_path),
    )
    code, output = told
    assert code == 1
    assert output.strip().splitlines()[-1] == sentence


@pytest.mark.parametrize("missing", ["no_such_package", "no_such_package.deeper"])
def test_the_package_that_is_missing_is_named(missing: str):
    sentence = (
        r"^a Postgres store needs the package no_such_package, which is not installed; install it "
        r"with: pip install 'migration-platform\[postgres\]'$"
    )
    with (
        pytest.raises(PreflightError, match=sentence),
        needed_for("a Postgres store", extra="postgres"),
    ):
        __import__(missing)


def test_what_is_no_missing_package_is_told_as_it_is():
    with (
        pytest.raises(ModuleNotFoundError, match=r"migration_platform\.nothing"),
        needed_for("a store", extra="x"),
    ):
        __import__("migration_platform.nothing")
    with (
        pytest.raises(ImportError, match="cannot import name 'nothing'"),
        needed_for("a store", extra="x"),
    ):
        from json import nothing  # noqa: F401  # type: ignore[attr-defined]
    with needed_for("a store", extra="x"):
        import json as found
    assert found is json
