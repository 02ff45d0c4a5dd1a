"""Every property of the Cassandra Data Migrator, its default, and what becomes of it here.

The properties that its fork for YugabyteDB adds, and spellings that are in use although no
program ever read them, stand here too: `settings.py` takes them for what their author meant.
"""

from dataclasses import dataclass
from typing import Literal

PREFIX = "spark.cdm."
YSQL_JOBS = ("yugabyte-migrate", "yugabyte-validate")
"""The fork's YugabyteMigrate and YugabyteValidate, whose target is YSQL."""
JOBS = ("migrate", "diff", "guardrail", *YSQL_JOBS)
"""What a file is for, which the migrator is told by --class: Migrate, DiffData, GuardrailCheck."""

Fate = Literal["becomes", "run", "none", "refused"]
"""An attribute; the config of a run; nothing; or a refusal where the value is not the default."""


@dataclass(frozen=True)
class Property:
    """A property without its prefix; an empty default means that there is none."""

    name: str
    default: str
    fate: Fate
    becomes: str
    is_secret: bool = False

    @property
    def key(self) -> str:
        """The name as it stands in a file."""
        return PREFIX + self.name


YSQL = "connect.target.yugabyte."
"""Begins the names of what the fork alone knows of its target."""

_ASTRA = "Astra is no target or origin here; name the hosts of a Cassandra cluster"
_PEM = "{part} as PEM; the report says how to convert a Java key store"
_SIDES = [
    ("host", "localhost", "becomes", "{store}.contact_points, and {store}.port of host:port"),
    ("port", "9042", "becomes", "{store}.port"),
    ("scb", "", "refused", _ASTRA),
    ("username", "cassandra", "becomes", "{store}.username"),
    ("password", "cassandra", "becomes", "{store}.password, by the name of a variable"),
    ("astra.database.id", "", "refused", _ASTRA),
    ("astra.scb.region", "", "none", "none: " + _ASTRA),
    ("astra.scb.type", "default", "none", "none: " + _ASTRA),
    ("astra.scb.custom.domain", "", "none", "none: " + _ASTRA),
    ("tls.enabled", "false", "becomes", "{store}.tls"),
    ("tls.trustStore.path", "", "becomes", _PEM.format(part="{store}.tls.ca_file")),
    ("tls.trustStore.password", "", "none", "none: a PEM file of authorities has no password"),
    ("tls.trustStore.type", "JKS", "none", "none: files are PEM"),
    (
        "tls.keyStore.path",
        "",
        "becomes",
        _PEM.format(part="{store}.tls.certificate_file and key_file"),
    ),
    ("tls.keyStore.password", "", "none", "none: a key file without a password, mode 600"),
    (
        "tls.enabledAlgorithms",
        "TLS_RSA_WITH_AES_128_CBC_SHA,TLS_RSA_WITH_AES_256_CBC_SHA",
        "none",
        "none: both ends agree on the best that they know",
    ),
    ("tls.isAstra", "false", "refused", _ASTRA),
]

_REST: list[tuple[str, str, Fate, str]] = [
    ("schema.origin.keyspaceTable", "", "becomes", "origin.table"),
    ("schema.origin.column.ttl.automatic", "true", "becomes", "ttl: row_max, or none"),
    ("schema.origin.column.ttl.names", "", "becomes", "row_max.ttl_columns"),
    ("schema.origin.column.writetime.automatic", "true", "becomes", "writetime: row_max, or now"),
    ("schema.origin.column.writetime.names", "", "becomes", "row_max.writetime_columns"),
    ("schema.origin.column.skip", "", "becomes", "columns.skip"),
    ("schema.origin.column.names.to.target", "", "becomes", "columns.rename"),
    (
        "schema.ttlwritetime.calc.useCollections",
        "false",
        "becomes",
        "row_max.collections; where then no column counts, row_max.if_none_counts: now",
    ),
    (
        "schema.target.keyspaceTable",
        "",
        "becomes",
        "target.table; columns.unmatched: skip leaves out what it lacks",
    ),
    ("autocorrect.missing", "false", "becomes", "diff.repair: missing"),
    ("autocorrect.mismatch", "false", "becomes", "diff.repair: mismatched"),
    ("autocorrect.missing.counter", "false", "becomes", "diff.repair: counters"),
    ("trackRun", "false", "becomes", "tracking"),
    ("trackRun.previousRunId", "0", "run", "resume: a run's id, in the config of a run"),
    ("trackRun.runId", "", "run", "run_id in the config of a run"),
    ("trackRun.autoRerun", "false", "run", "resume: auto, in the config of a run"),
    ("trackRun.rerunMultiplier", "1", "run", "split_pending in the config of a run"),
    ("perfops.numParts", "5000", "becomes", "token_ranges, at most 1000; not given: 64"),
    (
        "perfops.batchSize",
        "5",
        "none",
        "none: rows of one partition travel together, below the server's warning threshold",
    ),
    ("perfops.ratelimit.origin", "20000", "becomes", "origin.rows_per_second, for a whole run"),
    ("perfops.ratelimit.target", "20000", "becomes", "target.rows_per_second, for a whole run"),
    ("perfops.consistency.read", "LOCAL_QUORUM", "becomes", "origin.consistency"),
    ("perfops.consistency.write", "LOCAL_QUORUM", "becomes", "target.consistency"),
    ("perfops.fetchSizeInRows", "1000", "becomes", "origin.fetch_size; not given: by rows' size"),
    (
        "perfops.errorLimit",
        "0",
        "none",
        "none: no code reads it; dead_letters.max_rows stores rejected rows as dead letters",
    ),
    (
        "transform.missing.key.ts.replace.value",
        "",
        "becomes",
        "columns.key_defaults_by_type: timestamp",
    ),
    ("transform.custom.writetime", "0", "becomes", "writetime"),
    ("transform.custom.writetime.incrementBy", "0", "becomes", "writetime_increment_by"),
    ("transform.custom.ttl", "0", "becomes", "ttl"),
    ("transform.codecs", "", "becomes", "columns.codecs"),
    (
        "transform.codecs.timestamp.string.format",
        "yyyyMMddHHmmss",
        "becomes",
        "columns.timestamp_format",
    ),
    ("transform.codecs.timestamp.string.zone", "UTC", "becomes", "columns.timestamp_zone"),
    (
        "transform.map.remove.null.value",
        "false",
        "none",
        "none: Cassandra takes no null into a map, so there is none to remove",
    ),
    ("filter.cassandra.partition.min", "-9223372036854775808", "becomes", "filter.token_min"),
    ("filter.cassandra.partition.max", "9223372036854775807", "becomes", "filter.token_max"),
    ("filter.cassandra.whereCondition", "", "becomes", "filter.where"),
    ("filter.java.token.percent", "100", "becomes", "filter.coverage_percent"),
    ("filter.java.writetime.min", "", "becomes", "filter.writetime_from"),
    ("filter.java.writetime.max", "", "becomes", "filter.writetime_to"),
    ("filter.java.column.name", "", "becomes", "filter.column.name"),
    ("filter.java.column.value", "", "becomes", "filter.column.value"),
    ("feature.constantColumns.names", "", "becomes", "columns.constants"),
    (
        "feature.constantColumns.types",
        "",
        "none",
        "none: the target's schema tells the types",
    ),
    ("feature.constantColumns.values", "", "becomes", "columns.constants"),
    ("feature.constantColumns.splitRegex", ",", "becomes", "how the values are split"),
    ("feature.explodeMap.origin.name", "", "becomes", "columns.explode_map.column"),
    ("feature.explodeMap.target.name.key", "", "becomes", "columns.explode_map.key"),
    ("feature.explodeMap.target.name.value", "", "becomes", "columns.explode_map.value"),
    ("feature.extractJson.exclusive", "false", "becomes", "columns.extract_json.exclusive"),
    ("feature.extractJson.originColumn", "", "becomes", "columns.extract_json.column"),
    ("feature.extractJson.propertyMapping", "", "becomes", "columns.extract_json.properties"),
    ("feature.extractJson.overwrite", "false", "becomes", "columns.extract_json.overwrite"),
    (
        "feature.guardrail.colSizeInKB",
        "0",
        "becomes",
        "guardrails.max_column_kb, action: report; with --job guardrail a GuardrailCheck",
    ),
]

_OLDER: list[tuple[str, str, Fate, str]] = [
    ("perfops.printStatsAfter", "100000", "none", "none: every range has a line in the log"),
    ("perfops.printStatsPerPart", "false", "none", "none: every range has a line in the log"),
]

_FORK: list[tuple[str, str, Fate, str]] = [
    ("connect.origin.local_dc", "", "becomes", "{origin}.local_datacenter"),
    ("connect.target.local_dc", "", "becomes", "{target}.local_datacenter"),
    (
        "connect.target.type",
        "cassandra",
        "becomes",
        "the kind of the target's store: cassandra; or postgres, for yugabyte and ysql",
    ),
    (f"{YSQL}host", "localhost", "becomes", "{target}.hosts, and {target}.port of host:port"),
    (f"{YSQL}port", "5433", "becomes", "{target}.port"),
    (f"{YSQL}database", "yugabyte", "becomes", "{target}.database"),
    (f"{YSQL}username", "yugabyte", "becomes", "{target}.username"),
    (f"{YSQL}password", "yugabyte", "becomes", "{target}.password, by the name of a variable"),
    (
        f"{YSQL}schema",
        "public",
        "becomes",
        "{target}.schema, and that of target.table where it names none",
    ),
    (
        f"{YSQL}ssl.enabled",
        "false",
        "becomes",
        "{target}.sslmode: disable; with true what sslmode says, or require",
    ),
    (f"{YSQL}sslmode", "disable", "becomes", "{target}.sslmode, where ssl.enabled is true"),
    (f"{YSQL}sslrootcert", "", "becomes", "{target}.ca_file, where ssl.enabled is true"),
    (
        f"{YSQL}pool.maxSize",
        "20",
        "none",
        "none: there is no pool; workers says how many processes write, each with its connections",
    ),
    (
        f"{YSQL}pool.minSize",
        "5",
        "none",
        "none: there is no pool; a worker keeps its connections as long as it works",
    ),
    (f"{YSQL}additionalEndpoints", "", "becomes", "{target}.hosts, behind the first"),
    (
        f"{YSQL}topologyKeys",
        "",
        "none",
        "none: hosts are tried in turn; name those of the nearest zone first",
    ),
    (
        f"{YSQL}batchSize",
        "25",
        "none",
        "none: the rows of a batch are chosen by the engine; target.batch_rows says another number",
    ),
    (
        f"{YSQL}loadBalance",
        "true",
        "none",
        "none: hosts are tried in turn; put a balancer before them to spread connections",
    ),
    (
        f"{YSQL}rewriteBatchedInserts",
        "true",
        "none",
        "none: it is the JDBC driver's; rows travel in batches, as target.method says",
    ),
    (
        f"{YSQL}prepareThreshold",
        "5",
        "none",
        "none: it is the JDBC driver's, which is not used",
    ),
    (
        f"{YSQL}socketTimeout",
        "60000",
        "becomes",
        "{target}.options: tcp_user_timeout, in milliseconds; 0 is none",
    ),
    (f"{YSQL}tcpKeepAlive", "true", "becomes", "{target}.options: keepalives, 0 where it is false"),
    ("connect.origin.timeout", "", "none", "none: retry_seconds says how long a request is tried"),
    ("connect.target.timeout", "", "none", "none: retry_seconds says how long a request is tried"),
    ("log.directory", "", "none", "none: Dagster keeps the log of every run"),
    ("log.level", "", "none", "none: Dagster keeps the log of every run"),
]

SPELLINGS = {
    "prevRunId": "trackRun.previousRunId",
    "prev.run.id": "trackRun.previousRunId",
    "run.id": "trackRun.runId",
    "track.run": "trackRun",
    "perfops.fetchSize": "perfops.fetchSizeInRows",
    "perfops.rateLimit.origin": "perfops.ratelimit.origin",
    "perfops.rateLimit.target": "perfops.ratelimit.target",
    "connect.origin.localDC": "connect.origin.local_dc",
    "connect.target.localDC": "connect.target.local_dc",
    "connect.origin.consistencyLevel": "perfops.consistency.read",
    "connect.target.consistencyLevel": "perfops.consistency.write",
}
"""Names that guides print and the migrator passes over in silence, with the ones it reads."""


def _listed(name: str, default: str, fate: Fate, becomes: str) -> Property:
    stores = {"origin": "the origin's store: ", "target": "the target's store: "}
    side = name.split(".")[1] if name.startswith("connect.") else ""
    plain = becomes.replace("{store}.", "").replace("{origin}.", "").replace("{target}.", "")
    if plain != becomes:
        plain = stores[side] + plain
    return Property(name, default, fate, plain, is_secret=name.lower().endswith("password"))


UPSTREAM = tuple(
    _listed(f"connect.{side}.{name}", default, fate, becomes)  # type: ignore[arg-type]
    for name, default, fate, becomes in _SIDES
    for side in ("origin", "target")
) + tuple(_listed(*each) for each in _REST)
"""What cdm-detailed.properties lists, and schema.origin.column.skip, which only the code knows."""

PROPERTIES = {
    each.name: each for each in (*UPSTREAM, *(_listed(*more) for more in (*_OLDER, *_FORK)))
}


def list_properties() -> str:
    """Show every property, its default and what becomes of it, and the other spellings."""
    lines = [("property", "default", "what becomes of it")]
    for each in PROPERTIES.values():
        shown = each.default or "-"
        becomes = f"refused: {each.becomes}" if each.fate == "refused" else each.becomes
        lines.append((each.key, shown, becomes))
    lines += [(PREFIX + name, "-", f"taken as {PREFIX}{real}") for name, real in SPELLINGS.items()]
    widths = [max(len(line[at]) for line in lines) for at in (0, 1)]
    return "\n".join(
        f"{key:{widths[0]}}  {default:{widths[1]}}  {becomes}".rstrip()
        for key, default, becomes in lines
    )
