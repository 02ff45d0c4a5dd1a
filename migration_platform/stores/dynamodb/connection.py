"""A connection to DynamoDB: items travel on requests of its own, tables are the SDK's.

The SDK finds endpoint, region and credentials, and its client is asked about tables. Requests with
items bypass the client, whose checks and conversions cost more than all else: a body is text that
somebody else has written, signed once and sent on a connection that is kept. One call is one try;
how often and how long a request is tried again is for this package to say, as with Cassandra.
"""

import json
import logging
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

import urllib3
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError
from botocore.httpsession import ProxyConfiguration, get_cert_path
from botocore.utils import get_environ_proxies
from urllib3 import exceptions as http_errors

from migration_platform.errors import AttemptError, MigrationError, PermanentError, PreflightError
from migration_platform.stores.dynamodb.failures import (
    CREDENTIALS_FAILED,
    NO_PROXY_URL,
    ExpiredError,
    NotPermittedError,
    explain_answer,
    explain_credentials,
    explain_line,
    explain_setup,
    refuse_user,
)
from migration_platform.stores.dynamodb.session import Sdk, open_sdk
from migration_platform.stores.dynamodb.signing import Signer

REQUESTS_IN_FLIGHT = 8
"""Threads that sign, send and wait; see `benchmarks/peers/dynamodb.py`."""


@dataclass(frozen=True)
class DynamoDbSettings:
    """How to reach DynamoDB. What is None the SDK's usual chain finds; credentials it always does.

    `role_arn` is assumed with these credentials, and anew whenever its session expires.

    Raises:
        PreflightError: `endpoint_url`, which messages show, holds a user or a password.
    """

    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    role_arn: str | None = None
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 15.0

    def __post_init__(self) -> None:
        refuse_user(self.endpoint_url)

    def __str__(self) -> str:
        where = self.endpoint_url or "DynamoDB"
        return f"{where} in region {self.region}" if self.region else where

    def connect(self) -> "DynamoDb":
        """Open a connection and try it.

        Raises:
            PreflightError: nobody answers, or the service refuses the user; one sentence.
        """
        return DynamoDb(self)


class DynamoDb:
    """Open connections to DynamoDB, for the life of a process; threads may share it."""

    def __init__(self, settings: DynamoDbSettings):
        """Connect once.

        Raises:
            PreflightError: nobody answers, or the service refuses the user; one sentence.
        """
        self.settings = settings
        self._renewal = threading.Lock()
        self._jobs: SimpleQueue[tuple[str, str, _Done] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # What the SDK logs while it looks for credentials is told by the error, if there is one.
        logging.getLogger("botocore").setLevel(logging.CRITICAL)
        try:
            self._sdk = sdk = _open_sdk(settings)
            # Only the client resolves what environment and files say of endpoint and region.
            self.endpoint_url: str = sdk.client.meta.endpoint_url
            refuse_user(self.endpoint_url)
            self.region: str = sdk.client.meta.region_name
            self._signer = Signer(self.endpoint_url, self.region)
            self._pool, self._target = _open_pool(settings, sdk, self.endpoint_url)
        except (BotoCoreError, ValueError) as error:
            reason = explain_setup(settings.endpoint_url, settings.profile, error)
            raise PreflightError(reason) from None
        self._watch_answers(sdk)
        try:
            self.administer("list_tables", Limit=1)
        except NotPermittedError:
            pass  # the service knows the user, who may still use the table itself
        except MigrationError as error:
            self.close()
            raise PreflightError(f"cannot connect to DynamoDB: {error}") from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close every connection; requests under way are finished first."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._pool.close()
        self._sdk.client.close()

    def __enter__(self) -> "DynamoDb":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, operation: str, body: str) -> dict[str, Any]:
        """Send a request once and give its answer; `body` is JSON.

        Raises:
            AttemptError: it may succeed later; `ThrottledError` if it came too early.
            PermanentError: it would be refused again.
        """
        data, sdk = body.encode(), self._sdk
        try:
            return self._send(operation, data)
        except ExpiredError:
            self._renew(sdk)
            return self._send(operation, data)

    def administer(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Ask the SDK's client once, as `describe_table`, and give its answer.

        Raises:
            AttemptError: it may succeed later; `ThrottledError` if it came too early.
            PermanentError: it would be refused again.
        """
        sdk = self._sdk
        try:
            return self._ask(operation, parameters)
        except ExpiredError:
            self._renew(sdk)
            return self._ask(operation, parameters)

    def submit(self, operation: str, body: str, done: "_Done") -> None:
        """Call in a thread of this connection, which hands answer or error to `done`."""
        if len(self._threads) < REQUESTS_IN_FLIGHT:
            thread = threading.Thread(target=self._work, name="dynamodb", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((operation, body, done))

    def _work(self) -> None:
        while job := self._jobs.get():
            operation, body, done = job
            try:
                answer = self.call(operation, body)
            except Exception as error:
                # The error is passed on to the caller that waits for the answer.
                done(None, error)
            else:
                done(answer, None)
            # Else the last request of a batch would live on while the thread waits.
            del job, operation, body, done

    def _send(self, operation: str, data: bytes) -> dict[str, Any]:
        headers = self._signer.sign(operation, data, self._frozen_credentials())
        try:
            response = self._pool.urlopen(
                "POST",
                self._target,
                body=data,
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
            )
        except http_errors.HTTPError as error:
            raise self._explain_line(error) from None
        return self._read(response.status, response.headers, response.data)

    def _read(self, status: int, headers: Mapping[str, str], content: bytes) -> dict[str, Any]:
        """Give what a whole answer holds; the error that any other one stands for is raised."""
        checksum = headers.get("x-amz-crc32")
        if checksum is not None and int(checksum) != zlib.crc32(content):
            raise AttemptError(f"an answer of {self.endpoint_url} was damaged on its way")
        if status == 200:
            try:
                return json.loads(content)
            except ValueError:
                raise AttemptError(f"an answer of {self.endpoint_url} was cut off") from None
        raise explain_answer(status, content, self.endpoint_url, self.region)

    def _ask(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            return getattr(self._sdk.client, operation)(**parameters)
        except CREDENTIALS_FAILED as error:
            # What the service answered is explained by then: this is the line to it, or whoever
            # gives credentials, whom the client asks on its way.
            told = getattr(error, "kwargs", {})
            line = told.get("error")
            is_ours = str(told.get("endpoint_url")).rstrip("/") == self.endpoint_url.rstrip("/")
            if isinstance(line, http_errors.ProxyError) or (
                is_ours and isinstance(line, http_errors.HTTPError)
            ):
                raise self._explain_line(line) from None
            raise explain_credentials(self.settings.role_arn, error) from None

    def _watch_answers(self, sdk: Sdk) -> None:
        """Let the answers to a client be read as all others are, before it reads them itself.

        It compares no checksums, and takes an answer that was cut off for an empty one.
        """

        def read(response_dict: dict[str, Any], **_: Any) -> None:
            answer = self._read(
                response_dict["status_code"], response_dict["headers"], response_dict["body"]
            )
            if not isinstance(answer, dict):
                raise AttemptError(f"an answer of {self.endpoint_url} was cut off")

        sdk.client.meta.events.register("before-parse.dynamodb", read)

    def _explain_line(self, error: http_errors.HTTPError) -> MigrationError:
        return explain_line(error, self.endpoint_url, self.settings.read_timeout_seconds)

    def _frozen_credentials(self) -> ReadOnlyCredentials:
        try:
            return self._sdk.credentials.get_frozen_credentials()
        except CREDENTIALS_FAILED as error:
            raise explain_credentials(self.settings.role_arn, error) from None

    def _renew(self, expired: Sdk) -> None:
        """Ask the whole chain again, once: somebody may have signed in anew meanwhile."""
        with self._renewal:
            if self._sdk is not expired:
                return  # another thread did
            settings = replace(self.settings, endpoint_url=self.endpoint_url, region=self.region)
            try:
                renewed = _open_sdk(settings)
            except (BotoCoreError, ValueError) as error:
                reason = explain_setup(self.settings.endpoint_url, self.settings.profile, error)
                raise PermanentError(reason) from None
            self._watch_answers(renewed)
            self._sdk = renewed
            expired.client.close()


_Done = Callable[[dict[str, Any] | None, BaseException | None], None]


def _open_sdk(settings: DynamoDbSettings) -> Sdk:
    return open_sdk(
        endpoint_url=settings.endpoint_url,
        region=settings.region,
        profile=settings.profile,
        role_arn=settings.role_arn,
        connect_timeout_seconds=settings.connect_timeout_seconds,
        read_timeout_seconds=settings.read_timeout_seconds,
    )


def _open_pool(
    settings: DynamoDbSettings, sdk: Sdk, endpoint_url: str
) -> tuple[urllib3.HTTPConnectionPool, str]:
    """Give the kept connections, and what a request line names: behind a proxy the whole URL.

    Proxies and authorities are found where botocore's own client finds them.

    Raises:
        PreflightError: the proxy is no URL.
    """
    options: dict[str, Any] = {
        "maxsize": REQUESTS_IN_FLIGHT,
        "timeout": urllib3.Timeout(
            connect=settings.connect_timeout_seconds, read=settings.read_timeout_seconds
        ),
    }
    parts = urlsplit(endpoint_url)
    target = parts.path or "/"
    if parts.scheme == "https":
        bundle = sdk.ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE")
        options |= {"cert_reqs": "CERT_REQUIRED", "ca_certs": get_cert_path(bundle or True)}
    proxies = ProxyConfiguration(proxies=get_environ_proxies(endpoint_url))
    proxy = proxies.proxy_url_for(endpoint_url)
    if proxy is None:
        manager = urllib3.PoolManager(**options)
    else:
        try:
            headers = proxies.proxy_headers_for(proxy)
            manager = urllib3.ProxyManager(proxy, proxy_headers=headers, **options)
        except ValueError:  # its text shows what may be the password
            raise PreflightError(NO_PROXY_URL) from None
        if parts.scheme == "http":
            target = endpoint_url.rstrip("/") + "/" if not parts.path else endpoint_url
    return manager.connection_from_url(endpoint_url), target
