"""A properties file of the Cassandra Data Migrator as declarations of this platform.

Text becomes settings, settings a `Migration` and two stores, and these the text of two YAML files:
pure functions, so that everything wrong is told before anything is written. What the migrator
means is kept, its row-wise times and its one-way comparison too; what cannot be kept and would
change what is copied is refused, and everything else that differs is said.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from migration_platform.cdm.attributes import to_attributes, to_check_attributes
from migration_platform.cdm.files import refuse_templates, to_yaml, write_files
from migration_platform.cdm.java_properties import MAX_BYTES
from migration_platform.cdm.launch import of_diff_alone, to_launch_line
from migration_platform.cdm.migration import to_check, to_migration
from migration_platform.cdm.properties import JOBS, PROPERTIES, YSQL
from migration_platform.cdm.settings import CDM, Settings, read_settings, shown
from migration_platform.cdm.stores import to_store
from migration_platform.cdm.ysql import has_no_meaning, targets_ysql, to_ysql_store
from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError


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

    Whether the target is a Cassandra cluster or YSQL is said by the file, unless `job` says it.

    `prefix` begins the names of the stores and of the variables of their passwords.
    `timestamp_keys` are the only key columns of the target in which null becomes the time that
    transform.missing.key.ts.replace.value gives; without them all timestamps of the key are.

    Raises:
        DeclarationError: one message with everything that is wrong or would be lost.
    """
    values, notes = read_settings(data, overrides)
    settings = Settings(values, notes, [])
    if not re.fullmatch(r"[A-Za-z_]\w{0,40}", prefix, re.ASCII):
        settings.wrong.append(
            f"{shown(prefix)!r} cannot begin the names of stores; valid are up to 41 letters, "
            "digits and underscores"
        )
    job = _choose_job(settings, job)
    is_ysql = targets_ysql(settings, job)
    _note_what_has_no_equivalent(settings, job, is_ysql=is_ysql)
    variables: dict[str, str] = {}
    stores = _to_stores(settings, prefix, job, variables, is_ysql=is_ysql)
    migration = (
        to_check(settings, prefix)
        if job == "guardrail"
        else to_migration(settings, prefix, timestamp_keys, is_ysql=is_ysql)
    )
    if settings.wrong or migration is None:
        raise DeclarationError("; ".join(dict.fromkeys(settings.wrong)))
    return _to_imported(settings, migration, prefix, job, stores, variables)


def _to_stores(
    settings: Settings, prefix: str, job: str | None, variables: dict[str, str], *, is_ysql: bool
) -> dict[str, dict[str, dict[str, Any]]]:
    """Give the stores by kind and name; a check has no target, whatever the file says of one."""
    origin, target = f"{prefix}_origin", f"{prefix}_target"
    clusters = {origin: to_store(settings, "origin", origin, variables)}
    if is_ysql:
        servers = {target: to_ysql_store(settings, target, variables)}
        return {"cassandra": clusters, "postgres": servers}
    if job != "guardrail":
        clusters[target] = to_store(settings, "target", target, variables)
    return {"cassandra": clusters}


def _choose_job(settings: Settings, job: str | None) -> str | None:
    """Take a file that names an origin only, and a limit, for a check if no job is given."""
    if job not in (None, *JOBS):
        settings.wrong.append(f"there is no job {shown(job)}; valid are {', '.join(JOBS)}")
    if job is None and _names_origin_only(settings):
        settings.note(
            "The file names an origin only, and how large a cell may be: it is taken for the "
            "migrator's GuardrailCheck. Give --job migrate if it is for a migration."
        )
        return "guardrail"
    return job


def _name_folders(prefix: str, migration: Migration) -> tuple[str, str]:
    """Name the folder of the stores and that of the migration."""
    folder = re.sub(r"[^A-Za-z0-9_]", "_", migration.target.table.table)
    folder += "_large_cells" if migration.reads_only else ""
    stores_folder = f"{prefix}_stores"
    if folder.lower() == stores_folder.lower():
        raise DeclarationError(
            f"the target's table and the stores would both be declared in the folder {folder}; "
            "choose another beginning of the stores' names with --stores"
        )
    return stores_folder, folder


def _to_imported(
    settings: Settings,
    migration: Migration,
    prefix: str,
    job: str | None,
    stores: Mapping[str, Mapping[str, Mapping[str, Any]]],
    variables: Mapping[str, str],
) -> Imported:
    stores_folder, folder = _name_folders(prefix, migration)
    is_check = job == "guardrail"
    declared = {
        "type": f"migration_platform.{'GuardrailCheck' if is_check else 'TableMigration'}",
        "attributes": to_check_attributes(migration) if is_check else to_attributes(migration),
    }
    refuse_templates([stores, declared])
    launch = to_launch_line(settings, migration, is_ysql="postgres" in stores)
    head = [
        f"From a properties file of {CDM}; what differs from it:",
        *settings.notes,
        f"To run it: {launch}" if is_check else f"To copy and compare: {launch}",
        *([] if is_check else [f"To compare alone: {of_diff_alone(launch)}"]),
    ]
    store_head = [f"{name}: {holds}" for name, holds in variables.items()]
    stores_yaml = {"type": "migration_platform.Stores", "attributes": stores}
    return Imported(
        migration=migration,
        stores={name: store for named in stores.values() for name, store in named.items()},
        files={
            f"{stores_folder}/defs.yaml": to_yaml(store_head, stores_yaml),
            f"{folder}/defs.yaml": to_yaml(head, declared),
        },
        notes=tuple(settings.notes),
        variables=variables,
        launch=launch if job not in ("diff", "yugabyte-validate") else of_diff_alone(launch),
    )


def _names_target(settings: Settings) -> bool:
    return any(settings.given(name) for name in PROPERTIES if name.startswith("connect.target."))


def _names_origin_only(settings: Settings) -> bool:
    """Say whether a file has a limit of a cell's size, and no target other than the origin."""
    here, there = (settings.text(f"schema.{side}.keyspaceTable") for side in ("origin", "target"))
    hosts = [
        [settings.text(f"connect.{side}.{part}") for part in ("host", "port")]
        for side in ("origin", "target")
    ]
    is_limited = settings.text("feature.guardrail.colSizeInKB") not in ("", "0")
    same_table = there in ("", here)
    return is_limited and same_table and (not _names_target(settings) or hosts[0] == hosts[1])


def _note_what_has_no_equivalent(settings: Settings, job: str | None, *, is_ysql: bool) -> None:
    """Refuse or note what is lost; what a file says of a target that is not meant does not matter.

    Which of its properties that are, is told where it names a target in YSQL.
    """
    for name, known in PROPERTIES.items():
        of_target, of_ysql = name.startswith("connect.target."), name.startswith(YSQL)
        if not settings.given(name) or (of_target and job == "guardrail"):
            continue
        if of_ysql and not is_ysql:
            settings.note(f"{known.key} has no equivalent: the target is a Cassandra cluster.")
            continue
        if known.fate not in ("none", "refused") or (is_ysql and has_no_meaning(name)):
            continue
        is_default = settings.text(name).lower() == known.default.lower()
        if known.fate == "refused" and not is_default:
            settings.wrong.append(f"{known.key} has no equivalent: {known.becomes}")
        elif known.fate == "none" or not known.default:
            settings.note(f"{known.key} has no equivalent: {known.becomes.removeprefix('none: ')}.")


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
