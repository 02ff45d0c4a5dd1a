"""The stores of a run, found by name among its resources."""

from typing import Any

from migration_platform.components.table import ended_runs
from migration_platform.components.table.attributes import EventsAttributes
from migration_platform.declaration.migration import Endpoint
from migration_platform.errors import DeclarationError
from migration_platform.resources import KafkaResource
from migration_platform.stores.interface import Resource


def find_events(events: EventsAttributes | None, resources: Any) -> ended_runs.EventSettings | None:
    """Give what a run needs to send its events; None if none are declared.

    Raises:
        DeclarationError: the store is no Kafka store.
    """
    if events is None:
        return None
    return ended_runs.EventSettings(
        kafka=find_store(resources, events.store, KafkaResource).to_settings(),
        topic=events.topic,
        job_log_topic=events.job_log_topic,
        job=events.job_name,
    )


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
