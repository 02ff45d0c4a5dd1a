"""A properties file of the Cassandra Data Migrator as declarations of this platform.

Text becomes settings, settings a `Migration` and two stores, and these the text of two YAML files:
pure functions, so that everything wrong is told before anything is written. What the migrator
means is kept, its row-wise times and its one-way comparison too; what cannot be kept and would
change what is copied is refused, and everything else that differs is said.
"""

import ast
import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from migration_platform.cdm.java_properties import MAX_BYTES, decode_properties, parse_properties
from migration_platform.cdm.java_splits import object_to_split, split_text
from migration_platform.cdm.properties import JOBS, PREFIX, PROPERTIES, SPELLINGS
from migration_platform.copying.large_cells import declare_check
from migration_platform.cql.literals import parse_literal
from migration_platform.cql.names import TableName
from migration_platform.declaration.migration import (
    ColumnFilter,
    Columns,
    Endpoint,
    ExplodeMap,
    ExtractJson,
    Filter,
    Guardrails,
    Migration,
    RowMax,
)
from migration_platform.declaration.step_names import asset_path, step_name
from migration_platform.errors import DeclarationError
from migration_platform.runs.resume import MAX_SPLIT
from migration_platform.token_ranges import MAX_RANGES, MAX_TOKEN, MIN_TOKEN

_CDM = "the Cassandra Data Migrator"


@dataclass(frozen=True)
class Imported:
    """What a properties file becomes; `files` has the text of each by its path in the folder.

    `notes` are sentences for the user: what differs, and properties without an equivalent.
    `variables` are the environment variables to be set, with whose password each one holds.
    """

    migration: Migration
    stores: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, str]
    notes: tuple[str, ...]
    variables: Mapping[str, str]
    launch: str

    def report(self) -> str:
        """Give all that a user has to know, as text."""
        migration, limits = self.migration, self.migration.guardrails
        what = f" to {migration.target.table}"
        if migration.reads_only and limits:
            what = f": cells of more than {limits.max_column_kb} KB"
        lines = [f"{migration.origin.table}{what}"]
        lines += ["", "What differs, and what has no equivalent:"]
        lines += [f"- {note}" for note in self.notes]
        if self.variables:
            lines += ["", "Set these environment variables where runs happen:"]
            lines += [f"- {name}: {holds}" for name, holds in self.variables.items()]
        return "\n".join([*lines, "", "Then:", "  dg check defs", f"  {self.launch}"])


class _Settings:
    """The file's values by name without prefix; gathers what is wrong with them, and notes."""

    def __init__(self, values: Mapping[str, str], notes: list[str], wrong: list[str]):
        self._values, self.notes, self.wrong = values, notes, wrong

    def given(self, name: str) -> bool:
        return bool(self._values.get(name))

    def text(self, name: str) -> str:
        # An empty value is none: a username that is emptied asks for no authentication.
        return self._values.get(name, PROPERTIES[name].default)

    def flag(self, name: str) -> bool:
        text = self.text(name).lower() or PROPERTIES[name].default
        if text not in ("true", "false"):
            self.wrong.append(f"{PREFIX}{name} must be true or false")
        return text == "true"

    def number(self, name: str) -> int | None:
        text = self.text(name) or PROPERTIES[name].default
        if text and not re.fullmatch(r"[+-]?[0-9]{1,40}", text):
            self.wrong.append(f"{PREFIX}{name} must be a whole number")
            return None
        return int(text) if text else None

    def names(self, name: str) -> tuple[str, ...]:
        return tuple(_unquoted(part) for part in self.text(name).split(",") if part.strip())

    def table(self, name: str) -> TableName | None:
        """Read keyspace.table as the migrator does: unquoted names keep their case, too."""
        text = self.text(name)
        parts = re.fullmatch(r'("[^"]+"|[^".\s]+)\.("[^"]+"|[^".\s]+)', text)
        if parts:
            return TableName(_unquoted(parts[1]), _unquoted(parts[2]))
        self.wrong.append(
            f"{PREFIX}{name} must be keyspace.table"
            if text
            else f"{PREFIX}{name} is missing: it names the origin's keyspace.table"
        )
        return None

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)


def _unquoted(name: str) -> str:
    name = name.strip()
    is_quoted = len(name) > 2 and name[0] == name[-1] == '"'
    return name[1:-1].replace('""', '"') if is_quoted else name


def read_settings(data: bytes, overrides: Sequence[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Read a file and what overrides it (KEY=VALUE) into values by name, and notes.

    Raises:
        DeclarationError: one message with every name that the migrator does not know.
    """
    found: dict[str, tuple[str, str]] = {}
    notes, lost = [], []
    entries = [
        (e.key, e.value, f"line {e.line}") for e in parse_properties(decode_properties(data))
    ]
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise DeclarationError("--set takes KEY=VALUE; one of them has no =")
        entries.append((key.strip(), value, "--set"))
    for key, value, place in entries:
        if key in found and found[key][1] != "--set" and place != "--set":
            notes.append(f"{_shown(key)} stands there twice; {place} wins, being the last.")
        found[key] = (value.strip(), place)
    values, wrong = {}, []
    for key, (value, _) in found.items():
        if not key.startswith(PREFIX):
            lost.append(_shown(key))
            continue
        name = key.removeprefix(PREFIX)
        real = SPELLINGS.get(name)
        if real:
            if PREFIX + real in found:
                notes.append(f"{key} is passed over: {PREFIX}{real} stands there, too, and counts.")
                continue
            notes.append(f"{key} is taken as {PREFIX}{real}; {_CDM} itself passes it over.")
        elif name not in PROPERTIES:
            close = difflib.get_close_matches(name, [*PROPERTIES, *SPELLINGS], n=1, cutoff=0.5)
            hint = f"; did you mean {PREFIX}{close[0]}?" if close else ""
            wrong.append(f"there is no property {_shown(key)}{hint}")
            continue
        values[real or name] = value
    if wrong:
        raise DeclarationError("; ".join(wrong))
    if lost:
        notes.append(f"Without meaning here: {', '.join(lost)}.")
    return values, notes


def _shown(key: str) -> str:
    plain = key.encode("unicode_escape").decode()
    return plain if len(plain) <= 100 else plain[:97] + "..."


def import_properties(
    data: bytes,
    overrides: Sequence[str] = (),
    *,
    prefix: str = "cdm",
    timestamp_keys: Sequence[str] = (),
    job: str | None = None,
) -> Imported:
    """Turn a properties file into declarations.

    `job` is one of `JOBS`; without it a file that names an origin only, and how large a cell may
    be, is for `guardrail`, and every other for `migrate`, which compares as well.

    `prefix` begins the names of the stores and of the variables of their passwords.
    `timestamp_keys` are the only key columns of the target in which null becomes the time that
    transform.missing.key.ts.replace.value gives; without them all timestamps of the key are.

    Raises:
        DeclarationError: one message with everything that is wrong or would be lost.
    """
    values, notes = read_settings(data, overrides)
    settings = _Settings(values, notes, [])
    if not re.fullmatch(r"[A-Za-z_]\w{0,40}", prefix, re.ASCII):
        settings.wrong.append(
            f"{_shown(prefix)!r} cannot begin the names of stores; valid are up to 41 letters, "
            "digits and underscores"
        )
    if job not in (None, *JOBS):
        settings.wrong.append(f"there is no job {_shown(job)}; valid are {', '.join(JOBS)}")
    if job is None and _names_origin_only(settings):
        settings.note(
            "The file names an origin only, and how large a cell may be: it is taken for the "
            "migrator's GuardrailCheck. Give --job migrate if it is for a migration."
        )
        job = "guardrail"
    is_check = job == "guardrail"
    _note_what_has_no_equivalent(settings, "connect.target." if is_check else "")
    variables: dict[str, str] = {}
    # A check has no target, whatever the file says of one.
    sides = ("origin",) if is_check else ("origin", "target")
    stores = {
        f"{prefix}_{side}": _store(settings, side, f"{prefix}_{side}", variables) for side in sides
    }
    migration = (
        _check(settings, prefix) if is_check else _migration(settings, prefix, timestamp_keys)
    )
    if settings.wrong or migration is None:
        raise DeclarationError("; ".join(dict.fromkeys(settings.wrong)))
    folder = re.sub(r"[^A-Za-z0-9_]", "_", migration.target.table.table)
    folder += "_large_cells" if is_check else ""
    stores_folder = f"{prefix}_stores"
    if folder.lower() == stores_folder.lower():
        raise DeclarationError(
            f"the target's table and the stores would both be declared in the folder {folder}; "
            "choose another beginning of the stores' names with --stores"
        )
    declared = {
        "type": f"migration_platform.{'GuardrailCheck' if is_check else 'TableMigration'}",
        "attributes": _to_check_attributes(migration) if is_check else to_attributes(migration),
    }
    _refuse_templates([stores, declared])
    launch = _launch_line(settings, migration)
    head = [
        f"From a properties file of {_CDM}; what differs from it:",
        *notes,
        f"To run it: {launch}" if is_check else f"To copy and compare: {launch}",
        *([] if is_check else [f"To compare alone: {_of_diff_alone(launch)}"]),
    ]
    store_head = [f"{name}: {holds}" for name, holds in variables.items()]
    stores_yaml = {"type": "migration_platform.Stores", "attributes": {"cassandra": stores}}
    return Imported(
        migration=migration,
        stores=stores,
        files={
            f"{stores_folder}/defs.yaml": _to_yaml(store_head, stores_yaml),
            f"{folder}/defs.yaml": _to_yaml(head, declared),
        },
        notes=tuple(notes),
        variables=variables,
        launch=launch if job != "diff" else _of_diff_alone(launch),
    )


def _of_diff_alone(launch: str) -> str:
    """Give the command that compares, and copies nothing."""
    return re.sub(r"--assets '[^,']*,", "--assets '", launch, count=1)


def _names_target(settings: _Settings) -> bool:
    return any(settings.given(name) for name in PROPERTIES if name.startswith("connect.target."))


def _names_origin_only(settings: _Settings) -> bool:
    """Say whether a file has a limit of a cell's size, and no target other than the origin."""
    here, there = (settings.text(f"schema.{side}.keyspaceTable") for side in ("origin", "target"))
    hosts = [
        [settings.text(f"connect.{side}.{part}") for part in ("host", "port")]
        for side in ("origin", "target")
    ]
    is_limited = settings.text("feature.guardrail.colSizeInKB") not in ("", "0")
    same_table = there in ("", here)
    return is_limited and same_table and (not _names_target(settings) or hosts[0] == hosts[1])


def _note_what_has_no_equivalent(settings: _Settings, ignored: str = "") -> None:
    """Refuse or note what is lost; names that begin with what is `ignored` do not matter."""
    for name, known in PROPERTIES.items():
        if not settings.given(name) or known.fate not in ("none", "refused"):
            continue
        if ignored and name.startswith(ignored):
            continue
        is_default = settings.text(name).lower() == known.default.lower()
        if known.fate == "refused" and not is_default:
            settings.wrong.append(f"{known.key} has no equivalent: {known.becomes}")
        elif known.fate == "none" or not known.default:
            settings.note(f"{known.key} has no equivalent: {known.becomes.removeprefix('none: ')}.")


# -- stores --------------------------------------------------------------------------------------


def _store(settings: _Settings, side: str, name: str, variables: dict[str, str]) -> dict[str, Any]:
    at = f"connect.{side}."
    hosts, port = _contact_points(settings, at)
    store: dict[str, Any] = {"contact_points": hosts, "port": port}
    if settings.text(f"{at}local_dc"):
        store["local_datacenter"] = settings.text(f"{at}local_dc")
    if settings.text(f"{at}username"):
        store["username"] = settings.text(f"{at}username")
        variable = f"{name}_password".upper()
        store["password"] = {"env": variable}
        variables[variable] = (
            f"the password of {PREFIX}{at}username"
            if settings.given(f"{at}password")
            else f"the password of {PREFIX}{at}username; the file has none, and the default of "
            f"{_CDM} is the word cassandra"
        )
    elif settings.given(f"{at}password"):
        settings.note(f"{PREFIX}{at}password does nothing without a username.")
    is_tls = settings.flag(f"{at}tls.enabled")
    if is_tls:
        store["tls"] = _tls(settings, at)
    else:
        for part in ("trustStore.path", "keyStore.path"):
            if settings.given(f"{at}tls.{part}"):
                settings.note(f"{PREFIX}{at}tls.{part} does nothing while tls.enabled is false.")
    return store


def _contact_points(settings: _Settings, at: str) -> tuple[list[str], int]:
    default = settings.number(f"{at}port") or 0
    hosts, ports = [], set()
    for text in (settings.text(f"{at}host") or "localhost").split(","):
        found = re.fullmatch(
            r"\s*(?:\[([^\]\s]+)\]|([^:\s]+)|([^:\s]*:[^\s]*:[^\s]*))(?::([0-9]{1,9}))?\s*", text
        )
        if not found or not (found[1] or found[2] or found[3]):
            settings.wrong.append(f"{PREFIX}{at}host must be hosts with commas between them")
            continue
        hosts.append(found[1] or found[2] or found[3])
        ports.add(int(found[4] or default))
    if len(ports) > 1:
        settings.wrong.append(
            f"{PREFIX}{at}host names several ports; a cluster has one, so name hosts of one port"
        )
    port = ports.pop() if ports else default
    if not 1 <= port <= 65_535:
        settings.wrong.append(f"{PREFIX}{at}port must be from 1 to 65535")
    return hosts, port


def _tls(settings: _Settings, at: str) -> dict[str, str]:
    tls = {}
    trust, key = settings.text(f"{at}tls.trustStore.path"), settings.text(f"{at}tls.keyStore.path")
    if trust:
        tls["ca_file"] = _as_pem(trust, "")
        if tls["ca_file"] != trust:
            settings.note(
                f"{PREFIX}{at}tls.trustStore.path becomes a PEM file: keytool -list -rfc "
                f"-keystore {trust} > {tls['ca_file']}"
            )
    if key:
        tls["certificate_file"] = _as_pem(key, "-certificate")
        tls["key_file"] = _as_pem(key, "-key")
        settings.note(
            f"{PREFIX}{at}tls.keyStore.path becomes two PEM files: keytool -importkeystore "
            f"-srckeystore {key} -destkeystore {key}.p12 -deststoretype PKCS12, then openssl "
            f"pkcs12 -in {key}.p12 -clcerts -nokeys -out {tls['certificate_file']}, and openssl "
            f"pkcs12 -in {key}.p12 -nocerts -nodes -out {tls['key_file']} (mode 600)."
        )
    settings.note(
        f"{PREFIX}{at}tls.enabled: the server's name must match its certificate; where it does "
        "not, set check_hostname: false in the store's tls."
    )
    return tls


def _as_pem(path: str, part: str) -> str:
    """Name the PEM file that a Java key store is to become."""
    plain = Path(path.removeprefix("file://"))
    if plain.suffix.lower() in (".pem", ".crt") and not part:
        return str(plain)
    return str(plain.with_name(f"{plain.stem}{part}.pem"))


# -- the migration -------------------------------------------------------------------------------


def _migration(settings: _Settings, prefix: str, timestamp_keys: Sequence[str]) -> Migration | None:
    origin = settings.table("schema.origin.keyspaceTable")
    target = (
        settings.table("schema.target.keyspaceTable")
        if settings.given("schema.target.keyspaceTable")
        else origin
    )
    chosen = _filter(settings)
    times = _times(settings, chosen)
    columns = _columns(settings, timestamp_keys)
    limit = settings.number("feature.guardrail.colSizeInKB") or 0
    if limit > 0:
        settings.note(
            "A large cell is reported (guardrails.action: report), as the code does; its guide "
            "speaks of leaving rows out, which is guardrails.action: skip. --job guardrail makes "
            "the check alone."
        )
    options = {
        **times,
        "columns": columns,
        "filter": chosen,
        "guardrails": Guardrails(limit) if limit > 0 else None,
        "token_ranges": _token_ranges(settings),
        "diff_mode": "origin_only",
        "repair": _repairs(settings),
        "tracking": _is_tracked(settings),
    }
    settings.note(
        "diff.mode is origin_only, because DiffData compares one way: rows that only the target "
        "has are not found. Take the line out to compare both ways."
    )
    sides = _sides(settings)
    if settings.wrong or origin is None or target is None:
        return None
    try:
        return Migration(
            Endpoint(f"{prefix}_origin", origin, **sides["origin"]),
            Endpoint(f"{prefix}_target", target, **sides["target"]),
            **options,
        )
    except DeclarationError as error:
        settings.wrong.append(str(error))
        return None


def _check(settings: _Settings, prefix: str) -> Migration | None:
    """Give what GuardrailCheck does: the origin's cells as they are, and no target."""
    origin = settings.table("schema.origin.keyspaceTable")
    limit = settings.number("feature.guardrail.colSizeInKB") or 0
    if limit <= 0:
        settings.wrong.append(
            f"{PREFIX}feature.guardrail.colSizeInKB is missing: it says how large a cell may be"
        )
    settings.note(
        "The origin's cells are measured as they are: what the file says of the target, of "
        "columns, times and repairs does nothing here. The check ends green whatever it finds."
    )
    chosen = _filter(settings)
    if chosen.column or chosen.by_writetime:
        settings.note("filter.java.* is left out: the migrator's GuardrailCheck reads these rows.")
        chosen = replace(chosen, column=None, writetime_from=None, writetime_to=None)
    if settings.number("trackRun.previousRunId") or settings.flag("trackRun.autoRerun"):
        settings.note("trackRun: a check begins anew and reads all ranges; none is carried over.")
    token_ranges, tracking = _token_ranges(settings), _is_tracked(settings, "origin")
    side = _origin_side(settings)
    if settings.wrong or origin is None:
        return None
    try:
        return declare_check(
            Endpoint(f"{prefix}_origin", origin, **side),
            limit,
            token_ranges=token_ranges,
            chosen=chosen,
            tracking=tracking,
        )
    except DeclarationError as error:
        settings.wrong.append(str(error))
        return None


def _origin_side(settings: _Settings) -> dict[str, Any]:
    size = settings.number("perfops.fetchSizeInRows")
    settings.note(
        "Rates: those of the migrator are for each worker, rows_per_second is for the whole run, "
        "however many workers it has; raise it by their number to go as fast."
    )
    return {
        "consistency": settings.text("perfops.consistency.read").upper() or "LOCAL_QUORUM",
        "rows_per_second": settings.number("perfops.ratelimit.origin"),
        "fetch_size": size if settings.given("perfops.fetchSizeInRows") else None,
    }


def _sides(settings: _Settings) -> dict[str, dict[str, Any]]:
    read, write = (settings.text(f"perfops.consistency.{way}").upper() for way in ("read", "write"))
    if read != write:
        settings.note(
            f"perfops.consistency.read was for the target's rows in a comparison, too; here the "
            f"target is read at target.consistency, {write}."
        )
    return {
        "origin": _origin_side(settings),
        "target": {
            "consistency": write or "LOCAL_QUORUM",
            "rows_per_second": settings.number("perfops.ratelimit.target"),
        },
    }


def _times(settings: _Settings, chosen: Filter) -> dict[str, Any]:
    """Say how writetimes and TTLs are kept: one of each for a row, as the migrator does."""
    at = "schema.origin.column."
    names = {of: settings.names(f"{at}{of}.names") for of in ("writetime", "ttl")}
    kept = {of: bool(names[of]) or settings.flag(f"{at}{of}.automatic") for of in names}
    custom = settings.number("transform.custom.writetime") or 0
    custom_ttl = settings.number("transform.custom.ttl") or 0
    increment = settings.number("transform.custom.writetime.incrementBy") or 0
    writetime = custom if custom > 0 else "row_max" if kept["writetime"] else "now"
    ttl = custom_ttl if custom_ttl > 0 else "row_max" if kept["ttl"] else "none"
    if increment and writetime != "row_max":
        settings.note(
            "transform.custom.writetime.incrementBy is left out: it is added to writetimes that "
            "are kept only."
        )
        increment = 0
    if ttl == "none":
        settings.note(
            "ttl is none: rows live for ever. The migrator leaves a TTL to the target table's "
            "default_time_to_live; where it has one, set ttl to its seconds."
        )
    if chosen.by_writetime and not kept["writetime"]:
        settings.wrong.append(
            f"{PREFIX}filter.java.writetime needs writetimes that are read; set {PREFIX}{at}"
            "writetime.automatic to true"
        )
    if chosen.by_writetime and custom > 0:
        settings.note(
            "filter.writetime_from and _to look at each row's own newest writetime, where the "
            "migrator compares the custom writetime, so that all rows pass or none do."
        )
    counts = writetime == "row_max" or chosen.by_writetime
    collections = settings.flag("schema.ttlwritetime.calc.useCollections")
    row_max = RowMax(
        writetime_columns=names["writetime"] if counts else (),
        ttl_columns=names["ttl"] if ttl == "row_max" else (),
        collections=collections or not (counts or ttl == "row_max"),
        expiring_cells_only=ttl == "row_max",
        if_none_counts="now" if "row_max" in (writetime, ttl) else RowMax.if_none_counts,
    )
    if "row_max" in (writetime, ttl):
        settings.note(
            "Every cell of a row gets the row's one writetime and TTL. Take writetime, ttl and "
            "row_max out, and each cell keeps its own."
        )
        settings.note(
            "A row of which no cell that counts has a value gets the newest and longest of its "
            "other cells; the migrator writes it at 1970 and for ever."
        )
        settings.note(
            "row_max.if_none_counts is now: a table of which no column counts is written with the "
            "present time and without a TTL, as the migrator does; the plan says whether it is one."
        )
    if ttl == "row_max":
        settings.note(
            "row_max.expiring_cells_only: the longest TTL is that of all cells, also of those "
            "that live for ever; set it to false to let such rows live for ever."
        )
    return {
        "writetime": writetime,
        "ttl": ttl,
        "writetime_increment_by": increment,
        "row_max": row_max,
    }


def _filter(settings: _Settings) -> Filter:
    low, high = (settings.number(f"filter.java.writetime.{end}") or 0 for end in ("min", "max"))
    active = 0 < low < high
    if (low or high) and not active:
        settings.note(
            "filter.java.writetime is left out: the migrator filters only where min and max are "
            "both above 0 and max is the larger one."
        )
    name = _unquoted(settings.text("filter.java.column.name"))
    value = settings.text("filter.java.column.value")
    if bool(name) != bool(value):
        settings.note("filter.java.column is left out: it needs a name and a value.")
    where = re.sub(
        r"\A\s*and\b\s*", "", settings.text("filter.cassandra.whereCondition"), flags=re.I
    )
    least, most = (settings.number(f"filter.cassandra.partition.{end}") for end in ("min", "max"))
    percent = settings.number("filter.java.token.percent")
    if percent is not None and not 1 <= percent <= 100:
        settings.note(
            f"filter.java.token.percent is taken as 100, as the migrator does with {percent}."
        )
        percent = 100
    return Filter(
        where=where or None,
        token_min=MIN_TOKEN if least is None else least,
        token_max=MAX_TOKEN if most is None else most,
        coverage_percent=100 if percent is None else percent,
        writetime_from=low if active else None,
        writetime_to=high if active else None,
        column=ColumnFilter(name, value) if name and value else None,
    )


def _columns(settings: _Settings, timestamp_keys: Sequence[str]) -> Columns:
    codecs = settings.names("transform.codecs")
    pattern = settings.text("transform.codecs.timestamp.string.format")
    zone = settings.text("transform.codecs.timestamp.string.zone")
    if "TIMESTAMP_STRING_FORMAT" not in codecs:
        if (pattern, zone) != (Columns.timestamp_format, Columns.timestamp_zone):
            settings.note(
                "transform.codecs.timestamp.string.format and zone are left out: they do nothing "
                "without the codec TIMESTAMP_STRING_FORMAT."
            )
        pattern, zone = Columns.timestamp_format, Columns.timestamp_zone
    settings.flag("transform.map.remove.null.value")
    settings.note(
        "columns.unmatched is skip: columns that only the origin has stay behind, as with the "
        "migrator; the plan and the run's log name them. Take it out to be refused instead."
    )
    settings.note(
        "Null in a column that is new in the target's key becomes an empty text, and a time where "
        "transform.missing.key.ts.replace.value gives one (columns.key_defaults_by_type); a row "
        "with another null there fails its range, where the migrator passes over it."
    )
    return Columns(
        rename=_renames(settings),
        skip=settings.names("schema.origin.column.skip"),
        constants=_constants(settings),
        codecs=codecs,
        timestamp_format=pattern,
        timestamp_zone=zone,
        explode_map=_explode_map(settings),
        extract_json=_extract_json(settings),
        **_key_defaults(settings, timestamp_keys),
        unmatched="skip",
    )


def _renames(settings: _Settings) -> dict[str, str]:
    renames = {}
    name = "schema.origin.column.names.to.target"
    for pair in settings.text(name).split(","):
        if not pair.strip():
            continue
        parts = [_unquoted(part) for part in pair.split(":")]
        if len(parts) != 2 or not all(parts) or parts[0] in renames:
            settings.wrong.append(
                f"{PREFIX}{name} must be origin:target with commas between them, each origin once"
            )
        elif parts[0] != parts[1]:
            renames[parts[0]] = parts[1]
    return renames


def _constants(settings: _Settings) -> dict[str, Any]:
    at = f"{PREFIX}feature.constantColumns."
    names = settings.names("feature.constantColumns.names")
    text = settings.text("feature.constantColumns.values")
    try:
        splitter = re.compile(settings.text("feature.constantColumns.splitRegex") or ",")
    except (re.error, OverflowError, RecursionError):
        settings.wrong.append(f"{at}splitRegex is no regular expression that Python knows")
        return {}
    objections = object_to_split(splitter, text)
    if objections:
        settings.wrong.append(f"{at}{objections[0]}")
        return {}
    values = split_text(splitter, text) if text else []
    if len(names) != len(values):
        settings.wrong.append(
            f"{at}names are {len(names)} and {at}values {len(values)}; name one value for each"
        )
        return {}
    found = {}
    for name, value in zip(names, values, strict=True):
        try:
            found[name] = parse_literal(value)
        except ValueError as error:
            settings.wrong.append(f"{at}values: that of {_shown(name)} is no CQL literal: {error}")
    return found


def _explode_map(settings: _Settings) -> ExplodeMap | None:
    at = "feature.explodeMap."
    parts = [
        _unquoted(settings.text(at + part))
        for part in ("origin.name", "target.name.key", "target.name.value")
    ]
    if not any(parts):
        return None
    if not all(parts):
        settings.wrong.append(
            f"{PREFIX}{at}origin.name, target.name.key and target.name.value belong together; "
            "give all three, or none"
        )
        return None
    return ExplodeMap(*parts)


def _extract_json(settings: _Settings) -> ExtractJson | None:
    at = "feature.extractJson."
    column = _unquoted(settings.text(f"{at}originColumn"))
    mapping = settings.text(f"{at}propertyMapping")
    exclusive, overwrite = settings.flag(f"{at}exclusive"), settings.flag(f"{at}overwrite")
    if not column and not mapping:
        return None
    parts = [_unquoted(part) for part in mapping.split(":")]
    if not column or len(parts) > 2 or not all(parts):
        settings.wrong.append(
            f"{PREFIX}{at}originColumn must be a column and {PREFIX}{at}propertyMapping "
            "property:column, or one name for both"
        )
        return None
    return ExtractJson(column, {parts[0]: parts[-1]}, exclusive, overwrite)


def _key_defaults(settings: _Settings, timestamp_keys: Sequence[str]) -> dict[str, Any]:
    name = "transform.missing.key.ts.replace.value"
    milliseconds = settings.number(name)
    # The migrator writes an empty text into a key whether or not it is told a time.
    found: dict[str, Any] = {"key_defaults_by_type": dict.fromkeys(("text", "ascii"), "")}
    if milliseconds is None:
        if timestamp_keys:
            settings.wrong.append(f"--timestamp-key does nothing without {PREFIX}{name}")
        return found
    if timestamp_keys:
        found["key_defaults"] = dict.fromkeys(timestamp_keys, milliseconds)
    else:
        found["key_defaults_by_type"]["timestamp"] = milliseconds
    return found


def _token_ranges(settings: _Settings) -> int:
    parts = settings.number("perfops.numParts")
    if not settings.given("perfops.numParts") or parts is None:
        settings.note(
            "token_ranges is 64, where the migrator cuts a ring into 5000; set it where a range "
            "would have more than a few gigabytes."
        )
        return Migration.token_ranges
    if parts > MAX_RANGES:
        settings.note(
            f"token_ranges is {MAX_RANGES}, the most that there can be, not the {parts:,} of "
            "perfops.numParts; a range that is too large is cut while it runs."
        )
    settings.note(
        "token_ranges cut the whole ring; filter.token_min and token_max then say what is read."
    )
    return min(parts, MAX_RANGES)


def _repairs(settings: _Settings) -> tuple[str, ...]:
    chosen = {
        "missing": settings.flag("autocorrect.missing"),
        "mismatched": settings.flag("autocorrect.mismatch"),
    }
    if settings.flag("autocorrect.missing.counter"):
        if chosen["missing"]:
            chosen["counters"] = True
        else:
            settings.note("autocorrect.missing.counter does nothing without autocorrect.missing.")
    repairs = tuple(name for name, wanted in chosen.items() if wanted)
    if repairs:
        settings.note(
            "diff.repair: null at the origin is repaired as well, where the migrator counts it as "
            "corrected and leaves the target's value. Rows that only the target has are never "
            "deleted, unless extra is listed and diff.mode is two_way."
        )
    return repairs


def _is_tracked(settings: _Settings, side: str = "target") -> bool:
    ids = {name: settings.number(f"trackRun.{name}") or 0 for name in ("previousRunId", "runId")}
    for name, run_id in ids.items():
        if not 0 <= run_id <= MAX_TOKEN:
            settings.wrong.append(
                f"{PREFIX}trackRun.{name} must be the id of a run, 1 to {MAX_TOKEN}, or 0 for none"
            )
    # Both flags are read, so that whatever is wrong with them is told.
    chosen = [settings.flag("trackRun"), settings.flag("trackRun.autoRerun")]
    if side == "target" and (settings.number("trackRun.rerunMultiplier") or 0) > MAX_SPLIT:
        settings.wrong.append(
            f"{PREFIX}trackRun.rerunMultiplier must be at most {MAX_SPLIT:,}: into so many pieces "
            "a range is cut"
        )
    tracked = any(chosen) or any(ids.values())
    if tracked:
        settings.note(
            f"cdm_run_info and cdm_run_details live in the keyspace {Migration.tracking_keyspace} "
            f"of the {side}'s cluster; tracking_keyspace names another one."
        )
    return tracked


# -- what is written -----------------------------------------------------------------------------


def _launch_line(settings: _Settings, migration: Migration) -> str:
    """Give the command that runs it, with what the file says of one run."""
    table = migration.target.table
    parts = asset_path((migration.target.store, table.keyspace, table.table))
    if migration.reads_only:
        parts[-1] += "_large_cells"
    asset, ranges = "/".join(parts), migration.ranges
    config: dict[str, Any] = {}
    previous = settings.number("trackRun.previousRunId")
    if migration.reads_only:
        # Nothing is carried over.
        pass
    elif previous:
        config["resume"] = str(previous)
        settings.note(
            f"trackRun.previousRunId is the config resume of a run. If {previous} is a run of the "
            "migrator, it is found only where tracking_keyspace names the keyspace with its "
            f"tables, {table.keyspace}."
        )
    elif settings.flag("trackRun.autoRerun"):
        config["resume"] = "auto"
    if settings.number("trackRun.runId"):
        config["run_id"] = settings.number("trackRun.runId")
    pieces = settings.number("trackRun.rerunMultiplier") or 1
    if pieces > 1 and "resume" in config:
        config["split_pending"] = pieces
    elif pieces > 1:
        settings.note("trackRun.rerunMultiplier does nothing without a run to resume.")
    line = (
        f"dg launch --assets '{asset}'"
        if migration.reads_only
        else f"dg launch --assets '{asset},{asset}_diff' "
        f"--partition-range '{ranges[0].key}...{ranges[-1].key}'"
    )
    if config:
        steps = {step_name(parts): {"config": config}}
        line += f" --config-json '{json.dumps({'ops': steps})}'"
    return line


def to_attributes(migration: Migration) -> dict[str, Any]:
    """Give the YAML attributes of a migration, of those with a default only what differs."""
    flat = _changed(migration, ("origin", "target", "columns", "filter", "row_max"))
    found: dict[str, Any] = {}
    for side in ("origin", "target"):
        endpoint = getattr(migration, side)
        found[side] = {
            "store": endpoint.store,
            "table": str(endpoint.table),
            **_changed(endpoint, ("store", "table")),
        }
    diff = {
        "diff_mode": "mode",
        "compare_writetime": "compare_writetime",
        "compare_form": "compare_form",
        "ignore_newer_than_seconds": "ignore_newer_than_seconds",
        "repair": "repair",
        "repair_writetime": "repair_writetime",
    }
    blocks = {
        "row_max": _changed(migration.row_max),
        "columns": _changed(migration.columns),
        "filter": _changed(migration.filter),
        "diff": {name: flat.pop(field) for field, name in diff.items() if field in flat},
    }
    letters = {"dead_letters_max_rows": "max_rows", "dead_letters_fail_run": "fail_run"}
    blocks["dead_letters"] = {
        name: flat.pop(field) for field, name in letters.items() if field in flat
    }
    return {**found, **flat, **{name: block for name, block in blocks.items() if block}}


def _to_check_attributes(migration: Migration) -> dict[str, Any]:
    """Give the YAML attributes of a check."""
    origin, limits = migration.origin, migration.guardrails
    assert limits is not None
    named = {"store": origin.store, "table": str(origin.table)}
    chosen = _changed(migration.filter)
    return {
        "origin": {**named, **_changed(origin, named)},
        "max_column_kb": limits.max_column_kb,
        **{
            name: value
            for name, value in _changed(migration).items()
            if name in ("token_ranges", "workers", "tracking", "tracking_keyspace", "retry_seconds")
        },
        **({"filter": chosen} if chosen else {}),
    }


def _changed(declared: Any, without: Iterable[str] = ()) -> dict[str, Any]:
    """Give the fields that are not the default, as YAML writes them."""
    blank: dict[str, Any] = {
        f.name: f.default_factory() if callable(f.default_factory) else f.default
        for f in fields(declared)
        if f.init
    }
    return {
        name: _plain(getattr(declared, name))
        for name, default in blank.items()
        if name not in without and getattr(declared, name) != default
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, ExplodeMap | ExtractJson | ColumnFilter | Guardrails):
        return _changed(value)
    return dict(value) if isinstance(value, Mapping) else value


def _refuse_templates(value: Any) -> None:
    """Refuse what Dagster would read as a template of its own."""
    if isinstance(value, Mapping):
        _refuse_templates([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            _refuse_templates(item)
    elif isinstance(value, str) and re.search(r"\{\{|\{%|\{#", value):
        raise DeclarationError(
            "a value holds {{, {% or {#, which a defs.yaml takes for a template; write this "
            "migration's defs.yaml by hand"
        )


_AS_WRITTEN = ("constants", "key_defaults", "key_defaults_by_type")
"""Attributes whose text stays text; in others Dagster makes the number 12 of the text '12'."""


def _quoted(value: Any) -> Any:
    """Put quotes into a text that Dagster would take for a number, a list or the like."""
    if isinstance(value, Mapping):
        return {k: v if k in _AS_WRITTEN else _quoted(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    try:
        is_other = isinstance(value, str) and ast.literal_eval(value) != value
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value
    return repr(value) if is_other else value


def _to_yaml(head: Sequence[str], document: Any) -> str:
    lines = [f"# {' '.join(_shown_line(line).split())}" for line in head]
    text = yaml.safe_dump(_quoted(document), sort_keys=False, allow_unicode=True, width=100)
    return "\n".join([*lines, text])


def _shown_line(text: str) -> str:
    return "".join(c if c.isprintable() or c == " " else "?" for c in text)


def import_file(
    file: Path,
    output: Path,
    overrides: Sequence[str] = (),
    *,
    prefix: str = "cdm",
    timestamp_keys: Sequence[str] = (),
    job: str | None = None,
    force: bool = False,
) -> list[str]:
    """Import a file into a folder; give the lines of the report.

    Raises:
        DeclarationError: one message with everything that is wrong; nothing was written.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise DeclarationError(f"cannot read {file}: {error.strerror}") from error
    imported = import_properties(
        data, overrides, prefix=prefix, timestamp_keys=timestamp_keys, job=job
    )
    written = write_files(output, _not_declared_yet(output, imported), force=force)
    kept = [path for name in imported.files if (path := output / name) not in written]
    return [
        imported.report(),
        "",
        *(f"wrote {path}" for path in written),
        *(f"left {path}, which says the same" for path in kept),
    ]


def _not_declared_yet(folder: Path, imported: Imported) -> dict[str, str]:
    """Leave out the file of a check's store where a migration's has that store already."""
    files = dict(imported.files)
    name = next(iter(files))
    if imported.migration.reads_only and (folder / name).is_file():
        try:
            there = yaml.safe_load((folder / name).read_text("utf-8"))["attributes"]["cassandra"]
            wanted = yaml.safe_load(files[name])["attributes"]["cassandra"]
            if all(there.get(store) == wanted[store] for store in wanted):
                del files[name]
        except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError):
            # Somebody else's file: it would be overwritten, which is told.
            pass
    return files


def write_files(folder: Path, files: Mapping[str, str], *, force: bool = False) -> list[Path]:
    """Write the files below a folder; one that says the same already is left as it is.

    Raises:
        DeclarationError: files with other content are there, and nothing was written.
    """
    try:
        changed = {
            folder / name: text
            for name, text in files.items()
            if not (folder / name).is_file() or (folder / name).read_text("utf-8") != text
        }
        there = [str(path) for path in changed if path.exists()]
        if there and not force:
            raise DeclarationError(
                f"{' and '.join(there)} would be overwritten; use --force, or another --output"
            )
        for path, text in changed.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise DeclarationError(f"cannot write below {folder}: {error.strerror}") from error
    return list(changed)
