"""The blocks of attributes with which YAML declares the migration of one table."""

from typing import Any

import dagster as dg
from pydantic import Field

from migration_platform.components.attributes import Literally, NamedAttributes
from migration_platform.components.table.kinds import OwnAttributes
from migration_platform.declaration.columns import CODECS, Columns
from migration_platform.declaration.times import RowMax
from migration_platform.token_ranges import MAX_TOKEN, MIN_TOKEN


class OriginAttributes(NamedAttributes, dg.Model):
    """Where rows come from."""

    store: str = Field(description="Name of a store.")
    table: str = Field(description="keyspace.table; quoted names allowed.")
    consistency: str = Field("LOCAL_QUORUM", description="Consistency level of reads.")
    fetch_size: int | None = Field(None, description="Rows a page; default: by the rows' size.")
    finish_transactions: bool = Field(
        False,
        description="Read each partition serially first, so that lightweight transactions are "
        "finished that nobody finished. Slow.",
    )
    rows_per_second: int | None = Field(None, description="Limit for the whole run.")
    bytes_per_second: int | None = Field(None, description="Limit for the whole run.")


class TargetAttributes(OwnAttributes, NamedAttributes, dg.Model):
    """Where rows go to."""

    store: str = Field(description="Name of a store.")
    table: str | None = Field(
        None,
        description="keyspace.table, or DynamoDB's table; default: the origin's name.",
    )
    consistency: str = Field("LOCAL_QUORUM", description="Consistency level of writes.")
    rows_per_second: int | None = Field(None, description="Limit for the whole run.")
    bytes_per_second: int | None = Field(None, description="Limit for the whole run.")


class ExplodeMapAttributes(NamedAttributes, dg.Model):
    """A map column whose entries become rows of their own."""

    column: str = Field(description="The origin's map column.")
    key: str = Field(description="The target's column for an entry's key, part of its key.")
    value: str = Field(description="The target's column for an entry's value.")


class ExtractJsonAttributes(NamedAttributes, dg.Model):
    """A text column that holds a JSON object, and where its properties go."""

    column: str = Field(description="The origin's text column.")
    properties: dict[str, str] = Field(description="Property to the target's column.")
    exclusive: bool = Field(
        default=False, description="Copy the key and these columns, nothing else."
    )
    overwrite: bool = Field(
        default=False,
        description="Whether a target column that holds another value is a difference.",
    )


class ColumnsAttributes(NamedAttributes, dg.Model):
    """How the target's columns come from the origin's."""

    rename: dict[str, str] = Field(
        default_factory=dict, description="The origin's column to the target's."
    )
    skip: list[str] = Field(
        default_factory=list, description="Columns of the origin that are not copied."
    )
    constants: Literally[dict[str, Any]] = Field(
        default_factory=dict, description="Columns of the target with one value in every row."
    )
    codecs: list[str] = Field(
        default_factory=list,
        description=f"Changes of type, each in both directions: {', '.join(CODECS)}.",
    )
    timestamp_format: str = Field(
        default=Columns.timestamp_format,
        description="Pattern of TIMESTAMP_STRING_FORMAT, as Java's DateTimeFormatter reads it.",
    )
    timestamp_zone: str = Field(
        default=Columns.timestamp_zone,
        description="Zone of that text, such as UTC or Europe/Berlin.",
    )
    explode_map: ExplodeMapAttributes | None = Field(
        default=None, description="A map column whose entries become rows of their own."
    )
    extract_json: ExtractJsonAttributes | None = Field(
        default=None, description="A JSON column whose properties become columns."
    )
    key_defaults: Literally[dict[str, Any]] = Field(
        default_factory=dict,
        description="Key columns of the target, and what stands in them for null.",
    )
    key_defaults_by_type: Literally[dict[str, Any]] = Field(
        default_factory=dict,
        description="The same for all key columns of a type that key_defaults does not name.",
    )
    unmatched: str = Field(
        default=Columns.unmatched,
        description="refuse columns that only the origin has, or skip them.",
    )


class ColumnFilterAttributes(NamedAttributes, dg.Model):
    """Rows that are left out by what one column shows."""

    name: str = Field(description="The origin's column.")
    value: str | int | float | bool = Field(
        description="Rows that show this are left out; case and outer blanks do not count."
    )


class FilterAttributes(NamedAttributes, dg.Model):
    """Which rows of the origin are copied; a row must pass all of it."""

    where: str | None = Field(
        default=None, description="CQL conditions joined by AND, which the server checks."
    )
    token_min: int = Field(default=MIN_TOKEN, description="Lowest token that is read.")
    token_max: int = Field(default=MAX_TOKEN, description="Highest token that is read.")
    coverage_percent: int = Field(
        default=100, description="How much of each token range is read, from its low end, 1 to 100."
    )
    writetime_from: Any = Field(
        default=None,
        description="Lowest writetime of a row: microseconds, or a time such as "
        "2026-01-01T00:00:00Z (UTC unless it says otherwise).",
    )
    writetime_to: Any = Field(
        default=None, description="Highest writetime of a row, in the same form."
    )
    column: ColumnFilterAttributes | None = Field(
        default=None, description="Rows to leave out by the value of a column."
    )


class RowMaxAttributes(NamedAttributes, dg.Model):
    """Which cells count for a row's one writetime and TTL."""

    writetime_columns: list[str] = Field(
        default_factory=list, description="Columns of the origin; default: all."
    )
    ttl_columns: list[str] = Field(
        default_factory=list, description="Columns of the origin; default: all."
    )
    collections: bool = Field(
        default=True,
        description="Whether unfrozen collections and user-defined types count, unless named.",
    )
    expiring_cells_only: bool = Field(
        default=False,
        description="Whether the longest TTL counts also where other cells live for ever.",
    )
    if_none_counts: str = Field(
        default=RowMax.if_none_counts,
        description="For a table of which no column counts: all others do, or with now rows are "
        "written with the present time and live for ever.",
    )


class GuardrailsAttributes(NamedAttributes, dg.Model):
    """What happens to rows with a large cell."""

    max_column_kb: int = Field(description="Size of a cell that is too large: 1 KB is 1000 bytes.")
    action: str = Field(default="report", description="report, skip the row, or fail the range.")


class DiffAttributes(NamedAttributes, dg.Model):
    """How both tables are compared."""

    mode: str = Field(
        default="two_way",
        description="two_way also finds rows that only the target has; or origin_only, which "
        "reads DynamoDB by the origin's keys and does not scan it.",
    )
    compare_writetime: bool = Field(
        default=False, description="Whether cells with equal values and other writetimes differ."
    )
    compare_form: bool = Field(
        default=False,
        description="Whether keys and elements differ that are equal for the server and whose "
        "bytes are not, such as the decimals 1.5 and 1.50.",
    )
    ignore_newer_than_seconds: int | None = Field(
        default=None,
        description="Rows written so shortly before the comparison are no differences: for tables "
        "that are written to meanwhile.",
    )
    read_units_per_second: int | None = Field(
        default=None, description="DynamoDB: limit of read units for the whole run."
    )
    repair: list[str] = Field(
        default_factory=list,
        description="What is repaired where ranges differ: missing, mismatched, extra, counters.",
    )
    repair_writetime: str = Field(
        default="origin",
        description="origin keeps the origin's times; with now a repair wins over newer cells and "
        "tombstones at the target.",
    )


class DeadLettersAttributes(NamedAttributes, dg.Model):
    """What happens to rows that cannot be written."""

    max_rows: int = Field(
        default=0, description="How many rows of a range may be rejected before the range fails."
    )
    fail_run: bool = Field(
        default=True,
        description="Whether a run that rejected rows fails in the end, so that scripts notice. "
        "Its ranges stay green either way.",
    )


class EventsAttributes(NamedAttributes, dg.Model):
    """Where metric events and job-log events go."""

    store: str | None = Field(None, description="Name of a Kafka store.")
    topic: str | None = Field(
        None, description="Topic of the metric event, one for each run that ends."
    )
    job_log_topic: str | None = Field(None, description="Topic of JOB_START, JOB_LOG, JOB_END.")
    job_log_store: str | None = Field(
        None, description="Name of the Kafka store of that topic; default: store."
    )
    job_log_file: str | None = Field(
        None,
        description="File to which the same events are appended, a line each; a relative path "
        "begins in the Dagster instance's folder.",
    )
    job_name: str = Field("CassandraMigratorJob", description="The events' subsystem.")

    @property
    def stores(self) -> tuple[str, ...]:
        """The Kafka stores that are needed."""
        return tuple(dict.fromkeys(filter(None, (self.store, self.job_log_store))))

    def conflicts(self) -> list[str]:
        """Say which attributes need others that are not there."""
        wrong = []
        if self.topic and not self.store:
            wrong.append("events.topic needs events.store, the Kafka store that has it")
        if self.store and not (self.topic or self.job_log_topic):
            wrong.append("events.store needs events.topic, where the metric event goes")
        if self.job_log_topic and not self.stores:
            wrong.append("events.job_log_topic needs events.job_log_store or events.store")
        if self.job_log_store and not self.job_log_topic:
            wrong.append("events.job_log_store means nothing without events.job_log_topic")
        if not (self.stores or self.topic or self.job_log_topic or self.job_log_file):
            wrong.append("events needs a topic (with its store), a job_log_topic or a job_log_file")
        return wrong
