"""Content of a tenant in a graph: nodes whose property shows the origin get the target.

These are the two statements of Sunbird's guide: a property equals the id, or it is a list of
nothing but the id; a longer list is left alone. A plan is made first, and only its nodes are
changed, each only while it still holds what the plan saw.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from xxhash import xxh3_128_intdigest

from migration_platform.errors import DeclarationError
from migration_platform.stores.neo4j import Graph, trusted
from migration_platform.tenant.declaration import NodeRule, Value, require_ids

if TYPE_CHECKING:
    from neo4j import Record, Transaction

BATCH_NODES = 1_000
"""Of one transaction: its locks are held for less than a second."""
DIGEST_FETCH_RECORDS = 100
"""Whole nodes are read: content may hold texts of many kilobytes."""
MAX_SAMPLE = 10
MAX_SHOWN_CHARS = 200
MAX_IDENTITY_CHARS = 500
MAX_LABELS = 20


@dataclass(frozen=True)
class PlannedNode:
    """A node that is to be changed.

    Attributes:
        element_id: Neo4j's id, which a new node may get once this one is deleted.
        rule: Index of the rule.
        identity: What the rule's identity property held, as text; None if it had none.
        labels: Its first labels, to be shown.
        before: What the property held.
    """

    element_id: str
    rule: int
    identity: str | None
    labels: tuple[str, ...]
    before: Value

    def to_json(self) -> dict[str, Any]:
        """Give plain values, for a line of a file."""
        return asdict(self) | {"labels": list(self.labels)}

    @classmethod
    def from_json(cls, fields: Any) -> "PlannedNode":
        """Read what `to_json` gave.

        Raises:
            DeclarationError: it is something else.
        """
        try:
            node = cls(**{**fields, "labels": tuple(fields["labels"])})
            texts = [node.element_id, *node.labels]
            texts += node.before if isinstance(node.before, list) else [node.before]
            texts += [] if node.identity is None else [node.identity]
            if type(node.rule) is int and all(isinstance(text, str) for text in texts):
                return node
        except (TypeError, KeyError):
            pass
        raise DeclarationError(f"{_shorten(fields)} is no line of a plan of nodes")


@dataclass(frozen=True)
class RuleCounts:
    """How the nodes of a rule's label stand.

    Attributes:
        nodes: All with the label.
        planned: Those that show the origin, and would be changed.
        already: Those that show the target.
        left_alone: Those that hold the origin's id in another form, as in a longer list.
    """

    nodes: int
    planned: int
    already: int
    left_alone: int


class Conflict(NamedTuple):
    """A planned node that holds neither what the plan saw nor what it was to get."""

    element_id: str
    identity: str | None
    property: str
    now: str


@dataclass(frozen=True)
class ChangeCounts:
    """What became of planned nodes.

    Attributes:
        changed: Hold the new value now.
        already: Held it before.
        conflicts: Held something else, and were left alone.
        gone: Deleted, or without the label or the identity that they had.
        sample: The first conflicts.
    """

    changed: int = 0
    already: int = 0
    conflicts: int = 0
    gone: int = 0
    sample: tuple[Conflict, ...] = ()

    @property
    def total(self) -> int:
        """All nodes that were looked at."""
        return self.changed + self.already + self.conflicts + self.gone

    def __add__(self, other: "ChangeCounts") -> "ChangeCounts":
        return ChangeCounts(
            changed=self.changed + other.changed,
            already=self.already + other.already,
            conflicts=self.conflicts + other.conflicts,
            gone=self.gone + other.gone,
            sample=(self.sample + other.sample)[:MAX_SAMPLE],
        )


@dataclass(frozen=True)
class NodesDigest:
    """Number of nodes, and the sum of their 128-bit hashes in hexadecimal."""

    nodes: int
    digest: str


Progress = Callable[[ChangeCounts], None]


def count_plan(
    graph: Graph, rules: Sequence[NodeRule], origin: str, target: str
) -> tuple[RuleCounts, ...]:
    """Count for each rule what a move would do; it reads every node of the label.

    Raises:
        DeclarationError: the ids are no two ids.
        PermanentError, TransientError: the store does not answer.
    """
    require_ids(origin, target)
    return tuple(_count_rule(graph, rule, origin, target) for rule in rules)


def _count_rule(graph: Graph, rule: NodeRule, origin: str, target: str) -> RuleCounts:
    # IN takes a value that is no list for a list of one.
    query = f"""
        MATCH (n:{_quote(rule.label)}) WITH n.{_quote(rule.property)} AS now
        RETURN count(*) AS nodes,
            count(CASE WHEN now = $before THEN 1 END) AS planned,
            count(CASE WHEN now = $after THEN 1 END) AS already,
            count(CASE WHEN $origin IN now AND NOT now = $before THEN 1 END) AS left_alone
        """
    (record,) = graph.stream(
        query,
        {"before": rule.to_value(origin), "after": rule.to_value(target), "origin": origin},
    )
    return RuleCounts(**record.data())


def plan_nodes(
    graph: Graph, rules: Sequence[NodeRule], origin: str, target: str
) -> Iterator[PlannedNode]:
    """Give the nodes that show the origin, rule by rule, as they come from the server.

    Raises:
        DeclarationError: the ids are no two ids.
        PermanentError, TransientError: the store does not answer, or was lost on the way.
    """
    require_ids(origin, target)
    for index, rule in enumerate(rules):
        before = rule.to_value(origin)
        query = f"""
            MATCH (n:{_quote(rule.label)}) WHERE n.{_quote(rule.property)} = $before
            RETURN elementId(n), {_identity(rule)}, labels(n)[..{MAX_LABELS}]
            """
        for element_id, identity, labels in graph.stream(query, {"before": before}):
            yield PlannedNode(element_id, index, identity, tuple(labels), before)


def apply_nodes(
    graph: Graph,
    rules: Sequence[NodeRule],
    planned: Iterable[PlannedNode],
    origin: str,
    target: str,
    on_progress: Progress = lambda counts: None,
) -> ChangeCounts:
    """Let planned nodes show the target, each only while it holds what the plan saw.

    Changes nothing the second time, so after a failure the same plan is simply applied again.

    Args:
        graph: An open connection.
        rules: The rules that the plan was made with.
        planned: The plan; it is read once, in batches.
        origin: The tenant's id until now.
        target: The tenant's id from now on.
        on_progress: Gets the counts so far after each transaction.

    Raises:
        DeclarationError: the plan was made for other rules or ids; nothing of its batch is changed.
        PermanentError, TransientError: the store does not take it; applied batches stay applied.
    """
    return _change(graph, rules, planned, origin, target, on_progress, backwards=False)


def restore_nodes(
    graph: Graph,
    rules: Sequence[NodeRule],
    planned: Iterable[PlannedNode],
    origin: str,
    target: str,
    on_progress: Progress = lambda counts: None,
) -> ChangeCounts:
    """Give planned nodes back what they held, each only while it holds what the move wrote.

    Arguments and errors are those of `apply_nodes`, with the same ids in the same order; `changed`
    then counts nodes that were put back, `already` those that never were changed.
    """
    return _change(graph, rules, planned, origin, target, on_progress, backwards=True)


def count_nodes(graph: Graph, rules: Sequence[NodeRule], tenant_id: str) -> tuple[int, ...]:
    """Count for each rule the nodes that show a tenant."""
    counts = []
    for rule in rules:
        query = f"""
            MATCH (n:{_quote(rule.label)}) WHERE n.{_quote(rule.property)} = $value
            RETURN count(*) AS nodes
            """
        (record,) = graph.stream(query, {"value": rule.to_value(tenant_id)})
        counts.append(record["nodes"])
    return tuple(counts)


def digest_nodes(
    graph: Graph,
    rules: Sequence[NodeRule],
    origin: str,
    target: str,
    on_progress: Callable[[int], None] = lambda nodes: None,
) -> NodesDigest:
    """Sum up everything of the rules' nodes but which of the two tenants they show.

    Labels and all properties count; a property that shows origin or target just as a rule says
    counts as one and the same. Equal digests before and after a move, with no node left at the
    origin, mean that nothing else was changed. It reads all nodes, and holds one at a time.

    Args:
        graph: An open connection.
        rules: What shows the tenant; nodes with any of their labels are read.
        origin: One tenant.
        target: The other one.
        on_progress: Gets the number of nodes so far, now and then.

    Raises:
        DeclarationError: the ids are no two ids.
        PermanentError, TransientError: the store does not answer, or was lost on the way.
    """
    require_ids(origin, target)
    total = nodes = 0
    for label in dict.fromkeys(rule.label for rule in rules):
        masked = [
            (rule.property, (rule.to_value(origin), rule.to_value(target)))
            for rule in rules
            if rule.label == label
        ]
        query = f"MATCH (n:{_quote(label)}) RETURN elementId(n), labels(n), properties(n)"
        records = graph.stream(query, fetch_records=DIGEST_FETCH_RECORDS)
        for element_id, labels, properties in records:
            cells = [(label, element_id, sorted(labels))]
            for name, value in sorted(properties.items()):
                shows = any(name == changed and value in values for changed, values in masked)
                # A repr tells 1 from 1.0 and from True, and "1" from all of them.
                cells.append((name, "tenant" if shows else (type(value).__name__, value), []))
            total += xxh3_128_intdigest(repr(cells).encode())
            nodes += 1
            if not nodes % BATCH_NODES:
                on_progress(nodes)
    return NodesDigest(nodes, f"{total % (1 << 128):032x}")


def _change(
    graph: Graph,
    rules: Sequence[NodeRule],
    planned: Iterable[PlannedNode],
    origin: str,
    target: str,
    on_progress: Progress,
    *,
    backwards: bool,
) -> ChangeCounts:
    require_ids(origin, target)
    counts = ChangeCounts()
    nodes = iter(planned)
    while batch := list(islice(nodes, BATCH_NODES)):
        for node in batch:
            _require_plan_of(node, rules, origin)
        counts += _change_batch(graph, rules, batch, (origin, target), backwards)
        on_progress(counts)
    return counts


def _change_batch(
    graph: Graph,
    rules: Sequence[NodeRule],
    batch: Sequence[PlannedNode],
    tenants: tuple[str, str],
    backwards: bool,
) -> ChangeCounts:
    # Always in the same order, or two runs could wait for each other.
    nodes = sorted(batch, key=lambda node: node.element_id)
    # What an earlier try wrote, if the answer to its commit was lost.
    written: set[tuple[int, str]] = set()

    def work(transaction: "Transaction") -> ChangeCounts:
        counts = ChangeCounts()
        for index, rule in enumerate(rules):
            of_rule = {node.element_id: node for node in nodes if node.rule == index}
            if of_rule:
                before, after = (rule.to_value(tenant) for tenant in tenants)
                held, wanted = (after, before) if backwards else (before, after)
                counts += _change_rule(transaction, index, rule, of_rule, held, wanted, written)
        return counts

    return graph.write(work)


def _change_rule(
    transaction: "Transaction",
    index: int,
    rule: NodeRule,
    nodes: dict[str, PlannedNode],
    held: Value,
    wanted: Value,
    written: set[tuple[int, str]],
) -> ChangeCounts:
    label, name = _quote(rule.label), f"n.{_quote(rule.property)}"
    rows = [{"id": node.element_id, "identity": node.identity} for node in nodes.values()]
    found = f"""
        MATCH (n:{label}) WHERE elementId(n) = row.id
            AND ({_identity(rule)} = row.identity
                OR (row.identity IS NULL AND {_identity(rule)} IS NULL))
        """
    # A label that is there already: nothing changes, but the node's lock is taken, without which
    # another client could write between the look at the value and its change.
    _run(transaction, f"UNWIND $rows AS row {found} SET n:{label}", rows=rows)
    looked = _run(
        transaction,
        f"""
        UNWIND $rows AS row OPTIONAL {found}
        RETURN row.id, CASE WHEN n IS NULL THEN 'gone' WHEN {name} = $held THEN 'held'
            WHEN {name} = $wanted THEN 'wanted' ELSE 'other' END
        """,
        rows=rows,
        held=held,
        wanted=wanted,
    )
    ids: dict[str, list[str]] = {"gone": [], "held": [], "wanted": [], "other": []}
    for element_id, how in looked:
        ids[how].append(element_id)
    find = f"UNWIND $ids AS id MATCH (n:{label}) WHERE elementId(n) = id"
    if ids["held"]:
        _run(transaction, f"{find} SET {name} = $wanted", ids=ids["held"], wanted=wanted)
    sample = ()
    if ids["other"]:
        shown = _run(transaction, f"{find} RETURN id, {name}", ids=ids["other"][:MAX_SAMPLE])
        sample = tuple(
            Conflict(element_id, nodes[element_id].identity, rule.property, _shorten(now))
            for element_id, now in shown
        )
    by_us = sum((index, element_id) in written for element_id in ids["wanted"])
    written.update((index, element_id) for element_id in ids["held"])
    return ChangeCounts(
        changed=len(ids["held"]) + by_us,
        already=len(ids["wanted"]) - by_us,
        conflicts=len(ids["other"]),
        gone=len(ids["gone"]),
        sample=sample,
    )


def _run(transaction: "Transaction", query: str, **parameters: Any) -> "list[Record]":
    return list(transaction.run(trusted(query), parameters))


def _require_plan_of(node: PlannedNode, rules: Sequence[NodeRule], origin: str) -> None:
    if not 0 <= node.rule < len(rules) or node.before != rules[node.rule].to_value(origin):
        raise DeclarationError(
            f"the plan was made for other rules or another origin than {origin!r}, as node"
            f" {node.element_id} shows; make it again"
        )


def _identity(rule: NodeRule) -> str:
    """An expression that is text or null, whatever the property holds."""
    return f"left(toStringOrNull(n.{_quote(rule.identity)}), {MAX_IDENTITY_CHARS})"


def _quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _shorten(value: object) -> str:
    """Show a value, however large."""
    if isinstance(value, str | bytes | bytearray | list):
        # One that is cut needs no more than this of each element, and of itself.
        value = value[: MAX_SHOWN_CHARS + 1]
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}..."
