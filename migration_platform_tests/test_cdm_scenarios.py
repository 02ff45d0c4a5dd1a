"""Every kind of file that the Cassandra Data Migrator takes does here what it does there."""

import multiprocessing
import os
import re
import shlex
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trustme
from click.testing import CliRunner

from migration_platform.cdm.properties import PREFIX, PROPERTIES
from migration_platform.cli import main
from migration_platform.components.stores import Stores
from migration_platform.components.table.migration import TableMigration
from migration_platform.local.cassandra import Cassandra, TlsFiles
from migration_platform.local.ports import free_port
from migration_platform.runs import workers
from migration_platform.stores.cassandra.connection import CassandraSettings, TlsSettings
from migration_platform_tests.cdm_scenarios import (
    Server,
    Suite,
    all_scenarios,
    fill,
    holds,
    is_as_expected,
    properties_shown,
)
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    make_project,
    wait_until,
)
from migration_platform_tests.servers import REPOSITORY, SMALL_HEAP_MB, run_server
from migration_platform_tests.tables import plain_session
from migration_platform_tests.test_tls import first_connection, in_pkcs8, write_certificate

JOBS = {"migrate": "Migrate", "validate": "Validate", "guardrail": "Guardrail Check"}
pytestmark = DAGSTERS_OWN_WARNINGS


@pytest.fixture(scope="module")
def suite(tmp_path_factory, cassandra, settings):
    folder = tmp_path_factory.mktemp("scenarios")
    secure = SecureServer(tmp_path_factory.mktemp("secure"))
    servers = {
        "plain": Server(cassandra.port, lambda: plain_session(settings)),
        "secure": Server(secure.port, secure.open),
    }
    values = {"port": str(cassandra.port), "large": "x" * 2000, "folder": str(secure.folder)}
    with pytest.MonkeyPatch.context() as patch:
        for name in all_scenarios():
            for side in ("ORIGIN", "TARGET"):
                patch.setenv(f"{name}_{side}_PASSWORD".upper(), "cassandra")
        # One worker for each launch, from a process that has imported everything already: to
        # start it is most of what these few rows take.
        patch.setattr(os, "cpu_count", lambda: 1)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["migration_platform.runs.workers"])
        patch.setattr(workers, "_CONTEXT", context)
        with Suite(folder, servers, values) as opened:
            yield opened


class SecureServer:
    """A server that demands a password, TLS and a certificate; it starts when it is wanted."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()

    @contextmanager
    def open(self):
        authority = trustme.CA()
        # What keytool and openssl make of trust.jks and client.jks, as the report says.
        authority.cert_pem.write_to_path(self.folder / "trust.pem")
        certificate, key = write_certificate(self.folder, "client", authority)
        os.rename(certificate, self.folder / "client-certificate.pem")
        os.rename(key, self.folder / "client-key.pem")
        keystore = self.folder / "server.pem"
        keystore.write_bytes(in_pkcs8(authority.issue_cert("127.0.0.1")))
        tls = TlsFiles(
            keystore=keystore, truststore=self.folder / "trust.pem", client_certificates=True
        )
        options = Cassandra(cluster_name="scenarios", heap_mb=SMALL_HEAP_MB, password=True, tls=tls)
        with run_server(options, self.folder / "home", port=self.port):
            settings = CassandraSettings(
                port=self.port,
                username="cassandra",
                password="cassandra",
                tls=TlsSettings(
                    *(
                        str(self.folder / name)
                        for name in ("trust.pem", "client-certificate.pem", "client-key.pem")
                    )
                ),
            )
            with wait_until(lambda: first_connection(settings), 60, "the first role") as opened:
                yield RowsAsDicts(opened.session)


class RowsAsDicts:
    """A session whose rows are dicts, as those of the plain one."""

    def __init__(self, session):
        self._session = session

    def execute(self, statement, timeout):
        found = self._session.execute(statement, timeout=timeout)
        names = found.column_names or ()
        return [dict(zip(names, row, strict=True)) for row in found]


def test_there_are_scenarios_for_every_property():
    assert len(all_scenarios()) > 40
    shown = properties_shown()
    assert [name for name in PROPERTIES if name not in shown] == []
    for scenario in all_scenarios().values():
        shows = scenario.content.get("stores") if scenario.only_written else scenario.steps
        assert scenario.content.get("refused") or shows, scenario.name


@pytest.mark.parametrize("name", all_scenarios())
def test_a_file_of_the_migrator_does_what_it_does_there(suite, name):
    scenario = all_scenarios()[name]
    names = suite.names(scenario)
    imported = suite.imported(scenario, next(iter(scenario.files)))
    refused = scenario.content.get("refused")
    if refused:
        assert fill(refused, names) in imported.refusal
        return
    assert imported.refusal == ""
    for sentence in _listed(scenario.content.get("reported")):
        assert fill(sentence, names) in imported.report
    expected = scenario.content.get("written", {})
    assert holds(imported.written, expected), imported.written
    assert holds(imported.stores, scenario.content.get("stores", {})), imported.stores
    if scenario.only_written:
        kinds = Stores.resolve_from_dict(dict(imported.stores)).kinds()
        TableMigration.resolve_from_dict(dict(imported.written)).to_migration(kinds)
        return
    suite.create(scenario)
    for number, step in enumerate(scenario.steps):
        where = f"step {number + 1} of {name}"
        if "damage" in step:
            suite.execute(scenario, step["damage"])
        if "launch" in step:
            told = suite.launch(scenario, step["launch"])
            assert told.exit == step.get("exit", 0), (where, told.messages)
            for key, job in JOBS.items():
                if key in step:
                    assert told.counts.get(job) == step[key], (where, job, told.counts)
            for sentence in _listed(step.get("says")):
                assert fill(sentence, names) in told.messages, (where, told.messages)
            if "metadata" in step:
                found = [given for given in told.metadata if holds(given, step["metadata"])]
                assert found, (where, told.metadata)
        if "rows" in step:
            found = suite.rows(scenario, step.get("select", "SELECT * FROM {target}"))
            assert is_as_expected(sorted(step["rows"], key=repr), found), (where, found)


@pytest.mark.parametrize(
    "name", ["smoke_key_value", "newer_at_target", "tracked_run", "guardrail_check"]
)
def test_the_printed_line_does_the_same_in_a_shell(suite, tmp_path, name):
    """The command line imports it, and `dg` runs what is printed, in a process of its own."""
    scenario = replace(all_scenarios()[name], name=f"{name}_in_a_shell")
    file = next(iter(scenario.files))
    project = make_project(tmp_path, cassandra_port=1)
    (project.defs_folder / "stores" / "defs.yaml").unlink()
    path = tmp_path / "x.properties"
    path.write_bytes(suite.file_of(scenario, file))
    command = ["import-cdm", str(path), "--output", str(project.defs_folder)]
    ended = CliRunner().invoke(main, [*command, "--set", f"{PREFIX}trackRun.runId=7{len(name)}"])
    assert ended.exit_code == 0
    (line,) = [line for line in ended.output.splitlines() if line.startswith("  dg launch ")]
    suite.create(scenario)
    variables = {f"CDM_{side}_PASSWORD": "cassandra" for side in ("ORIGIN", "TARGET")}
    step = scenario.steps[0]
    launched = project.run_dg(*shlex.split(line)[1:], **variables)
    assert launched.code == step.get("exit", 0), launched.output
    for sentence in _listed(step.get("says")):
        assert sentence in launched.output
    if "rows" in step and "select" not in step:
        assert is_as_expected(
            sorted(step["rows"], key=repr), suite.rows(scenario, "SELECT * FROM {target}")
        )


# -- the documentation -----------------------------------------------------------------------------


def test_the_documentation_has_a_row_for_every_property_with_a_scenario_that_shows_it():
    text = (REPOSITORY / "docs" / "cdm.md").read_text("utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == list(PROPERTIES)
    for name, default, becomes, links in rows:
        known = PROPERTIES[name]
        assert default == (f"`{known.default}`" if known.default else "")
        assert becomes == (f"refused: {known.becomes}" * (known.fate == "refused") or known.becomes)
        scenarios = re.findall(
            r"\[(\w+)\]\(\.\./migration_platform_tests/scenarios/\1\.yaml\)", links
        )
        assert scenarios, name
        assert set(scenarios) <= set(properties_shown()[name]), name
    assert "docs/cdm.md" in (REPOSITORY / "README.md").read_text("utf-8")


def _listed(value):
    return [] if value is None else [value] if isinstance(value, str) else value
