"""The stores of a run: found by name among its resources, and opened patiently."""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from migration_platform.components.table import ended_runs
from migration_platform.components.table.attributes import EventsAttributes
from migration_platform.components.table.reporting import build_retry_log
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import DeclarationError
from migration_platform.pacing.retries import connect_patiently
from migration_platform.resources import KafkaResource
from migration_platform.runs.events import KafkaSettings
from migration_platform.stores.interface import Origin, Resource, Target
from migration_platform.stores.kinds import open_origin, open_target

_Opened = TypeVar("_Opened")


def open_sides(
    context: dg.AssetExecutionContext,
    migration: Migration,
    stack: ExitStack,
    *,
    origin: Resource,
    target: Resource,
) -> tuple[Origin, Target]:
    """Open both sides for as long as the stack is, as patiently as the migration says.

    Raises:
        PreflightError, TransientError: a store cannot be reached; one sentence.
    """
    seconds = migration.retry_seconds
    here = stack.enter_context(open_store(context, origin.connect, seconds))
    there = stack.enter_context(open_store(context, target.connect, seconds))
    return open_origin(migration, here), open_target(migration, there)


def open_store(
    context: dg.AssetExecutionContext,
    connect: Callable[[], AbstractContextManager[_Opened]],
    retry_seconds: float,
) -> AbstractContextManager[_Opened]:
    """Open a store of a run, and log why it is tried again.

    Raises:
        PreflightError, TransientError: it cannot be reached; one sentence.
    """
    return connect_patiently(connect, retry_seconds, build_retry_log(context, "Connecting"))


def find_events(
    events: EventsAttributes | None,
    resources: Any,
    instance: dg.DagsterInstance,
    declared: Mapping[str, Any] | None = None,
) -> ended_runs.EventSettings | None:
    """Give what a run needs to send its events; None if none are declared.

    Raises:
        DeclarationError: a store is no Kafka store.
    """
    if events is None:
        return None
    kafka = {
        name: find_store(resources, name, KafkaResource).to_settings() for name in events.stores
    }
    file = events.job_log_file
    return ended_runs.EventSettings(
        kafka=kafka[events.store] if events.store else None,
        topic=events.topic,
        job_log_topic=events.job_log_topic,
        job=events.job_name,
        job_log_kafka=kafka[events.job_log_store] if events.job_log_store else None,
        # An absolute path stays as it is.
        job_log_file=Path(instance.root_directory) / file if file else None,
        config=json.dumps(declared or {}, default=str),
    )


def changes_stores(migration: Migration) -> set[str]:
    """Give the stores that tell of changes at the origin."""
    sync = migration.sync
    return {sync.kafka.store} if sync and sync.kafka else set()


def find_changes(migration: Migration, resources: Any) -> KafkaSettings | None:
    """Give the cluster that tells of changes at the origin; None if none does.

    Raises:
        DeclarationError: the store is no Kafka store.
    """
    for name in changes_stores(migration):
        return find_store(resources, name, KafkaResource).to_settings()
    return None


def find_store(resources: Any, name: str, kind: type) -> Any:
    """Give a store of a run.

    Raises:
        DeclarationError: it is of another kind than is needed.
    """
    store = getattr(resources, name)
    if not isinstance(store, kind):
        raise DeclarationError(
            f"the store {name} is a {type(store).__name__}, but a {kind.__name__} is needed here"
        )
    return store


def find_side(resources: Any, endpoint: Endpoint) -> Resource:
    """Give the store of one side of a run.

    Raises:
        DeclarationError: it is of another kind than is declared.
    """
    store = getattr(resources, endpoint.store)
    if getattr(store, "kind", None) != endpoint.kind:
        raise DeclarationError(
            f"the store {endpoint.store} is a {type(store).__name__}, but a store of the kind "
            f"{endpoint.kind} is needed here"
        )
    return store
