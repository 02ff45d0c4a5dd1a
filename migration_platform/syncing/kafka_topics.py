"""Asks a Kafka cluster what there is of a topic, without reading a message of it."""

# The client's type hints know nothing of how it makes its own names at import.
# pyright: reportPrivateImportUsage=false, reportArgumentType=false

import difflib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from migration_platform.errors import MigrationError, PreflightError, TransientError
from migration_platform.runs.events import KafkaSettings, silent_logger

ANSWER_SECONDS = 10.0
"""How long a broker may take; it answers within milliseconds if it is well."""
NAMES_SECONDS = 2.0
_NO_ID = "A" * 22
"""What a broker says that knows no ids of topics: all bits are zero."""


@dataclass(frozen=True)
class Topic:
    """Offsets of each partition of a topic.

    `ends` are where reading ends now: before the first message of a transaction that is still
    open. `tops` are the ends of what was written.
    """

    topic_id: str
    begins: Mapping[int, int]
    ends: Mapping[int, int]
    tops: Mapping[int, int]


class TopicReader:
    """Asks about one topic."""

    def __init__(self, settings: KafkaSettings, topic: str):
        self._settings = settings
        self._topic = topic
        self._errors: deque[KafkaError] = deque(maxlen=10)
        self.note_error: Callable[[KafkaError], None] = self._errors.append
        """Takes what a client tells beside its answers: why there is no connection."""
        # No method of this object: in a circle the client's threads would outlive it.
        config = {**settings.to_config(), "error_cb": self.note_error}
        try:
            self._client = AdminClient(config, logger=silent_logger())
        except (KafkaException, ValueError) as error:
            why = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            raise PreflightError(
                f"the settings of the Kafka store at {settings.bootstrap_servers} are refused: "
                f"{why}"
            ) from None

    def read(self) -> Topic:
        """Ask where the topic's partitions begin and end.

        Raises:
            MigrationError: it is not there, may not be read, or nobody answers.
        """
        try:
            described = self._client.describe_topics(
                TopicCollection([self._topic]), request_timeout=ANSWER_SECONDS
            )
            found = _result(described[self._topic])
            partitions = [each.id for each in found.partitions]
            begins = self._offsets(partitions, OffsetSpec.earliest())
            ends = self._offsets(partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED)
            tops = self._offsets(partitions, OffsetSpec.latest())
        except KafkaException as error:
            raise self.explain(error) from None
        self._errors.clear()
        topic_id = str(found.topic_id or "")
        return Topic("" if topic_id == _NO_ID else topic_id, begins, ends, tops)

    def _offsets(
        self,
        partitions: list[int],
        where: OffsetSpec,
        level: IsolationLevel = IsolationLevel.READ_UNCOMMITTED,
    ) -> dict[int, int]:
        asked = {TopicPartition(self._topic, partition): where for partition in partitions}
        if not asked:
            return {}
        answers = self._client.list_offsets(
            asked, isolation_level=level, request_timeout=ANSWER_SECONDS
        )
        return {place.partition: _result(answer).offset for place, answer in answers.items()}

    def explain(self, error: KafkaException) -> MigrationError:
        """Give an error of the client as one sentence with the way out."""
        self._client.poll(0)
        return explain_kafka(
            error.args[0], list(self._errors), self._settings, self._topic, self._similar_names
        )

    def _similar_names(self) -> list[str]:
        try:
            names = self._client.list_topics(timeout=NAMES_SECONDS).topics
        except KafkaException:
            return []  # only a hint
        return difflib.get_close_matches(self._topic, names, n=1)


def _result(answer: "Future[Any]") -> Any:
    return answer.result(timeout=ANSWER_SECONDS + 5)


_UNKNOWN = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.TOPIC_EXCEPTION)
_REFUSED = (
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._SSL,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
)
_NOT_ALLOWED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)


def explain_kafka(
    error: KafkaError,
    noted: list[KafkaError],
    settings: KafkaSettings,
    topic: str,
    similar_names: Any = list,
) -> MigrationError:
    """Sort an error, and what the client noted before it, into one sentence with the way out."""
    servers = settings.bootstrap_servers
    refusal = next((each for each in (error, *noted) if each.code() in _REFUSED), None)
    if refusal is not None and refusal.code() == KafkaError._SSL:
        return PreflightError(
            f"there is no TLS connection to Kafka at {servers}: {_short(refusal)}; check "
            "security_protocol and ca_file of the store"
        )
    if refusal is not None:
        return PreflightError(
            f"Kafka at {servers} refused the log-in"
            f"{f' of {settings.username}' if settings.username else ''}: {_short(refusal)}; check "
            "sasl_mechanism, username and password of the store"
        )
    if error.code() in _NOT_ALLOWED:
        return PreflightError(
            f"{settings.username or 'this client'} may not read the topic {topic} at {servers}; "
            "grant READ and DESCRIBE on it"
        )
    if error.code() in _UNKNOWN:
        names = similar_names()
        hint = f" (there is {', '.join(names)})" if names else ""
        return PreflightError(
            f"there is no topic {topic} at {servers}{hint}; correct sync.kafka.topic, or create it"
        )
    why = next((each for each in reversed(noted) if each.code() == KafkaError._TRANSPORT), error)
    return TransientError(
        f"Kafka at {servers} does not answer for the topic {topic}: {_short(why)}; check that its "
        "brokers run and are reached from here"
    )


def _short(error: KafkaError) -> str:
    return " ".join(error.str().split())[:160]
