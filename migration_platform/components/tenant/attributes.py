"""The YAML of a tenant's move, and what it declares."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from migration_platform.components.attributes import Literally, NamedAttributes
from migration_platform.cql.names import TableName
from migration_platform.declaration.validation import show
from migration_platform.errors import DeclarationError
from migration_platform.tenant.declaration import (
    Change,
    GraphStep,
    Lookup,
    Move,
    NodeRule,
    Step,
    SyncStep,
    TableStep,
)


class LookupAttributes(NamedAttributes, dg.Model):
    """A value in another row."""

    table: str = Field(description="keyspace.table; quoted names allowed.")
    column: str = Field(description="Column whose value is taken.")
    key: Literally[dict[str, Any]] = Field(
        default_factory=dict,
        description="Columns of that row's primary key and their values; default: the target "
        "tenant in the only column.",
    )


class ChangeAttributes(NamedAttributes, dg.Model):
    """What a column becomes."""

    replace: str | None = Field(
        None,
        description="value: the target tenant where the column is the origin tenant; first or "
        "all: likewise for the first or all such elements of a list or set, in place.",
    )
    lookup: LookupAttributes | None = Field(None, description="A value in another row.")
    constant: Literally[Any] = Field(None, description="One value for every row.")


class SyncAttributes(NamedAttributes, dg.Model):
    """What the search service is told to read again."""

    store: str = Field(description="Name of a sunbird_sync store.")
    object_type: str = Field(description="user, organisation, batch (or course_batch), ...")
    ids_of: str = Field(description="Name of the table step whose id file is sent.")
    block_size: int = Field(100, description="Ids a call.")
    sleep_ms: int = Field(5000, description="Milliseconds before each call but the first.")
    index_field: str | None = Field(
        None,
        description="Field of the index that shows a document's tenant, to count documents by "
        "where the store has a search endpoint.",
    )
    wait_seconds: int = Field(60, description="How long the index may take to show the change.")


class NodeAttributes(NamedAttributes, dg.Model):
    """Nodes that show the tenant."""

    label: str = Field(description="Label of the nodes.")
    property: str = Field(description="Property that is the tenant's id.")
    only_element: bool = Field(
        default=False, description="Whether it is a list that holds nothing but the id."
    )
    identity: str = Field(NodeRule.identity, description="Property by which a node is known again.")


class GraphAttributes(NamedAttributes, dg.Model):
    """Which nodes of a graph change."""

    store: str = Field(description="Name of a neo4j store.")
    origin: Literally[str] = Field(description="The origin tenant's id in the graph.")
    target: Literally[str] = Field(description="The target tenant's id in the graph.")
    nodes: list[NodeAttributes] = Field(description="Labels and properties, in order.")


class StepAttributes(NamedAttributes, dg.Model):
    """One step: a table, a sync or a graph."""

    table: str | None = Field(None, description="keyspace.table whose rows change.")
    select: str | None = Field(
        None, description="Its column that shows a row's tenant: the id, or a list or set of ids."
    )
    change: dict[str, ChangeAttributes] = Field(
        default_factory=dict, description="Its columns that change, and to what."
    )
    id_column: str | None = Field(
        None, description="Column that stands in the id file; default: the only one of the key."
    )
    id_file: str | None = Field(
        None,
        description="File of ids: a name in the move's folder, or a path; default: STEP.csv.",
    )
    duplicates_by: str | None = Field(
        None,
        description="Column by which a row is a duplicate of one that the target tenant has: "
        "such rows are moved, and reported.",
    )
    token_ranges: int = Field(16, description="Partitions of the asset, 1 to 1024.")
    sync: SyncAttributes | None = Field(None, description="What the search service reads again.")
    graph: GraphAttributes | None = Field(None, description="Which nodes of a graph change.")

    def to_step(self, name: str) -> Step:
        """Give the declaration of the step.

        Raises:
            DeclarationError: it is none or several of the three.
        """
        kinds = [kind for kind in ("table", "sync", "graph") if getattr(self, kind) is not None]
        if len(kinds) != 1:
            raise DeclarationError(
                f"steps.{name} has {' and '.join(kinds) or 'nothing to do'}; give one of table, "
                "sync, graph"
            )
        if self.sync is not None:
            return SyncStep(name=name, **dict(self.sync))
        if self.graph is not None:
            graph = self.graph
            rules = tuple(
                NodeRule(node.label, node.property, node.only_element, node.identity)
                for node in graph.nodes
            )
            return GraphStep(name, graph.store, graph.origin, graph.target, rules)
        assert self.table is not None
        if not self.select:
            raise DeclarationError(f"steps.{name}.select is missing: what shows a row's tenant")
        return TableStep(
            name=name,
            table=TableName.parse(self.table),
            select=self.select,
            changes=tuple(
                Change(
                    column,
                    replace=change.replace,  # type: ignore[arg-type]
                    lookup=Lookup(
                        TableName.parse(change.lookup.table),
                        change.lookup.column,
                        change.lookup.key,
                    )
                    if change.lookup
                    else None,
                    constant=change.constant,
                )
                for column, change in self.change.items()
            ),
            id_column=self.id_column,
            id_file=self.id_file or f"{name}.csv",
            duplicates_by=self.duplicates_by,
            token_ranges=self.token_ranges,
        )


def to_move(
    *,
    name: str,
    store: str,
    origin_tenant: str,
    target_tenant: str,
    organisations: str,
    steps: Mapping[str, StepAttributes],
    **settings: Any,
) -> Move:
    """Give the declaration of a move; all that is wrong with its steps in one message.

    Raises:
        DeclarationError: one message with everything that is wrong.
    """
    found: list[Step] = []
    wrong: list[str] = []
    for step_name, attributes in steps.items():
        try:
            found.append(attributes.to_step(step_name))
        except DeclarationError as error:
            wrong.append(str(error))
    if wrong:
        raise DeclarationError(f"{show(name)}: " + "; ".join(wrong))
    return Move(
        name=name,
        store=store,
        origin_tenant=origin_tenant,
        target_tenant=target_tenant,
        organisations=TableName.parse(organisations),
        steps=tuple(found),
        **settings,
    )
