"""Sunbird's sync API, which has rows indexed anew, and its search API, which counts documents.

An answer of 200 means accepted, not indexed: Sunbird reads the rows and writes their documents
later. A request without ids would index every row there is, and is never sent. Requests are those
of Sunbird's Talend job `Sync`; the search API is as in Sunbird's user and course batch APIs 2.0.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from urllib3 import exceptions as http_errors

from migration_platform.declaration.validation import validate_choice
from migration_platform.errors import (
    AttemptError,
    DeclarationError,
    PermanentError,
    PreflightError,
    TransientError,
)
from migration_platform.pacing.retries import Attempts

OBJECT_TYPES = ("user", "organisation", "batch", "user_course", "location")
"""What some version of the API takes: that of 2019 the first four, today's has lost two of them."""
ALIASES = MappingProxyType({"course_batch": "batch"})
MAX_BLOCK_SIZE = 10_000
MAX_ID_CHARS = 256
MAX_ANSWER_BYTES = 1 << 20
MAX_REASON_CHARS = 500
LONGEST_RETRY_AFTER_SECONDS = 60.0
MASK = "***"
_CHUNK_BYTES = 1 << 16
# A gateway answers other 4xx too while it is reloaded: these are tried a second time only.
_BUSY = frozenset({408, 425, 429})


def validate_object_type(name: str, object_type: object) -> list[str]:
    """Say what is wrong with an object type, which is one of the API's or an alias."""
    return validate_choice(name, object_type, (*OBJECT_TYPES, *ALIASES))


def to_object_type(name: str) -> str:
    """Give the API's name of an object type.

    Raises:
        DeclarationError: it is neither one nor an alias.
    """
    if wrong := validate_object_type("object_type", name):
        raise DeclarationError(wrong[0])
    return ALIASES.get(name, name)


def find_fault(row_id: str) -> str:
    """Say what makes a text unfit to be an id; an empty text if nothing does."""
    if not row_id.strip():
        return "is blank"
    if len(row_id) > MAX_ID_CHARS:
        return f"is longer than {MAX_ID_CHARS} characters"
    if not row_id.isprintable():
        return "has characters that cannot be printed"
    return ""


def to_request(object_type: str, ids: Sequence[str], operation_type: str | None = None) -> str:
    """Give the body that has these rows indexed, as one line of JSON.

    Raises:
        DeclarationError: no such object type; no ids, which would mean every row; too many; unfit.
    """
    object_type = to_object_type(object_type)
    if not ids:
        raise DeclarationError("No id found for a request; without ids it would sync every row")
    if len(ids) > MAX_BLOCK_SIZE:
        raise DeclarationError(f"a request has {len(ids)} ids; at most {MAX_BLOCK_SIZE} fit")
    for row_id in ids:
        if fault := find_fault(row_id):
            raise DeclarationError(f"the id {_shorten(row_id, 60)!r} {fault}")
    request: dict[str, Any] = {"objectType": object_type, "operationFor": "es"}
    if operation_type:
        request["operationType"] = operation_type
    return json.dumps({"params": {}, "request": {**request, "objectIds": list(ids)}})


@dataclass(frozen=True)
class SunbirdSyncSettings:
    """How to reach Sunbird's APIs; every endpoint is a full URL, used as it is given.

    `endpoint` is the gateway's `https://DOMAIN/api/data/v1/index/sync` or the service's
    `http://HOST:9000/v1/data/sync`. `search_endpoints` has those of the search APIs by object type,
    `user: https://DOMAIN/api/user/v1/search`, `batch: https://DOMAIN/api/course/v1/batch/list`,
    which may ask for a user's token too. `store` and the names of the environment variables that
    the secrets came from are for messages.

    Raises:
        DeclarationError: a value does not fit.
        PreflightError: a secret is empty or no header can carry it, or there is no `ca_file`.
    """

    endpoint: str
    api_key: str | None = field(default=None, repr=False)
    search_endpoints: Mapping[str, str] = field(default_factory=dict)
    user_token: str | None = field(default=None, repr=False)
    operation_type: str | None = None
    timeout_seconds: float = 30.0
    retry_seconds: float = 30.0
    ca_file: str | None = None
    store: str = ""
    api_key_env: str = ""
    user_token_env: str = ""

    def __post_init__(self) -> None:
        _refuse_url("endpoint", self.endpoint)
        for name, url in self.search_endpoints.items():
            to_object_type(name)
            _refuse_url(f"search_endpoints.{name}", url)
        if self.operation_type not in (None, "sync"):
            raise DeclarationError("operation_type is not valid; leave it out or write sync")
        if not 0 < self.timeout_seconds <= 600:
            raise DeclarationError(f"timeout_seconds is {self.timeout_seconds}; valid are 1 to 600")
        if not 0 <= self.retry_seconds <= 3600:
            raise DeclarationError(f"retry_seconds is {self.retry_seconds}; valid are 0 to 3600")
        for name, secret in (("api_key", self.api_key), ("user_token", self.user_token)):
            if secret == "":
                raise PreflightError(f"{self.place_of(name)} is empty; set it to the secret")
            if secret and not (secret.isascii() and secret.isprintable() and " " not in secret):
                raise PreflightError(
                    f"{self.place_of(name)} has a space, a line break or another character "
                    "that no header can carry; set it to the bare secret"
                )
        if self.ca_file and not os.path.isfile(self.ca_file):
            raise PreflightError(f"there is no ca_file {self.ca_file}")

    def __str__(self) -> str:
        return _shown(self.endpoint)

    def place_of(self, name: str) -> str:
        """Say where a secret came from, for messages."""
        place = f"the {name} of " + (f"the store {self.store}" if self.store else "the store")
        variable = getattr(self, f"{name}_env")
        return f"the environment variable {variable}, which holds {place}," if variable else place

    def connect(self) -> "SunbirdSync":
        """Give a client; connections are opened by its first request."""
        return SunbirdSync(self)


@dataclass(frozen=True)
class SyncAnswer:
    """What became of a request: `status` is None if no whole answer came, after all tries.

    `request` is the JSON that was sent. `text` is the answer, bounded and without secrets.
    `reason` says why the request was not accepted, and is empty if it was. The others are the
    answer's own params.status, params.err, params.errmsg and responseCode, where it has them.
    """

    request: str = field(repr=False)
    status: int | None = None
    accepted: bool = False
    text: str = ""
    reason: str = ""
    param_status: str = ""
    err: str = ""
    errmsg: str = ""
    response_code: str = ""
    tries: int = 1


class SunbirdSync:
    """A client of both APIs that keeps its connections; `sleep` waits between tries."""

    def __init__(self, settings: SunbirdSyncSettings, sleep: Callable[[float], None] = time.sleep):
        self.settings = settings
        self._sleep = sleep
        self._pool = urllib3.PoolManager(
            maxsize=1,
            timeout=urllib3.Timeout(
                connect=min(10.0, settings.timeout_seconds), read=settings.timeout_seconds
            ),
            cert_reqs="CERT_REQUIRED",
            ca_certs=settings.ca_file,
        )
        self._search = {to_object_type(n): url for n, url in settings.search_endpoints.items()}
        self._secrets = _spellings_of(settings.api_key, settings.user_token)

    def close(self) -> None:
        """Close every connection."""
        self._pool.clear()

    def __enter__(self) -> "SunbirdSync":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def post_block(
        self,
        object_type: str,
        ids: Sequence[str],
        before_again: Callable[[float], None] = lambda waited: None,
    ) -> SyncAnswer:
        """Ask for these rows to be indexed; whatever the server does ends in an answer.

        Asking twice does no harm: the rows are read again and their documents replaced. Before each
        try but the first `before_again` is told how many seconds were waited already.

        Raises:
            DeclarationError: the request must not be sent; see `to_request`.
        """
        request = to_request(object_type, ids, self.settings.operation_type)
        return self._ask(self.settings.endpoint, request, before_again=before_again)

    def check_key(self) -> str:
        """Ask whether the API key is taken, by a GET of the sync API, which syncs nothing.

        Returns:
            An empty string, or why the service could not be asked.

        Raises:
            PreflightError: the key is refused.
        """
        answer, _ = self._try(self.settings.endpoint, "", self._headers(), method="GET")
        if answer.status in (401, 403):
            raise PreflightError(answer.reason)
        # A service that knows no GET has looked at the key before it says so.
        return answer.reason if answer.status is None or answer.status >= 500 else ""

    def counts(self, object_type: str) -> bool:
        """Say whether there is a search API to count documents of this type with."""
        return to_object_type(object_type) in self._search

    def count(self, object_type: str, filters: Mapping[str, Any]) -> int:
        """Count indexed documents, as `{"rootOrgId": "…"}`; no document itself is asked for.

        Raises:
            PreflightError: the store has no search endpoint for this type.
            TransientError, PermanentError: there is no count.
        """
        object_type = to_object_type(object_type)
        url = self._search.get(object_type)
        if url is None:
            raise PreflightError(
                f"the store {self.settings.store or self.settings} has no search endpoint of type "
                f"{object_type}; give it search_endpoints: {{{object_type}: URL}}"
            )
        request = json.dumps({"request": {"filters": dict(filters), "limit": 0}})
        answer = self._ask(url, request, self.settings.user_token)
        if not answer.accepted:
            kind = TransientError if _may_pass(answer.status, answer.tries) else PermanentError
            raise kind(f"{object_type} documents cannot be counted: {answer.reason}")
        try:
            count = json.loads(answer.text)["result"]["response"]["count"]
        except (ValueError, RecursionError, KeyError, TypeError):
            count = None
        if not isinstance(count, int) or isinstance(count, bool) or count < 0:
            raise PermanentError(
                f"{_shown(url)} answered without result.response.count; check that "
                f"search_endpoints.{object_type} is a search or list API"
            )
        return count

    def _headers(self, user_token: str | None = None) -> dict[str, str]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "migration-platform",
        }
        if self.settings.api_key:
            headers["Authorization"] = f"Bearer {self.settings.api_key}"
        if user_token:
            headers["x-authenticated-user-token"] = user_token
        return headers

    def _ask(
        self,
        url: str,
        request: str,
        user_token: str | None = None,
        before_again: Callable[[float], None] = lambda waited: None,
    ) -> SyncAnswer:
        """Post until a request is accepted, or refused for good, or `retry_seconds` are over."""
        headers = self._headers(user_token)
        attempts = Attempts(self.settings.retry_seconds)
        tries = 0
        while True:
            tries += 1
            answer, retry_after = self._try(url, request, headers)
            answer = replace(answer, tries=tries)
            if answer.accepted or not _may_pass(answer.status, tries):
                return answer
            try:
                delay = attempts.delay_after(AttemptError(answer.reason))
            except TransientError as spent:
                return replace(answer, reason=str(spent))
            if retry_after > delay:
                left = attempts.first_failure + attempts.budget_seconds - time.monotonic()
                delay = min(retry_after, LONGEST_RETRY_AFTER_SECONDS, max(delay, left))
            self._sleep(delay)
            before_again(delay)

    def _try(
        self, url: str, request: str, headers: dict[str, str], method: str = "POST"
    ) -> tuple[SyncAnswer, float]:
        """Ask once; give the answer, and the seconds that the server wants to be left alone."""
        # A server that sends a byte now and then never runs into the timeout of a read.
        deadline = time.monotonic() + self.settings.timeout_seconds
        response = None
        try:
            response = self._pool.request(
                method,
                url,
                body=request.encode() or None,
                headers=headers,
                retries=False,
                redirect=False,  # another host must not see the key
                preload_content=False,
                decode_content=False,
            )
            try:
                content, cut = _read(response, deadline)
            finally:
                response.close()  # only one that was read to its end is kept
        except (http_errors.HTTPError, TimeoutError) as error:
            reason = self._explain_line(url, error, response is not None)
            return SyncAnswer(request, reason=reason), 0.0
        text = self._mask(content.decode(errors="replace"))
        if cut:
            # What is left of a secret at the very end would not be recognised.
            longest = max((len(secret) for secret in self._secrets), default=0)
            text = text[: max(0, len(text) - longest)]
        answer = self._judge(url, SyncAnswer(request, response.status, text=text), cut)
        return answer, _to_seconds(response.headers.get("Retry-After", ""))

    def _judge(self, url: str, answer: SyncAnswer, cut: bool) -> SyncAnswer:
        """Say whether an answer accepts the request, and if not, why."""
        told, is_json = _parse(answer.text)
        params = told.get("params")
        params = params if isinstance(params, dict) else {}
        answer = replace(
            answer,
            param_status=self._tell(params.get("status")),
            err=self._tell(params.get("err")),
            errmsg=self._tell(params.get("errmsg")),
            response_code=self._tell(told.get("responseCode")),
        )
        status, where = answer.status, _shown(url)
        said = ": ".join(part for part in (answer.err, answer.errmsg) if part)
        if status in (401, 403):
            reason = self._explain_refused_key(where, status)
        elif status == 404:
            reason = f"HTTP 404: there is no such API at {where}; check the store's endpoints"
        elif status is not None and 300 <= status < 400:
            reason = (
                f"HTTP {status}: {where} sends requests elsewhere, and the key goes nowhere else; "
                "give the store the final URL"
            )
        elif status != 200:
            reason = f"HTTP {status}: {said or self._tell(answer.text) or 'no reason given'}"
        elif answer.text.lstrip().startswith("<"):
            reason = f"HTTP 200, but {where} answered with a web page; check the store's endpoints"
        elif not cut and not is_json and answer.text.lstrip().startswith("{"):
            # A body without a length that breaks off looks whole to HTTP.
            return replace(answer, status=None, reason=f"half an answer came from {where}")
        elif answer.param_status.upper() == "FAILED":
            reason = f"HTTP 200, but FAILED: {said or answer.response_code or 'no reason given'}"
        else:
            return replace(answer, accepted=True)
        return replace(answer, reason=reason)

    def _explain_refused_key(self, where: str, status: int) -> str:
        if not self.settings.api_key:
            return (
                f"HTTP {status}: {where} asks for an API key; give the store "
                f"{self.settings.store or 'sunbird_sync'} api_key: {{env: NAME}}"
            )
        return (
            f"HTTP {status}: {where} does not accept the API key; check "
            f"{self.settings.place_of('api_key').removesuffix(',')}"
        )

    def _explain_line(
        self, url: str, error: http_errors.HTTPError | TimeoutError, begun: bool
    ) -> str:
        """Say what is wrong with the line; urllib3's own words show addresses of objects."""
        where = _shown(url)
        if isinstance(error, http_errors.SSLError):
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                return f"the certificate of {where} is not trusted; name its authority in ca_file"
            return f"the TLS connection to {where} failed; check whether it is https:// or http://"
        if isinstance(error, http_errors.NameResolutionError):
            return f"the name of {where} is not known; check the store's endpoints"
        if isinstance(error, http_errors.NewConnectionError | http_errors.ConnectTimeoutError):
            return f"{where} cannot be reached; check the store's endpoints and that it is up"
        if isinstance(error, http_errors.ReadTimeoutError | TimeoutError):
            return f"{where} did not answer within {self.settings.timeout_seconds:g} s"
        if begun:
            return f"half an answer came from {where}"
        return f"the connection to {where} broke before the answer was whole"

    def _tell(self, value: object) -> str:
        """Give a part of an answer as one line; what JSON had hidden of a secret is masked too."""
        if value is None:
            return ""
        line = "".join(c for c in " ".join(str(value).split()) if c.isprintable())
        return _shorten(self._mask(line), MAX_REASON_CHARS)

    def _mask(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def _may_pass(status: int | None, tries: int) -> bool:
    if status is None or status in _BUSY or status >= 500:
        return True
    return tries == 1 and status >= 400 and status not in (401, 403)


def _read(response: urllib3.BaseHTTPResponse, deadline: float) -> tuple[bytes, bool]:
    """Read an answer up to its bound; True says that there was more.

    Raises:
        TimeoutError: it comes too slowly.
    """
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read1(_CHUNK_BYTES):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            return b"".join(chunks)[:MAX_ANSWER_BYTES], True
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(chunks), False


def _parse(text: str) -> tuple[dict[str, Any], bool]:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return {}, False
    return (told if isinstance(told, dict) else {}), True


def _spellings_of(*secrets: str | None) -> list[str]:
    """Give every form in which a server may repeat a secret, the longest first."""
    forms: set[str] = set()
    for secret in filter(None, secrets):
        in_json = json.dumps(secret)[1:-1]
        forms |= {secret, in_json, in_json.replace("/", "\\/"), quote(secret), quote(secret, "")}
    return sorted(forms, key=len, reverse=True)


def _to_seconds(retry_after: str) -> float:
    """Read a Retry-After in seconds; as a date it is left to the usual delay."""
    text = retry_after.strip()
    return float(text) if text.isdecimal() and text.isascii() and len(text) <= 9 else 0.0


def _refuse_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
        parts = None
    if not fits or not url.isprintable() or " " in url:
        raise DeclarationError(f"{name} is no URL; write the full http(s)://host/path")
    if parts is not None and (parts.username is not None or parts.password is not None):
        raise DeclarationError(f"{name} holds a user or a password; take it out of the URL")
    if parts is not None and parts.fragment:
        raise DeclarationError(f"{name} has a part after #; take it out of the URL")


def _shown(url: str) -> str:
    """Give a URL without its query, which may hold what is nobody's business."""
    return url.partition("?")[0]


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
