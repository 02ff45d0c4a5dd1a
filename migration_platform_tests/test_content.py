import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from neo4j import Driver, GraphDatabase

from migration_platform.errors import (
    DeclarationError,
    PermanentError,
    PreflightError,
    TransientError,
)
from migration_platform.local.neo4j import NEO4J_PASSWORD, NEO4J_USER
from migration_platform.local.ports import free_port
from migration_platform.local.stack import Running
from migration_platform.pacing import retries
from migration_platform.stores import neo4j as store
from migration_platform.stores.neo4j import Graph, Neo4jSettings
from migration_platform.tenant import content
from migration_platform.tenant.content import (
    ChangeCounts,
    PlannedNode,
    RuleCounts,
    apply_nodes,
    count_nodes,
    count_plan,
    digest_nodes,
    plan_nodes,
    restore_nodes,
)
from migration_platform.tenant.declaration import NodeRule, statement
from migration_platform_tests.servers import PATIENCE_SECONDS, proxy_before

ORIGIN = "0126741568685424647"
TARGET = "0126741573767413761"
CHANNEL = NodeRule("domain", "channel")
CREATED_FOR = NodeRule("domain", "createdFor", only_element=True)


def settings_for(port: int, **others: Any) -> Neo4jSettings:
    settings = Neo4jSettings(
        uri=f"bolt://127.0.0.1:{port}",
        username=NEO4J_USER,
        password=NEO4J_PASSWORD,
        retry_seconds=5.0,
    )
    return replace(settings, **others)


@pytest.fixture(scope="module")
def graph(neo4j: Running) -> Iterator[Graph]:
    with settings_for(neo4j.port).connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def driver(neo4j: Running) -> Iterator[Driver]:
    """The driver itself: what the engine did is read without the engine."""
    login = (NEO4J_USER, NEO4J_PASSWORD)
    with GraphDatabase.driver(f"bolt://127.0.0.1:{neo4j.port}", auth=login) as connection:
        yield connection


class Nodes:
    """Nodes of a label of its own."""

    def __init__(self, driver: Driver):
        self.driver = driver
        self.label = f"domain_{uuid.uuid4().hex[:12]}"
        self.channel = NodeRule(self.label, "channel")
        self.created_for = NodeRule(self.label, "createdFor", only_element=True)
        self.rules = (self.channel, self.created_for)

    def run(self, query: str, **parameters: Any) -> list[Any]:
        query = query.replace(":domain", f":{self.label}")
        records, _, _ = self.driver.execute_query(query, parameters)  # type: ignore[arg-type]
        return [record.values() for record in records]

    def add(self, *properties: dict[str, Any]) -> None:
        self.run("UNWIND $all AS one CREATE (n:domain) SET n = one", all=list(properties))

    def add_many(self, count: int) -> None:
        self.add(*({"IL_UNIQUE_ID": f"do_{i}", "channel": ORIGIN} for i in range(count)))

    def all(self) -> dict[str, dict[str, Any]]:
        found = self.run("MATCH (n:domain) RETURN n.IL_UNIQUE_ID, properties(n)")
        return {
            name: {key: value for key, value in properties.items() if key != "IL_UNIQUE_ID"}
            for name, properties in found
        }


@pytest.fixture
def nodes(driver: Driver) -> Iterator[Nodes]:
    nodes = Nodes(driver)
    yield nodes
    nodes.run("MATCH (n:domain) DETACH DELETE n")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_DELAY_SECONDS", 0.02)
    monkeypatch.setattr(retries, "LONGEST_DELAY_SECONDS", 0.1)


def wait_until_blocked(driver: Driver) -> None:
    blocked = "SHOW TRANSACTIONS YIELD status WHERE status STARTS WITH 'Blocked' RETURN status"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not driver.execute_query(blocked).records:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def plan(graph: Graph, nodes: Nodes) -> list[PlannedNode]:
    return list(plan_nodes(graph, nodes.rules, ORIGIN, TARGET))


def apply(graph: Graph, nodes: Nodes, planned: list[PlannedNode], **options: Any) -> ChangeCounts:
    return apply_nodes(graph, nodes.rules, planned, ORIGIN, TARGET, **options)


def restore(graph: Graph, nodes: Nodes, planned: list[PlannedNode]) -> ChangeCounts:
    return restore_nodes(graph, nodes.rules, planned, ORIGIN, TARGET)


CONTENT = (
    {"IL_UNIQUE_ID": "both", "channel": ORIGIN, "createdFor": [ORIGIN], "name": "Maths"},
    {"IL_UNIQUE_ID": "channel", "channel": ORIGIN, "createdFor": ["another"]},
    {"IL_UNIQUE_ID": "created_for", "channel": "another", "createdFor": [ORIGIN]},
    {"IL_UNIQUE_ID": "longer", "channel": "another", "createdFor": [ORIGIN, "x"]},
    {"IL_UNIQUE_ID": "no_list", "createdFor": ORIGIN},
    {"IL_UNIQUE_ID": "a_list", "channel": [ORIGIN]},
    {"IL_UNIQUE_ID": "moved", "channel": TARGET, "createdFor": [TARGET]},
    {"IL_UNIQUE_ID": "number", "channel": 126741568685424647},
    {"IL_UNIQUE_ID": "bare"},
)


# --- what is shown ---


def test_the_statements_are_those_of_the_guide_with_the_given_ids() -> None:
    assert statement(CHANNEL, ORIGIN, TARGET) == (
        'MATCH (n:domain) WHERE n.channel ="0126741568685424647"'
        ' SET n.channel = "0126741573767413761";'
    )
    assert statement(CREATED_FOR, ORIGIN, TARGET) == (
        'MATCH (n:domain) WHERE n.createdFor = ["0126741568685424647"]'
        ' SET n.createdFor = ["0126741573767413761"];'
    )


def test_a_name_is_quoted_only_where_cypher_needs_it() -> None:
    shown = statement(NodeRule("my domain", "a`b"), "1", "2")

    assert shown == 'MATCH (n:`my domain`) WHERE n.`a``b` ="1" SET n.`a``b` = "2";'


HOSTILE = st.text(st.sampled_from("\\u0{}`'\"$n;)/*é😀 x"), min_size=1, max_size=12)


@hypothesis_settings(max_examples=10)
@given(st.lists(HOSTILE.filter(lambda text: text != ORIGIN), min_size=20, max_size=40))
def test_an_id_is_shown_as_a_literal_that_cypher_reads_back(driver: Driver, ids: list[str]) -> None:
    shown = [statement(CHANNEL, ORIGIN, i).partition(" SET n.channel = ")[2][:-1] for i in ids]

    query = f"RETURN [{', '.join(shown)}] AS read"
    assert driver.execute_query(query).records[0]["read"] == ids  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        (('"}) DETACH DELETE n //', "\\"), "x`) DETACH DELETE n //"),
        (("\\u0022", "\\\\u0022"), "$a`` b"),
    ],
)
def test_hostile_ids_and_names_change_what_they_name_and_nothing_else(
    graph: Graph, driver: Driver, ids: tuple[str, str], name: str
) -> None:
    origin, target = ids
    rules = (
        NodeRule(f"{name}1", name, identity="other"),
        NodeRule(f"{name}2", name, only_element=True, identity="other"),
    )
    create = "CREATE (a:Hostile) SET a[$name] = $a CREATE (b:Hostile) SET b[$name] = $b"
    driver.execute_query(create, name=name, a=origin, b=[origin])
    for value, label in ((origin, rules[0].label), ([origin], rules[1].label)):
        quoted = label.replace("`", "``")
        label_it = f"MATCH (n:Hostile) WHERE n[$name] = $value SET n:`{quoted}`"
        driver.execute_query(label_it, name=name, value=value)  # type: ignore[arg-type]
    values = "MATCH (n:Hostile) RETURN n[$name] AS value"

    def held() -> list[Any]:
        return sorted(
            (r["value"] for r in driver.execute_query(values, name=name).records), key=str
        )

    try:
        planned = list(plan_nodes(graph, rules, origin, target))
        assert apply_nodes(graph, rules, planned, origin, target).changed == 2
        assert held() == sorted([target, [target]], key=str)
        for rule in rules:
            driver.execute_query(statement(rule, target, origin))  # type: ignore[arg-type]
        assert held() == sorted([origin, [origin]], key=str)
    finally:
        driver.execute_query("MATCH (n:Hostile) DETACH DELETE n")


@pytest.mark.parametrize("name", ["", "a\\u0060b", "a\nb", "x" * 501])
def test_a_name_that_cannot_be_quoted_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match=r"^property "):
        NodeRule("domain", name)
    with pytest.raises(DeclarationError, match=r"^label "):
        NodeRule(name, "channel")


def test_an_identity_that_the_move_changes_is_refused() -> None:
    with pytest.raises(DeclarationError, match="identity and property are both 'channel'"):
        NodeRule("domain", "channel", identity="channel")


@pytest.mark.parametrize(
    ("origin", "target", "said"),
    [("", "1", "origin is ''"), ("1", "", "target is ''"), ("1", "1", "are both '1'")],
)
def test_ids_that_are_no_two_ids_are_refused(
    graph: Graph, origin: str, target: str, said: str
) -> None:
    with pytest.raises(DeclarationError, match=said):
        list(plan_nodes(graph, (CHANNEL,), origin, target))


# --- plan, change, proof ---


def test_a_plan_holds_what_either_statement_would_change_and_counts_the_rest(
    graph: Graph, nodes: Nodes
) -> None:
    nodes.add(*CONTENT)

    planned = plan(graph, nodes)

    assert sorted((node.rule, node.identity) for node in planned) == [
        (0, "both"),
        (0, "channel"),
        (1, "both"),
        (1, "created_for"),
    ]
    assert [node.before for node in planned] == [ORIGIN, ORIGIN, [ORIGIN], [ORIGIN]]
    assert planned[0].labels == (nodes.label,)
    assert count_plan(graph, nodes.rules, ORIGIN, TARGET) == (
        RuleCounts(nodes=9, planned=2, already=1, left_alone=1),
        RuleCounts(nodes=9, planned=2, already=1, left_alone=2),
    )


def test_only_planned_properties_change_and_the_digest_says_so(graph: Graph, nodes: Nodes) -> None:
    nodes.add(*CONTENT)
    before = nodes.all()
    digest = digest_nodes(graph, nodes.rules, ORIGIN, TARGET)

    assert apply(graph, nodes, plan(graph, nodes)) == ChangeCounts(changed=4)

    expected = json.loads(json.dumps(before))
    expected["both"] |= {"channel": TARGET, "createdFor": [TARGET]}
    expected["channel"]["channel"] = TARGET
    expected["created_for"]["createdFor"] = [TARGET]
    assert nodes.all() == expected
    assert count_nodes(graph, nodes.rules, ORIGIN) == (0, 0)
    assert count_nodes(graph, nodes.rules, TARGET) == (3, 3)
    assert digest_nodes(graph, nodes.rules, ORIGIN, TARGET) == digest
    assert digest.nodes == 9


@pytest.mark.parametrize(
    "change",
    [
        "MATCH (n:domain {IL_UNIQUE_ID: 'both'}) SET n.name = 'Physics'",
        "MATCH (n:domain {IL_UNIQUE_ID: 'both'}) SET n.name = ['Maths']",
        "MATCH (n:domain {IL_UNIQUE_ID: 'both'}) REMOVE n.channel",
        "MATCH (n:domain {IL_UNIQUE_ID: 'both'}) SET n:Extra",
        "MATCH (n:domain {IL_UNIQUE_ID: 'longer'}) SET n.createdFor = ['x', $origin]",
        "MATCH (n:domain {IL_UNIQUE_ID: 'number'}) SET n.channel = toFloat(n.channel)",
        "MATCH (n:domain {IL_UNIQUE_ID: 'bare'}) DELETE n",
        "CREATE (n:domain)",
    ],
)
def test_a_digest_sees_any_other_change(graph: Graph, nodes: Nodes, change: str) -> None:
    nodes.add(*CONTENT)
    digest = digest_nodes(graph, nodes.rules, ORIGIN, TARGET)

    nodes.run(change, origin=ORIGIN)

    assert digest_nodes(graph, nodes.rules, ORIGIN, TARGET) != digest


def test_a_second_run_changes_nothing(graph: Graph, nodes: Nodes) -> None:
    nodes.add(*CONTENT)
    planned = plan(graph, nodes)
    apply(graph, nodes, planned)
    after = nodes.all()

    assert apply(graph, nodes, planned) == ChangeCounts(already=4)
    assert plan(graph, nodes) == []
    assert nodes.all() == after


def test_a_plan_survives_a_file(graph: Graph, nodes: Nodes) -> None:
    nodes.add(*CONTENT)
    planned = plan(graph, nodes)

    lines = [json.dumps(node.to_json()) for node in planned]

    assert [PlannedNode.from_json(json.loads(line)) for line in lines] == planned


@pytest.mark.parametrize("line", ["{}", "[]", "1", '{"element_id": 1}', '{"x": "y"}'])
def test_a_line_that_is_no_plan_is_refused(line: str) -> None:
    with pytest.raises(DeclarationError, match="is no line of a plan of nodes"):
        PlannedNode.from_json(json.loads(line))


def test_a_plan_for_another_origin_or_other_rules_is_refused(graph: Graph, nodes: Nodes) -> None:
    nodes.add(*CONTENT)
    planned = plan(graph, nodes)
    before = nodes.all()

    with pytest.raises(DeclarationError, match="the plan was made for other rules or another"):
        apply_nodes(graph, nodes.rules, planned, "someone else", TARGET)
    with pytest.raises(DeclarationError, match="the plan was made for other rules or another"):
        apply_nodes(graph, nodes.rules[:1], planned, ORIGIN, TARGET)
    assert nodes.all() == before


# --- what others do meanwhile ---


def test_what_was_changed_since_the_plan_is_reported_and_not_overwritten(
    graph: Graph, nodes: Nodes
) -> None:
    nodes.add(*CONTENT)
    planned = plan(graph, nodes)
    nodes.run("MATCH (n:domain {IL_UNIQUE_ID: 'both'}) SET n.channel = 'mine', n.createdFor = null")
    nodes.run("MATCH (n:domain {IL_UNIQUE_ID: 'channel'}) SET n.channel = $to", to=TARGET)
    nodes.run("MATCH (n:domain {IL_UNIQUE_ID: 'created_for'}) DELETE n")

    counts = apply(graph, nodes, planned)

    assert replace(counts, sample=()) == ChangeCounts(already=1, conflicts=2, gone=1)
    assert [(c.identity, c.property, c.now) for c in counts.sample] == [
        ("both", "channel", "'mine'"),
        ("both", "createdFor", "None"),
    ]
    assert nodes.all()["both"] == {"channel": "mine", "name": "Maths"}


def test_a_sample_of_conflicts_stays_small(graph: Graph, nodes: Nodes) -> None:
    nodes.add_many(30)
    planned = plan(graph, nodes)
    nodes.run("MATCH (n:domain) SET n.channel = $long", long="x" * 100_000)

    counts = apply(graph, nodes, planned)

    assert counts.conflicts == 30
    assert len(counts.sample) == 10
    assert max(len(conflict.now) for conflict in counts.sample) < 300


def test_a_node_that_got_the_number_of_another_one_is_left_alone(
    graph: Graph, nodes: Nodes
) -> None:
    nodes.add({"IL_UNIQUE_ID": "first", "channel": ORIGIN}, {"channel": ORIGIN})
    planned = plan(graph, nodes)
    # What a deleted node's number leads to, for as long as it takes to be given out again.
    nodes.run("MATCH (n:domain) SET n.IL_UNIQUE_ID = 'second'")

    assert apply(graph, nodes, planned) == ChangeCounts(gone=2)
    assert nodes.run("MATCH (n:domain) RETURN DISTINCT n.channel") == [[ORIGIN]]


def test_a_write_that_comes_between_is_not_lost(graph: Graph, nodes: Nodes, driver: Driver) -> None:
    nodes.add({"IL_UNIQUE_ID": "one", "channel": ORIGIN})
    planned = plan(graph, nodes)
    found: list[ChangeCounts] = []
    thread = threading.Thread(target=lambda: found.append(apply(graph, nodes, planned)))
    with driver.session() as session, session.begin_transaction() as transaction:
        query = f"MATCH (n:{nodes.label}) SET n.channel = 'theirs'"
        transaction.run(query).consume()  # type: ignore[arg-type]
        thread.start()
        wait_until_blocked(driver)
        transaction.commit()
    thread.join(PATIENCE_SECONDS)

    assert [(counts.changed, counts.conflicts) for counts in found] == [(0, 1)]
    assert nodes.all() == {"one": {"channel": "theirs"}}


# --- the way back ---


def test_a_rollback_gives_back_what_the_move_wrote_and_nothing_else(
    graph: Graph, nodes: Nodes
) -> None:
    nodes.add(*CONTENT)
    before = nodes.all()
    planned = plan(graph, nodes)
    apply(graph, nodes, planned)

    assert restore(graph, nodes, planned) == ChangeCounts(changed=4)
    assert nodes.all() == before
    assert restore(graph, nodes, planned) == ChangeCounts(already=4)


def test_a_rollback_leaves_alone_what_was_written_since_the_move(
    graph: Graph, nodes: Nodes
) -> None:
    nodes.add(*CONTENT)
    planned = plan(graph, nodes)
    apply(graph, nodes, planned)
    nodes.run("MATCH (n:domain {IL_UNIQUE_ID: 'both'}) SET n.channel = 'mine'")
    nodes.run("MATCH (n:domain {IL_UNIQUE_ID: 'channel'}) DELETE n")

    counts = restore(graph, nodes, planned)

    assert replace(counts, sample=()) == ChangeCounts(changed=2, conflicts=1, gone=1)
    assert nodes.all()["both"]["channel"] == "mine"
    assert nodes.all()["both"]["createdFor"] == [ORIGIN]


# --- faults ---


def test_a_large_plan_is_applied_in_batches_that_report(
    graph: Graph, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BATCH_NODES", 10)
    nodes.add_many(25)
    planned = plan(graph, nodes)
    seen: list[int] = []

    counts = apply(graph, nodes, planned, on_progress=lambda counts: seen.append(counts.total))

    assert counts == ChangeCounts(changed=25)
    assert seen == [10, 20, 25]


@pytest.mark.usefixtures("impatient")
def test_a_connection_that_is_cut_costs_nothing_but_time(
    neo4j: Running, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BATCH_NODES", 10)
    nodes.add_many(40)
    with (
        proxy_before(neo4j.port, lambda chunk: chunk) as proxy,
        settings_for(proxy.port).connect() as graph,
    ):
        planned = plan(graph, nodes)
        counts = apply(graph, nodes, planned, on_progress=lambda counts: proxy.cut())

    assert counts == ChangeCounts(changed=40)


@pytest.mark.usefixtures("impatient")
def test_a_lost_answer_to_a_commit_is_not_taken_for_another_clients_work(
    neo4j: Running, nodes: Nodes
) -> None:
    nodes.add_many(5)
    armed = threading.Event()

    def swallow(chunk: bytes) -> bytes:
        if armed.is_set() and b"bookmark" in chunk:
            armed.clear()
            proxy.cut()
            return b""
        return chunk

    with proxy_before(neo4j.port, swallow) as proxy, settings_for(proxy.port).connect() as graph:
        planned = plan(graph, nodes)
        armed.set()
        assert apply(graph, nodes, planned) == ChangeCounts(changed=5)
        assert not armed.is_set()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_stays_away_ends_the_step_and_the_same_plan_goes_on_later(
    neo4j: Running, graph: Graph, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BATCH_NODES", 10)
    nodes.add_many(30)
    planned = plan(graph, nodes)
    began = time.monotonic()
    with (
        proxy_before(neo4j.port, lambda chunk: chunk) as proxy,
        settings_for(proxy.port, retry_seconds=0.3).connect() as lost,
        pytest.raises(TransientError, match=r"^Neo4j: .* after \d+ tries in"),
    ):
        apply(lost, nodes, planned, on_progress=lambda counts: proxy.close())
    assert time.monotonic() - began < 5

    assert apply(graph, nodes, planned) == ChangeCounts(changed=20, already=10)


@pytest.mark.usefixtures("impatient")
def test_a_cursor_that_is_cut_off_asks_to_start_again(neo4j: Running, nodes: Nodes) -> None:
    nodes.add_many(3_000)
    with (
        proxy_before(neo4j.port, lambda chunk: chunk) as proxy,
        settings_for(proxy.port).connect() as graph,
    ):
        planned = plan_nodes(graph, nodes.rules, ORIGIN, TARGET)
        next(planned)
        proxy.cut()
        with pytest.raises(TransientError, match=r"lost after \d+ nodes were read; start the step"):
            list(planned)


def test_what_the_server_refuses_is_not_tried_again(graph: Graph, nodes: Nodes) -> None:
    nodes.add(
        {"IL_UNIQUE_ID": "one", "channel": ORIGIN}, {"IL_UNIQUE_ID": "two", "channel": TARGET}
    )
    planned = plan(graph, nodes)
    nodes.run("CREATE CONSTRAINT only FOR (n:domain) REQUIRE n.channel IS UNIQUE")
    try:
        with pytest.raises(PermanentError, match="ConstraintValidationFailed"):
            apply(graph, nodes, planned)
    finally:
        nodes.run("DROP CONSTRAINT only")
    assert nodes.all()["one"] == {"channel": ORIGIN}


# --- the connection ---


def test_nobody_there_is_one_sentence() -> None:
    port = free_port()
    with pytest.raises(PreflightError) as raised:
        Neo4jSettings(uri=f"bolt://127.0.0.1:{port}").connect()

    assert str(raised.value) == (
        f"Neo4j at bolt://127.0.0.1:{port} does not answer (Failed to establish connection to"
        f" 127.0.0.1:{port} (reason [Errno 111] Connection refused)); is it running, and is the"
        " address right?"
    )


def test_a_server_that_takes_calls_and_says_nothing_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "ACQUISITION_TIMEOUT_SECONDS", 0.3)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(PreflightError, match="does not answer"),
    ):
        Neo4jSettings(uri=f"bolt://127.0.0.1:{silent.getsockname()[1]}").connect()


@pytest.mark.parametrize("login", [{"password": "not-this"}, {"username": None}])
def test_a_refused_login_is_one_sentence_without_the_password(
    neo4j: Running, login: dict[str, Any]
) -> None:
    with pytest.raises(PreflightError) as raised:
        settings_for(neo4j.port, **login).connect()

    assert str(raised.value) == (
        f"Neo4j at bolt://127.0.0.1:{neo4j.port} cannot be used: the server refused the user name"
        " or the password"
    )


def test_a_database_that_is_not_there_is_named(neo4j: Running) -> None:
    with pytest.raises(PreflightError, match=r"DatabaseNotFound.*nowhere"):
        settings_for(neo4j.port, database="nowhere").connect()


def test_a_password_is_never_shown() -> None:
    settings = Neo4jSettings(username="reader", password="hidden")

    assert "hidden" not in repr(settings) + str(settings)


@pytest.mark.parametrize(
    "uri", ["bolt://reader:hidden@host:7687", "bolt://:hidden@[host", "neo4j://hidden@host"]
)
def test_a_password_in_an_address_is_refused_unseen(uri: str) -> None:
    with pytest.raises(DeclarationError, match="give them as username and password") as raised:
        Neo4jSettings(uri=uri).connect()
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize("uri", ["", "localhost:7687", "http://localhost", "bolt://", "bolt://h:x"])
def test_what_is_no_address_is_refused(uri: str) -> None:
    with pytest.raises(DeclarationError, match="is no address of Neo4j"):
        Neo4jSettings(uri=uri).connect()


def test_a_declared_store_takes_its_password_from_the_environment(
    neo4j: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only here, because the engine's tests need no Dagster.
    import dagster as dg

    from migration_platform.components.stores import Neo4jAttributes, SecretName, Stores
    from migration_platform.resources import Neo4jResource

    declared: Any = Neo4jAttributes(
        uri=f"bolt://127.0.0.1:{neo4j.port}",
        username=NEO4J_USER,
        password=SecretName(env="CONTENT_PASSWORD"),
    )
    stores = Stores(neo4j={"content": declared})
    definitions = stores.build_defs(dg.ComponentTree.for_test().load_context)
    resource = (definitions.resources or {})["content"]
    assert isinstance(resource, Neo4jResource)
    monkeypatch.setenv("CONTENT_PASSWORD", NEO4J_PASSWORD)

    with resource.process_config_and_initialize().connect() as graph:
        assert [record["one"] for record in graph.stream("RETURN 1 AS one")] == [1]
    assert NEO4J_PASSWORD not in repr(resource) + repr(stores)
