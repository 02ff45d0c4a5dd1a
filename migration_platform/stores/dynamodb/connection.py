"""DynamoDB: connect, describe and create a table, read its items.

The SDK finds endpoint, region and credentials; requests then bypass its client, whose checks and
conversions cost more than all else: a body is text that somebody else has written, signed once
and sent on a connection that is kept. One call is one try; how often and how long a request is
tried again is for this package to say, as with Cassandra.
"""

import hashlib
import hmac
import json
import logging
import os
import random
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from queue import SimpleQueue
from typing import Any, Literal, TypeVar
from urllib.parse import quote, urlsplit

import botocore.session
import urllib3
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    Credentials,
    DeferredRefreshableCredentials,
    ReadOnlyCredentials,
)
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.httpsession import ProxyConfiguration, get_cert_path
from botocore.utils import get_environ_proxies
from urllib3 import exceptions as http_errors

from migration_platform.errors import (
    AttemptError,
    MigrationError,
    PermanentError,
    PreflightError,
    RefusedValuesError,
    TransientError,
)
from migration_platform.pacing.rate import RateBudget
from migration_platform.pacing.retries import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, Attempts

REQUESTS_IN_FLIGHT = 8
"""Threads that sign, send and wait; see `benchmarks/peers/dynamodb.py`."""
KEYS_A_REQUEST = 100
"""The most that BatchGetItem takes."""
READS_IN_FLIGHT = 4
TABLE_POLL_SECONDS = 0.5
API = "DynamoDB_20120810"
CONTENT_TYPE = "application/x-amz-json-1.0"

# What the service answers, sorted once; see "Error handling with DynamoDB" in its guide.
_THROTTLES = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "TooManyRequestsException",
        "SlowDown",
    }
)
_PASSING = frozenset(
    {
        "InternalServerError",
        "InternalFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "LimitExceededException",  # too many tables are being made at once
        "ReplicatedWriteConflictException",
        "RequestTimeout",
        "RequestTimeoutException",
        "TransactionConflictException",
        "TransactionInProgressException",
    }
)
_REFUSED_VALUES = frozenset(
    {
        "ItemCollectionSizeLimitExceededException",
        "RequestEntityTooLarge",
        "SerializationException",
        "ValidationException",
    }
)
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_UNKNOWN_USER = frozenset(
    {
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "SubscriptionRequiredException",
        "UnrecognizedClientException",
    }
)
_BAD_SIGNATURE = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})
_HOW_TO_SIGN_IN = (
    "set the store's profile, or AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
)


_EXPIRED_SESSION = f"the AWS session has expired; sign in again, or {_HOW_TO_SIGN_IN}"
_NO_PROXY_URL = (
    "the proxy that HTTPS_PROXY or HTTP_PROXY names is no URL; give it as http(s)://host:port, "
    "special characters of its user and password percent-encoded"
)
_NO_SDK_SETTING = "an AWS setting is not valid; check the variables AWS_* and ~/.aws/config"


class ThrottledError(AttemptError):
    """The table or the account takes less at the moment."""


class ConditionFailedError(PermanentError):
    """A conditional write found its condition false; nothing was written."""


class MissingTableError(PermanentError):
    """There is no such table in this region and account."""


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
        _refuse_user(self.endpoint_url)

    def __str__(self) -> str:
        where = self.endpoint_url or "DynamoDB"
        return f"{where} in region {self.region}" if self.region else where

    def connect(self) -> "DynamoDb":
        """Open a connection and try it.

        Raises:
            PreflightError: nobody answers, or the service refuses the user; one sentence.
        """
        return DynamoDb(self)


KeyType = Literal["S", "N", "B"]
Item = dict[str, dict[str, Any]]
"""An item as the service writes it: attribute -> {type: value}, bytes in base64."""
OnRetry = Callable[[BaseException], None]
Mark = TypeVar("Mark")


@dataclass(frozen=True)
class KeyAttribute:
    """One attribute of a key; `key_type` is S, N or B."""

    name: str
    key_type: KeyType


@dataclass(frozen=True)
class Index:
    """A secondary index. `attributes` are those of projection INCLUDE."""

    name: str
    key: tuple[KeyAttribute, ...]
    projection: Literal["ALL", "KEYS_ONLY", "INCLUDE"] = "ALL"
    attributes: tuple[str, ...] = ()
    read_units: int | None = None
    write_units: int | None = None


@dataclass(frozen=True)
class DynamoTable:
    """What a migration needs to know of a table; `table_id` changes when it is made anew.

    `key` is the partition key and, if there is one, the sort key. Units are None when the table
    is paid per request.
    """

    name: str
    table_id: str
    key: tuple[KeyAttribute, ...]
    read_units: int | None
    write_units: int | None
    indexes: tuple[Index, ...]
    ttl_attribute: str | None
    status: str

    @property
    def key_names(self) -> tuple[str, ...]:
        """The names of the key's attributes."""
        return tuple(attribute.name for attribute in self.key)


# -- connection --------------------------------------------------------------------------------


class DynamoDb:
    """Open connections to DynamoDB, for the life of a process; threads may share it."""

    def __init__(self, settings: DynamoDbSettings):
        """Connect once.

        Raises:
            PreflightError: nobody answers, or the service refuses the user; one sentence.
        """
        self.settings = settings
        self._credentials_lock = threading.Lock()
        self._jobs: SimpleQueue[tuple[str, str, _Done] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # What the SDK logs while it looks for credentials is told by the error, if there is one.
        logging.getLogger("botocore").setLevel(logging.CRITICAL)
        try:
            session = _open_session(settings)
            # Only the client resolves what environment and files say of endpoint and region.
            found = session.create_client(
                "dynamodb", endpoint_url=settings.endpoint_url, config=_CHEAP
            )
            self.endpoint_url: str = found.meta.endpoint_url
            _refuse_user(self.endpoint_url)
            self.region: str = found.meta.region_name
            found.close()
            self._credentials = _find_credentials(session, settings)
            self._signer = _Signer(self.endpoint_url, self.region)
            self._pool, self._target = _open_pool(session, settings, self.endpoint_url)
        except (BotoCoreError, ValueError) as error:
            raise PreflightError(_explain_setup(settings, error)) from None
        try:
            self.call("ListTables", '{"Limit":1}')
        except _DeniedError:
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
        data = body.encode()
        try:
            return self._send(operation, data)
        except _ExpiredError:
            self._renew_credentials()
            return self._send(operation, data)

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
                # Whatever it is belongs to whoever waits for the answer.
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
        content = response.data
        checksum = response.headers.get("x-amz-crc32")
        if checksum is not None and int(checksum) != zlib.crc32(content):
            raise AttemptError(f"an answer of {self.endpoint_url} was damaged on its way")
        if response.status == 200:
            try:
                return json.loads(content)
            except ValueError:
                raise AttemptError(f"an answer of {self.endpoint_url} was cut off") from None
        raise self._explain_answer(response.status, content)

    # -- credentials

    def _frozen_credentials(self) -> ReadOnlyCredentials:
        try:
            return self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError, ValueError) as error:
            raise _explain_credentials(self.settings, error) from None
        except RuntimeError as error:
            # So botocore says that what it renewed has expired already.
            if "still expired" not in str(error):
                raise
            raise _ExpiredError(_EXPIRED_SESSION) from None

    def _renew_credentials(self) -> None:
        """Ask the whole chain again: somebody may have signed in anew meanwhile."""
        with self._credentials_lock:
            try:
                session = _open_session(self.settings)
                self._credentials = _find_credentials(session, self.settings)
            except (BotoCoreError, ValueError) as error:
                raise PermanentError(_explain_setup(self.settings, error)) from None

    # -- errors

    def _explain_line(self, error: http_errors.HTTPError) -> MigrationError:
        """Say what is wrong with the line; urllib3's own words show addresses of objects."""
        where = self.endpoint_url
        if isinstance(error, http_errors.SSLError):
            reason = " ".join(str(error).split())
            if "CERTIFICATE_VERIFY_FAILED" in reason:
                return PermanentError(
                    f"the certificate of {where} is not trusted; name its authority's file in "
                    "AWS_CA_BUNDLE"
                )
            if "WRONG_VERSION_NUMBER" in reason:
                return PermanentError(f"{where} speaks no TLS; its endpoint_url is http://")
            return AttemptError(f"the TLS connection to {where} broke")
        if isinstance(error, http_errors.ProxyError):
            return AttemptError(f"the proxy for {where} cannot be reached; see HTTPS_PROXY")
        if isinstance(error, http_errors.NameResolutionError):
            return AttemptError(
                f"the name of {where} is not known; check the store's region and endpoint_url"
            )
        if isinstance(error, http_errors.NewConnectionError | http_errors.ConnectTimeoutError):
            return AttemptError(
                f"{where} cannot be reached; check the store's region and endpoint_url, and that "
                "the service is up"
            )
        if isinstance(error, http_errors.ReadTimeoutError):
            seconds = self.settings.read_timeout_seconds
            return AttemptError(f"{where} did not answer within {seconds:g} s")
        return AttemptError(f"the connection to {where} broke")

    def _explain_answer(self, status: int, content: bytes) -> MigrationError:
        try:
            answer = json.loads(content)
            code = answer["__type"].rpartition("#")[2]
        except (ValueError, TypeError, KeyError, AttributeError):
            if status >= 500:
                return AttemptError(f"{self.endpoint_url} answered HTTP {status}")
            if status == 413:
                return RefusedValuesError("the server refused the request: it is too large")
            return PermanentError(
                f"{self.endpoint_url} answered HTTP {status} and is no DynamoDB endpoint; check "
                "the store's endpoint_url"
            )
        message = " ".join(str(answer.get("message") or answer.get("Message") or "").split())
        said = f"the server said: {code}: {message}" if message else f"the server said: {code}"
        if code in _THROTTLES:
            return ThrottledError(said)
        if code == "ConditionalCheckFailedException":
            return ConditionFailedError(said)
        if code == "ResourceNotFoundException":
            return MissingTableError(
                f"the table does not exist in region {self.region} at {self.endpoint_url} for "
                "this account; check the table's name and the store's region"
            )
        if code in _EXPIRED:
            return _ExpiredError(_EXPIRED_SESSION)
        if code in _UNKNOWN_USER:
            return PermanentError(
                f"{self.endpoint_url} does not accept these credentials ({code}); "
                f"{_HOW_TO_SIGN_IN}, and check that region {self.region} is enabled for the account"
            )
        if code in _BAD_SIGNATURE:
            return PermanentError(_explain_signature(message, self.region))
        if code in ("AccessDeniedException", "AccessDenied"):
            return _DeniedError(f"the user lacks a permission: {message or code}")
        if code in _REFUSED_VALUES:
            return RefusedValuesError(said)
        if code in _PASSING or status >= 500:
            return AttemptError(said)
        return PermanentError(said)


_Done = Callable[[dict[str, Any] | None, BaseException | None], None]
_CHEAP = Config(retries={"total_max_attempts": 2}, connect_timeout=5, read_timeout=10)


class _ExpiredError(PermanentError):
    """The session that the credentials belong to has ended."""


class _DeniedError(PermanentError):
    """The service knows the user, who may not do this."""


def _open_session(settings: DynamoDbSettings) -> botocore.session.Session:
    session = botocore.session.Session(profile=settings.profile)
    if settings.region:
        session.set_config_variable("region", settings.region)
    return session


def _find_credentials(session: botocore.session.Session, settings: DynamoDbSettings) -> Credentials:
    """Ask the chain; a role is assumed at the first request.

    Raises:
        PreflightError: nobody has any credentials.
    """
    found = session.get_credentials()
    if found is None:
        raise PreflightError(f"there are no AWS credentials; {_HOW_TO_SIGN_IN}")
    if settings.role_arn is None:
        return found
    fetcher = AssumeRoleCredentialFetcher(
        session.create_client,
        found,
        settings.role_arn,
        extra_args={"RoleSessionName": "migration-platform"},
    )
    return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")


def _open_pool(
    session: botocore.session.Session, settings: DynamoDbSettings, endpoint_url: str
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
        bundle = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
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
            raise PreflightError(_NO_PROXY_URL) from None
        if parts.scheme == "http":
            target = endpoint_url.rstrip("/") + "/" if not parts.path else endpoint_url
    return manager.connection_from_url(endpoint_url), target


class _Signer:
    """Signature version 4, for requests that differ in operation, body and second only.

    The algorithm is that of botocore.auth.SigV4Auth, which takes six times as long because it
    sorts and cleans headers that here are known; tests hold the two against each other.
    """

    def __init__(self, endpoint_url: str, region: str):
        parts = urlsplit(endpoint_url)
        default_port = {"https": 443, "http": 80}.get(parts.scheme)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
        if parts.port not in (None, default_port):
            host += f":{parts.port}"
        self._host = host
        self._region = region
        self._head = f"POST\n{quote(parts.path or '/', safe='/~')}\n\ncontent-type:{CONTENT_TYPE}\n"
        self._key: tuple[tuple[str, str], bytes] = (("", ""), b"")

    def sign(
        self, operation: str, data: bytes, user: ReadOnlyCredentials, now: float | None = None
    ) -> dict[str, str]:
        """Give all headers of a request of the user's, signed as of `now`."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        day = stamp[:8]
        target = f"{API}.{operation}"
        headers = {
            "Content-Type": CONTENT_TYPE,
            "Host": self._host,
            "X-Amz-Date": stamp,
            "X-Amz-Target": target,
            "User-Agent": "migration-platform",
            "Accept-Encoding": "identity",
        }
        names = "content-type;host;x-amz-date;x-amz-target"
        token = ""
        if user.token:
            headers["X-Amz-Security-Token"] = user.token
            names = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target"
            token = f"x-amz-security-token:{user.token}\n"
        canonical = (
            f"{self._head}host:{self._host}\nx-amz-date:{stamp}\n{token}x-amz-target:{target}\n\n"
            f"{names}\n{hashlib.sha256(data).hexdigest()}"
        )
        scope = f"{day}/{self._region}/dynamodb/aws4_request"
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}"
        signature = hmac.digest(self._key_of(user.secret_key, day), to_sign.encode(), "sha256")
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={user.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature.hex()}"
        )
        return headers

    def _key_of(self, secret: str, day: str) -> bytes:
        known, key = self._key
        if known != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, "dynamodb", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = ((secret, day), key)
        return key


def _refuse_user(endpoint_url: str | None) -> None:
    # A slash in a password hides it from `urlsplit`; no endpoint has an @ anywhere.
    if endpoint_url and "@" in endpoint_url:
        raise PreflightError(
            "endpoint_url holds a user or a password; give it as http(s)://host:port"
        )


def _explain_setup(settings: DynamoDbSettings, error: Exception) -> str:
    """Say what the SDK's chain did not find; its own words are kept where they name the place.

    A ValueError's are not: they quote whatever could not be parsed.
    """
    if isinstance(error, NoRegionError):
        return "no AWS region is known; set the store's region, or AWS_DEFAULT_REGION"
    if isinstance(error, ProfileNotFound):
        name = settings.profile or os.environ.get("AWS_PROFILE")
        return f"there is no AWS profile {name!r}; add it to ~/.aws/config, or name another one"
    if isinstance(error, PartialCredentialsError):
        return f"the AWS credentials lack a part; {_HOW_TO_SIGN_IN}"
    if not isinstance(error, BotoCoreError):
        if not any(word in str(error).lower() for word in ("endpoint", "port")):
            return _NO_SDK_SETTING
        what = repr(settings.endpoint_url) if settings.endpoint_url else "no URL"
        return f"endpoint_url is {what}; give it as http(s)://host:port"
    return f"cannot set up DynamoDB: {' '.join(str(error).split())}"


def _explain_credentials(settings: DynamoDbSettings, error: Exception) -> MigrationError:
    """Say why a role could not be assumed, or a session not be renewed."""
    what = f"assume the role {settings.role_arn}" if settings.role_arn else "get AWS credentials"
    if isinstance(error, ClientError):
        told = error.response.get("Error", {})
        code = told.get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = AttemptError if status >= 500 or code in _THROTTLES else PermanentError
        # What a bad signature is told shows the session's token.
        said = code if code in _BAD_SIGNATURE else f"{code}: {told.get('Message', '')}"
        return kind(f"cannot {what}: {said}")
    if not isinstance(error, BotoCoreError):
        return PermanentError(f"cannot {what}: {_NO_SDK_SETTING}")
    # The class itself stands for what botocore did not expect, and quotes it.
    if type(error) is HTTPClientError:
        cause = error.kwargs.get("error")
        if isinstance(cause, ValueError):
            return PermanentError(f"cannot {what}: {_NO_PROXY_URL}")
        return AttemptError(f"cannot {what}: the request failed ({type(cause).__name__})")
    return AttemptError(f"cannot {what}: {' '.join(str(error).split())}")


def _explain_signature(message: str, region: str) -> str:
    """Say what a refused signature may mean; the service's own words show the session's token."""
    if "scoped to a valid region" in message or "valid region" in message:
        return f"the endpoint is not in region {region}; check the store's region and endpoint_url"
    if "expired" in message or "not yet current" in message:
        return "the signature is out of date: this machine's clock is wrong"
    return f"the secret key does not belong to the access key; {_HOW_TO_SIGN_IN}"


# -- requests that are tried again -------------------------------------------------------------


def delay_after(
    attempts: Attempts, error: BaseException, budget: RateBudget | None = None
) -> float:
    """Give the seconds to wait before the next try; a throttle slows the budget's run down.

    After a throttle all of the delay is random ("full jitter"), for whoever was throttled
    together must not come back together.

    Raises:
        PermanentError, TransientError: trying again cannot help, or its time is over.
    """
    delay = attempts.delay_after(error)
    if not isinstance(error, ThrottledError):
        return delay
    if budget is not None:
        budget.slow_down()
    longest = FIRST_DELAY_SECONDS * 2 ** min(attempts.failures - 1, 10)
    return min(delay, random.uniform(0, min(LONGEST_DELAY_SECONDS, longest)))  # noqa: S311


def request(
    connection: DynamoDb, operation: str, body: str, *, retry_seconds: float
) -> dict[str, Any]:
    """Call until it succeeds.

    Raises:
        PermanentError, TransientError: it was refused, or failed for `retry_seconds`.
    """
    attempts = Attempts(retry_seconds)
    while True:
        try:
            return connection.call(operation, body)
        except AttemptError as error:
            time.sleep(delay_after(attempts, error))


# -- tables ------------------------------------------------------------------------------------


def find_table(
    connection: DynamoDb, name: str, *, retry_seconds: float = 0.0
) -> DynamoTable | None:
    """Describe a table; None if there is none of that name.

    Raises:
        PermanentError, TransientError: the service refused it or did not answer.
    """
    body = json.dumps({"TableName": name})
    try:
        found = request(connection, "DescribeTable", body, retry_seconds=retry_seconds)["Table"]
        lives = request(connection, "DescribeTimeToLive", body, retry_seconds=retry_seconds)
    except MissingTableError:
        return None
    return _read_table(found, lives.get("TimeToLiveDescription", {}))


def describe(connection: DynamoDb, name: str, *, retry_seconds: float = 0.0) -> DynamoTable:
    """Describe a table.

    Raises:
        PreflightError: there is none, or the service refused or did not answer; one sentence.
    """
    try:
        table = find_table(connection, name, retry_seconds=retry_seconds)
    except MigrationError as error:
        raise PreflightError(f"cannot describe the table {name}: {error}") from error
    if table is None:
        raise PreflightError(
            f"there is no table {name} in region {connection.region} at {connection.endpoint_url}; "
            "check its name and the store's region, or set target.create: true"
        )
    return table


def create_table(
    connection: DynamoDb,
    name: str,
    key: Sequence[KeyAttribute],
    *,
    billing_mode: Literal["PAY_PER_REQUEST", "PROVISIONED"] = "PAY_PER_REQUEST",
    read_units: int | None = None,
    write_units: int | None = None,
    indexes: Sequence[Index] = (),
    ttl_attribute: str | None = None,
    wait_seconds: float = 600.0,
    retry_seconds: float = 30.0,
    report: Callable[[str], None] = lambda status: None,
) -> DynamoTable:
    """Create a table with global indexes, and wait until it and they are active.

    A table that is there, or is being made by somebody else, is waited for and described: whether
    it is the right one is for the caller to say. `report` is told each status that is waited in.

    Raises:
        PreflightError: it was refused, or is not active after `wait_seconds`.
    """
    is_provisioned = billing_mode == "PROVISIONED"
    attributes = {a.name: a.key_type for k in (key, *(i.key for i in indexes)) for a in k}
    body: dict[str, Any] = {
        "TableName": name,
        "KeySchema": _key_schema(key),
        "AttributeDefinitions": [
            {"AttributeName": n, "AttributeType": t} for n, t in attributes.items()
        ],
        "BillingMode": billing_mode,
    }
    if is_provisioned:
        body["ProvisionedThroughput"] = _units(read_units, write_units)
    if indexes:
        body["GlobalSecondaryIndexes"] = [
            {
                "IndexName": index.name,
                "KeySchema": _key_schema(index.key),
                "Projection": {"ProjectionType": index.projection}
                | ({"NonKeyAttributes": list(index.attributes)} if index.attributes else {}),
            }
            | (
                {
                    "ProvisionedThroughput": _units(
                        index.read_units or read_units, index.write_units or write_units
                    )
                }
                if is_provisioned
                else {}
            )
            for index in indexes
        ]
    try:
        try:
            request(connection, "CreateTable", json.dumps(body), retry_seconds=retry_seconds)
        except PermanentError as error:
            # Somebody else, or a try whose answer was lost.
            if "ResourceInUseException" not in str(error):
                raise
        _wait_until_active(connection, name, wait_seconds, retry_seconds, report)
        if ttl_attribute is not None:
            _enable_ttl(connection, name, ttl_attribute, retry_seconds)
    except MigrationError as error:
        raise PreflightError(f"cannot create the table {name}: {error}") from error
    return describe(connection, name, retry_seconds=retry_seconds)


def holds_items(connection: DynamoDb, name: str, *, retry_seconds: float) -> bool:
    """Say whether a table holds an item now; the count that it tells itself is hours old.

    Raises:
        PermanentError, TransientError: the service refused it or did not answer.
    """
    ask: dict[str, Any] = {"TableName": name, "ConsistentRead": True, "Limit": 1}
    while True:
        answer = request(connection, "Scan", json.dumps(ask), retry_seconds=retry_seconds)
        if answer["Items"] or "LastEvaluatedKey" not in answer:
            return bool(answer["Items"])
        ask["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _wait_until_active(
    connection: DynamoDb,
    name: str,
    wait_seconds: float,
    retry_seconds: float,
    report: Callable[[str], None],
) -> None:
    began = time.monotonic()
    body = json.dumps({"TableName": name})
    while True:
        try:
            found = request(connection, "DescribeTable", body, retry_seconds=retry_seconds)["Table"]
            states = [found["TableStatus"]]
            states += [i["IndexStatus"] for i in found.get("GlobalSecondaryIndexes", ())]
        except MissingTableError:
            states = ["CREATING"]  # it is told of everywhere a little later
        if all(state == "ACTIVE" for state in states):
            return
        spent = time.monotonic() - began
        pending = next(state for state in states if state != "ACTIVE")
        if spent >= wait_seconds:
            raise TransientError(f"it is still {pending} after {spent:.0f} s")
        report(pending)
        time.sleep(min(TABLE_POLL_SECONDS, wait_seconds - spent))


def _enable_ttl(connection: DynamoDb, name: str, attribute: str, retry_seconds: float) -> None:
    body = {
        "TableName": name,
        "TimeToLiveSpecification": {"Enabled": True, "AttributeName": attribute},
    }
    try:
        request(connection, "UpdateTimeToLive", json.dumps(body), retry_seconds=retry_seconds)
    except PermanentError as error:
        if "TimeToLive is already enabled" not in str(error):
            raise


def _key_schema(key: Sequence[KeyAttribute]) -> list[dict[str, str]]:
    return [
        {"AttributeName": attribute.name, "KeyType": kind}
        for attribute, kind in zip(key, ("HASH", "RANGE"), strict=False)
    ]


def _units(read_units: int | None, write_units: int | None) -> dict[str, int]:
    return {"ReadCapacityUnits": read_units or 1, "WriteCapacityUnits": write_units or 1}


def _read_table(found: dict[str, Any], lives: dict[str, Any]) -> DynamoTable:
    types = {a["AttributeName"]: a["AttributeType"] for a in found["AttributeDefinitions"]}

    def read_key(schema: list[dict[str, str]]) -> tuple[KeyAttribute, ...]:
        ordered = sorted(schema, key=lambda part: part["KeyType"] != "HASH")
        return tuple(
            KeyAttribute(part["AttributeName"], types[part["AttributeName"]]) for part in ordered
        )

    def read_units(of: dict[str, Any]) -> tuple[int | None, int | None]:
        # One that is paid per request has units of 0.
        units = of.get("ProvisionedThroughput", {})
        return (
            units.get("ReadCapacityUnits") or None,
            units.get("WriteCapacityUnits") or None,
        )

    indexes = tuple(
        Index(
            index["IndexName"],
            read_key(index["KeySchema"]),
            index["Projection"]["ProjectionType"],
            tuple(index["Projection"].get("NonKeyAttributes", ())),
            *read_units(index),
        )
        for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
        for index in found.get(kind, ())
    )
    is_on = lives.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    units = read_units(found)
    return DynamoTable(
        name=found["TableName"],
        table_id=found.get("TableId") or f"{found['TableArn']} {found['CreationDateTime']}",
        key=read_key(found["KeySchema"]),
        read_units=units[0],
        write_units=units[1],
        indexes=indexes,
        ttl_attribute=lives.get("AttributeName") if is_on else None,
        status=found["TableStatus"],
    )


# -- reading -----------------------------------------------------------------------------------


class _Pending:
    """A request under way in a thread, tried again in the thread that waits for it."""

    def __init__(self, connection: DynamoDb, operation: str, body: str):
        self._connection = connection
        self._operation = operation
        self._ended: SimpleQueue[tuple[dict[str, Any] | None, BaseException | None]] = SimpleQueue()
        self.send(body)

    def send(self, body: str) -> None:
        self._body = body
        put = self._ended.put
        self._connection.submit(self._operation, body, lambda answer, error: put((answer, error)))

    def wait(self, attempts: Attempts, budget: RateBudget, on_retry: OnRetry) -> dict[str, Any]:
        """Give the answer.

        Raises:
            PermanentError, TransientError: it was refused, or failed for too long.
        """
        while True:
            answer, error = self._ended.get()
            if error is None:
                assert answer is not None
                return answer
            if not isinstance(error, AttemptError):
                raise error
            delay = delay_after(attempts, error, budget)
            on_retry(error)
            time.sleep(delay)
            self.send(self._body)


def scan_items(
    connection: DynamoDb,
    table: DynamoTable,
    *,
    segment: int,
    total_segments: int,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
    attributes: Sequence[str] = (),
) -> Iterator[list[Item]]:
    """Read a segment's items, strongly consistent, as pages of up to 1 MB.

    The next page is asked for while the caller works on one. The budget is charged what a page
    has consumed before the next one is asked for. `attributes` limits what is sent, not what is
    consumed.

    Raises:
        PermanentError, TransientError: a page could not be read; what came before was whole.
    """
    ask: dict[str, Any] = {
        "TableName": table.name,
        "ConsistentRead": True,
        "Segment": segment,
        "TotalSegments": total_segments,
        "ReturnConsumedCapacity": "TOTAL",
    }
    if attributes:
        names = {f"#a{number}": name for number, name in enumerate(attributes)}
        ask |= {"ProjectionExpression": ",".join(names), "ExpressionAttributeNames": names}
    budget.adapt()
    budget.take(0)
    pending: _Pending | None = _Pending(connection, "Scan", json.dumps(ask))
    while pending is not None:
        answer = pending.wait(Attempts(retry_seconds), budget, on_retry)
        items = answer["Items"]
        budget.take(len(items), consumed_units(answer))
        last = answer.get("LastEvaluatedKey")
        if last:
            ask["ExclusiveStartKey"] = last
            pending = _Pending(connection, "Scan", json.dumps(ask))
        else:
            pending = None
        if items:
            yield items


def get_items(
    connection: DynamoDb,
    table: DynamoTable,
    keys: Iterable[tuple[Mark, str]],
    *,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
) -> Iterator[tuple[Mark, Item | None]]:
    """Read the items of keys, strongly consistent, in the given order; None where there is none.

    A key is JSON text; the same key may come several times.

    Raises:
        PermanentError, TransientError: they could not be read.
    """
    budget.adapt()
    under_way: deque[tuple[list[tuple[Mark, str]], _Pending]] = deque()

    def finish_first() -> Iterator[tuple[Mark, Item | None]]:
        group, pending = under_way.popleft()
        found = _read_keys(table, pending, budget, retry_seconds, on_retry)
        for mark, key_json in group:
            yield mark, found.get(identity(table, json.loads(key_json)))

    for group in _group_keys(keys):
        budget.take(0)
        different = dict.fromkeys(key_json for _, key_json in group)
        body = _render_keys(table, ",".join(different))
        under_way.append((group, _Pending(connection, "BatchGetItem", body)))
        if len(under_way) == READS_IN_FLIGHT:
            yield from finish_first()
    while under_way:
        yield from finish_first()


def _group_keys(keys: Iterable[tuple[Mark, str]]) -> Iterator[list[tuple[Mark, str]]]:
    """Cut into groups of at most as many different keys as a request takes."""
    group: list[tuple[Mark, str]] = []
    different: set[str] = set()
    for mark, key_json in keys:
        if key_json not in different and len(different) == KEYS_A_REQUEST:
            yield group
            group, different = [], set()
        group.append((mark, key_json))
        different.add(key_json)
    if group:
        yield group


def _render_keys(table: DynamoTable, keys: str) -> str:
    return (
        f'{{"ReturnConsumedCapacity":"TOTAL","RequestItems":{{"{table.name}":'
        f'{{"ConsistentRead":true,"Keys":[{keys}]}}}}}}'
    )


def _read_keys(
    table: DynamoTable,
    pending: _Pending,
    budget: RateBudget,
    retry_seconds: float,
    on_retry: OnRetry,
) -> dict[tuple[object, ...], Item]:
    """Give the items of a request by their keys; what was left unprocessed is asked for again."""
    found: dict[tuple[object, ...], Item] = {}
    attempts = Attempts(retry_seconds)
    while True:
        answer = pending.wait(attempts, budget, on_retry)
        items = answer["Responses"].get(table.name, [])
        found.update((identity(table, item), item) for item in items)
        budget.take(len(items), consumed_units(answer))
        left = answer.get("UnprocessedKeys", {}).get(table.name, {}).get("Keys")
        if not left:
            return found
        if items:
            # An answer holds 16 MB, and 1 MB of one partition: that is no throttle.
            attempts = Attempts(retry_seconds)
        else:
            error = ThrottledError("the server left all keys of a request unprocessed")
            delay = delay_after(attempts, error, budget)
            on_retry(error)
            time.sleep(delay)
        pending.send(_render_keys(table, json.dumps(left)[1:-1]))


def identity(table: DynamoTable, item: Item) -> tuple[object, ...]:
    """Give an item's key as values that are equal when the keys are, however they are written."""
    found = []
    for attribute in table.key:
        value = item[attribute.name][attribute.key_type]
        # Never rounded: `normalize` keeps 28 of the 38 digits that a number may have.
        found.append(Decimal(value) if attribute.key_type == "N" else value)
    return tuple(found)


def consumed_units(answer: dict[str, Any]) -> float:
    """Add up the capacity units of an answer: one table's, or a list of tables'."""
    told = answer.get("ConsumedCapacity") or []
    return sum(each["CapacityUnits"] for each in (told if isinstance(told, list) else [told]))
