"""The search sync: what is sent, what is logged, and that the index shows the new tenant after it.

Every request goes to a real HTTP server that answers as Sunbird's sync API does.
"""

import json
import pickle
import re
import socketserver
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import trustme
from cassandra.cluster import Session
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from migration_platform.errors import (
    DeclarationError,
    MigrationError,
    PermanentError,
    PreflightError,
    TransientError,
)
from migration_platform.local.ports import LOCALHOST, free_port
from migration_platform.local.sunbird import SYNC_PATH, Answer, Received, Sunbird, serve_sunbird
from migration_platform.pacing import retries
from migration_platform.resources import SunbirdSyncResource
from migration_platform.stores.cassandra.connection import Connection
from migration_platform.stores.sunbird_sync import (
    MAX_ANSWER_BYTES,
    MAX_BLOCK_SIZE,
    OBJECT_TYPES,
    SunbirdSync,
    SunbirdSyncSettings,
    to_request,
)
from migration_platform.tenant.search_sync import (
    SyncResult,
    count_ids,
    describe_sync,
    read_failed_blocks,
    read_ids,
    replay_failed,
    sync_ids,
    wait_for_index,
)
from migration_platform_tests.dagster_project import DAGSTERS_OWN_WARNINGS, make_project

pytestmark = DAGSTERS_OWN_WARNINGS

KEY = "s3cret/key+with.signs="
ORIGIN, TARGET = "01241408242723225614", "01246375399411712074"
Fair = Callable[[], Answer]


class Rows:
    """The database behind the stand-in: documents by object type and id."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, dict[str, Any]]] = {"user": {}, "batch": {}}

    def __call__(self, kind: str, ids: Sequence[str] | None) -> Mapping[str, dict[str, Any]]:
        rows = self.of.get(kind, {})
        return {i: rows[i] for i in (rows if ids is None else ids) if i in rows}


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def sunbird(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sunbird]:
    monkeypatch.setattr(retries, "FIRST_DELAY_SECONDS", 0.02)
    with serve_sunbird(rows, KEY) as server:
        yield server
    assert server.synced_everything == 0, "a request without ids was sent"


@pytest.fixture
def client(sunbird: Sunbird) -> Iterator[SunbirdSync]:
    with settings_of(sunbird).connect() as client:
        yield client


def settings_of(sunbird: Sunbird, **changes: Any) -> SunbirdSyncSettings:
    """Settings of the stand-in that give up soon."""
    given: dict[str, Any] = {
        "endpoint": sunbird.sync_url,
        "api_key": KEY,
        "search_endpoints": {k: sunbird.search_urls[k] for k in ("user", "batch")},
        "timeout_seconds": 10,
        "retry_seconds": 0.3,
        "store": "sunbird_sync",
        "api_key_env": "SUNBIRD_KEY",
    }
    return SunbirdSyncSettings(**given | changes)


def ids_of(count: int) -> list[str]:
    return [f"id-{number}" for number in range(count)]


class Pauses:
    """Takes the place of waiting, and remembers how long it would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.lines: list[str] = []

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def sync(
    client: SunbirdSync, folder: Path, count: int | Sequence[str], pauses: Pauses, **options: Any
) -> SyncResult:
    ids = ids_of(count) if isinstance(count, int) else count
    given: dict[str, Any] = {"object_type": "user", "log_folder": folder}
    return sync_ids(
        client,
        iter(ids),
        len(ids),
        on_progress=pauses.lines.append,
        sleep=pauses,
        **(given | options),
    )


def fail_for(block: str, status: int = 500, content: bytes = b"oops") -> Callable[..., Answer]:
    """Refuse the blocks that hold an id, always."""

    def happen(received: Received, fair: Fair) -> Answer:
        return Answer(status, content) if block in received.ids else fair()

    return happen


def first_times(count: int, answer: Answer | None) -> Callable[..., Answer | None]:
    """Answer so to the first requests, and fairly then."""
    left = [answer] * count
    return lambda received, fair: left.pop() if left else fair()


# -- what is sent


def test_a_request_is_the_one_of_the_facts(sunbird: Sunbird, client: SunbirdSync) -> None:
    answer = client.post_block("user", ["id1", "id2"])

    (received,) = sunbird.received
    assert received.path == SYNC_PATH
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["Authorization"] == f"Bearer {KEY}"
    assert received.body == {
        "params": {},
        "request": {"objectType": "user", "operationFor": "es", "objectIds": ["id1", "id2"]},
    }
    assert (answer.status, answer.accepted, answer.reason) == (200, True, "")
    assert (answer.param_status, answer.response_code) == ("SUCCESS", "OK")
    assert json.loads(answer.request) == received.body


def test_the_url_is_used_as_it_is_given(sunbird: Sunbird) -> None:
    public = f"{sunbird.url}/api/data/v1/index/sync?a=b"
    with settings_of(sunbird, endpoint=public).connect() as client:
        assert client.post_block("user", ["a"]).accepted

    assert sunbird.received[0].path == "/api/data/v1/index/sync?a=b"


def test_course_batch_is_sent_as_batch(sunbird: Sunbird, client: SunbirdSync) -> None:
    assert client.post_block("course_batch", ["b"]).accepted
    assert client.post_block("batch", ["b"]).accepted

    assert [each.request["objectType"] for each in sunbird.received] == ["batch", "batch"]


def test_other_object_types_are_refused_with_the_list(sunbird: Sunbird) -> None:
    with (
        settings_of(sunbird).connect() as client,
        pytest.raises(DeclarationError, match="object_type is 'usr'; valid are user, org"),
    ):
        client.post_block("usr", ["a"])

    assert not sunbird.received


def test_the_operation_type_is_sent_where_it_is_asked_for(sunbird: Sunbird) -> None:
    with settings_of(sunbird, operation_type="sync").connect() as client:
        client.post_block("user", ["a"])

    assert sunbird.received[0].request["operationType"] == "sync"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "without ids it would sync every row"),
        (["a", " "], "the id ' ' is blank"),
        (["a\nb"], "characters that cannot be printed"),
        (["x" * 257], "longer than 256 characters"),
        (["a"] * (MAX_BLOCK_SIZE + 1), "at most 10000 fit"),
    ],
)
def test_requests_that_could_do_harm_are_never_made(ids: list[str], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        to_request("user", ids)


@given(ids=st.lists(st.text(min_size=1, max_size=300), min_size=0, max_size=5))
def test_a_request_holds_exactly_its_ids_on_one_line(ids: list[str]) -> None:
    try:
        request = to_request("user", ids)
    except DeclarationError:
        return
    assert json.loads(request)["request"]["objectIds"] == ids
    assert ids
    assert request.isascii()
    assert request.isprintable()


def test_a_connection_is_kept(sunbird: Sunbird, client: SunbirdSync) -> None:
    for _ in range(5):
        client.post_block("user", ["a"])

    assert len({each.connection for each in sunbird.received}) == 1


# -- blocks, pauses and logs


def test_2500_ids_in_blocks_of_1000_are_three_calls(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    pauses = Pauses()

    result = sync(client, tmp_path, 2500, pauses, block_size=1000, sleep_ms=5000)

    assert [len(each.ids) for each in sunbird.received] == [1000, 1000, 500]
    assert list(chain.from_iterable(each.ids for each in sunbird.received)) == ids_of(2500)
    assert pauses.seconds == [5.0, 5.0]
    assert (result.blocks_accepted, result.ids_accepted, result.complete) == (3, 2500, True)
    assert pauses.lines == [
        f"Sync API call done for {done}/2500 records..." for done in (1000, 2000, 2500)
    ]


def test_real_pauses_lie_between_the_calls_and_not_before_the_first(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    began = time.monotonic()
    sync_ids(
        client, ids_of(2), 2, object_type="user", log_folder=tmp_path, block_size=1, sleep_ms=400
    )

    first, second = (each.at for each in sunbird.received)
    assert first - began < 0.4
    assert second - first >= 0.4


@pytest.mark.parametrize("number", [0, -3, None])
def test_block_size_and_sleep_fall_back_with_a_message(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path, number: int | None
) -> None:
    pauses = Pauses()

    sync(client, tmp_path, 150, pauses, block_size=number, sleep_ms=number)

    assert [len(each.ids) for each in sunbird.received] == [100, 50]
    assert pauses.seconds == [10.0]
    assert f"block_size is {number}; 100 ids a call" in pauses.lines[0]
    assert f"sleep_ms is {number}; 10000 ms" in pauses.lines[1]


@pytest.mark.parametrize("option", [{"block_size": 10_001}, {"sleep_ms": 3_600_001}])
def test_a_pace_out_of_bounds_is_refused_before_anything_is_sent(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path, option: dict[str, int]
) -> None:
    with pytest.raises(DeclarationError, match="valid are 1 to"):
        sync(client, tmp_path, 1, Pauses(), **option)

    assert not sunbird.received
    assert not list(tmp_path.iterdir())


def test_both_logs_are_made_and_hold_the_entries_of_the_facts(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    refusal = b'{"params": {"err": "E1",\n "errmsg": "no luck", "status": "FAILED"}}\n'
    sunbird.fault = fail_for("id-2", 400, refusal)
    began = time.time() * 1000

    result = sync(client, tmp_path / "logs", 5, Pauses(), block_size=2)

    success, failure = result.success_log.read_text(), result.failure_log.read_text()
    first = to_request("user", ["id-0", "id-1"])
    assert success.startswith(f"\n\nRequest No : 1\nRequest : {first}\nResponse : {{")
    assert success.count("\nRequest No : ") == 2
    assert "\n\nRequest No : 3\n" in success
    assert failure == (
        f"\n\nRequest No : 2\nRequest : {to_request('user', ['id-2', 'id-3'])}\n"
        'Response : {"params": {"err": "E1", "errmsg": "no luck", "status": "FAILED"}}\n'
        "Reason : HTTP 400: E1: no luck"
    )
    names = [re.fullmatch(r"Sync(\w+)_(\d+)\.log", p.name) for p in (tmp_path / "logs").iterdir()]
    assert {name[1] for name in names if name} == {"Success", "Failure"}
    assert all(began - 1 <= int(name[2]) <= time.time() * 1000 for name in names if name)
    assert (result.blocks_accepted, result.blocks_failed) == (2, 1)
    assert (result.ids_accepted, result.ids_failed) == (3, 2)
    assert result.reasons == ("call 2: HTTP 400: E1: no luck",)
    assert not result.complete
    assert f"2 ids in 1 calls were not; send these again from {result.failure_log}" in str(result)


def test_entries_can_be_read_as_soon_as_they_are_made(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    seen: list[int] = []

    def look(_: str) -> None:
        (log,) = tmp_path.glob("SyncSuccess_*")
        seen.append(log.read_text().count("Request No"))

    sync_ids(
        client,
        ids_of(3),
        3,
        object_type="user",
        log_folder=tmp_path,
        block_size=1,
        on_progress=look,
        sleep=Pauses(),
    )

    assert seen == [1, 2, 3]


def test_syncs_at_the_same_time_have_logs_of_their_own(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)

    results = [sync(client, tmp_path, 1, Pauses()) for _ in range(3)]

    assert len({each.failure_log for each in results}) == 3
    assert results[0].success_log.name == "SyncSuccess_1700000000000.log"


def test_logs_that_cannot_be_written_end_the_sync_before_it_begins(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(PermanentError, match="the logs of the sync cannot be written to"):
        sync(client, tmp_path / "file", 1, Pauses())

    assert not sunbird.received


# -- faults


def hang(received: Received, fair: Fair) -> Answer:
    time.sleep(0.6)
    return fair()


def half(received: Received, fair: Fair) -> Answer:
    content = fair().content
    return Answer(200, content[: len(content) // 2], length=len(content))


def half_without_length(received: Received, fair: Fair) -> Answer:
    content = fair().content
    return Answer(200, content[: len(content) // 2], length=-1)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda r, f: Answer(500, b"oops"), "HTTP 500: oops"),
        (lambda r, f: Answer(503, b""), "HTTP 503: no reason given"),
        (lambda r, f: None, "broke before the answer was whole"),
        (hang, "did not answer within 0.3 s"),
        (half, "half an answer came from"),
        (half_without_length, "half an answer came from"),
    ],
)
def test_faults_of_a_block_are_tried_again_then_reported_and_do_not_end_the_others(
    sunbird: Sunbird, tmp_path: Path, fault: Any, reason: str
) -> None:
    sunbird.fault = lambda r, f: fault(r, f) if "id-1" in r.ids else f()
    timeout_seconds = 0.3 if fault is hang else 10

    with settings_of(sunbird, timeout_seconds=timeout_seconds).connect() as client:
        result = sync(client, tmp_path, 3, Pauses(), block_size=1)

    tries = [each.ids[0] for each in sunbird.received]
    assert tries[0] == "id-0"
    assert tries[-1] == "id-2"
    assert tries.count("id-1") >= 2
    assert (result.blocks_accepted, result.blocks_failed) == (2, 1)
    assert reason in result.reasons[0]
    assert re.search(r"after \d+ tries in \d+ s", result.reasons[0])
    assert reason in result.failure_log.read_text()
    assert '"id-1"' in result.failure_log.read_text()


@pytest.mark.parametrize(
    "answer", [Answer(500, b""), Answer(429, b""), Answer(400, b""), None], ids=str
)
def test_a_fault_that_passes_leaves_no_trace(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path, answer: Answer | None
) -> None:
    sunbird.fault = first_times(1, answer)

    result = sync(client, tmp_path, 1, Pauses())

    assert result.complete
    assert len(sunbird.received) == 2
    assert result.failure_log.read_text() == ""


def test_pauses_between_tries_grow_and_end(sunbird: Sunbird) -> None:
    pauses = Pauses()
    sunbird.fault = lambda received, fair: Answer(500, b"")
    began = time.monotonic()

    def sleep(seconds: float) -> None:
        pauses(seconds)
        time.sleep(seconds)

    answer = SunbirdSync(settings_of(sunbird, retry_seconds=0.8), sleep).post_block("user", ["a"])

    assert time.monotonic() - began < 5
    assert answer.tries == len(pauses.seconds) + 1 >= 4
    assert pauses.seconds[0] <= 0.02
    assert max(pauses.seconds) > 0.08


@pytest.mark.parametrize(("told", "waited"), [("7", 7.0), ("9999", 60.0), ("soon", 0.02)])
def test_retry_after_is_respected_within_bounds(sunbird: Sunbird, told: str, waited: float) -> None:
    pauses = Pauses()
    sunbird.fault = first_times(1, Answer(429, b"", {"Retry-After": told}))

    answer = SunbirdSync(settings_of(sunbird, retry_seconds=300), pauses).post_block("user", ["a"])

    assert answer.accepted
    assert pauses.seconds[0] == pytest.approx(waited, rel=0.5 if told == "soon" else 0.01)


def test_retry_after_does_not_outlast_the_retries(sunbird: Sunbird) -> None:
    pauses = Pauses()
    sunbird.fault = first_times(1, Answer(503, b"", {"Retry-After": "50"}))

    SunbirdSync(settings_of(sunbird, retry_seconds=2), pauses).post_block("user", ["a"])

    assert pauses.seconds[0] <= 2


def test_a_server_that_is_not_there_is_reported_by_block(tmp_path: Path) -> None:
    endpoint = f"http://{LOCALHOST}:{free_port()}/v1/data/sync"
    with SunbirdSyncSettings(endpoint, KEY, retry_seconds=0).connect() as client:
        result = sync(client, tmp_path, 2, Pauses(), block_size=1)

    assert result.blocks_failed == 2
    assert f"{endpoint} cannot be reached; check the store's endpoints" in result.reasons[0]


class Drip(socketserver.StreamRequestHandler):
    """Sends a byte now and then, so that no read ever times out."""

    def handle(self) -> None:
        self.request.recv(65_536)
        with suppress(OSError):
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                self.request.sendall(b" ")
                time.sleep(0.05)


def test_a_trickling_answer_lasts_no_longer_than_the_timeout() -> None:
    with socketserver.TCPServer((LOCALHOST, 0), Drip) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        endpoint = f"http://{LOCALHOST}:{server.server_address[1]}/"
        began = time.monotonic()
        settings = SunbirdSyncSettings(endpoint, KEY, timeout_seconds=0.3, retry_seconds=0)
        with settings.connect() as client:
            answer = client.post_block("user", ["a"])
        lasted = time.monotonic() - began
        thread.join()

    assert "did not answer within 0.3 s" in answer.reason
    assert lasted < 4


def test_the_reasons_kept_are_bounded(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    sunbird.fault = lambda r, f: Answer(400, b"x" * 100_000)

    result = sync(client, tmp_path, 30, Pauses(), block_size=1)

    assert result.blocks_failed == 30
    assert len(result.reasons) == 10
    assert max(map(len, result.reasons)) < 600


def test_an_endless_answer_is_read_up_to_a_bound(sunbird: Sunbird, client: SunbirdSync) -> None:
    sunbird.fault = lambda r, f: Answer(200, b"[" * (3 * MAX_ANSWER_BYTES))

    answer = client.post_block("user", ["a"])

    assert answer.accepted
    assert len(answer.text) <= MAX_ANSWER_BYTES
    sunbird.fault = None
    assert client.post_block("user", ["a"]).accepted


# -- how answers are understood


def test_a_missing_or_wrong_type_is_refused_by_the_server_as_told(sunbird: Sunbird) -> None:
    with settings_of(sunbird).connect() as client:
        answer = client.post_block("location", ["a"])

    assert (answer.status, answer.accepted) == (400, False)
    assert answer.errmsg == "Invalid Object Type."
    assert (answer.param_status, answer.response_code) == ("FAILED", "CLIENT_ERROR")
    assert answer.reason == "HTTP 400: UOS_0072: Invalid Object Type."
    assert len(sunbird.received) == 2  # a gateway that is reloaded answers so, too

    missing = Received(
        SYNC_PATH, {"Authorization": f"Bearer {KEY}"}, {"request": {"operationFor": "es"}}, 0, 0
    )
    refused = json.loads(sunbird.answer(missing).content)
    assert refused["params"]["err"] == "UOS_0003"


def test_the_stand_in_syncs_everything_without_ids_as_the_service_of_2019_does(rows: Rows) -> None:
    rows.of["user"] = {"a": {"id": "a"}, "b": {"id": "b"}}
    body = {"request": {"operationFor": "es", "objectType": "user"}}
    with serve_sunbird(rows, KEY) as server:
        answer = server.answer(Received(SYNC_PATH, {"Authorization": f"Bearer {KEY}"}, body, 0, 0))
        assert server.settle()

    assert answer.status == 200
    assert set(server.index["user"]) == {"a", "b"}
    assert server.synced_everything == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(302, b"", {"Location": "http://127.0.0.1:9/x"}), "the key goes nowhere else"),
        (Answer(404, b""), "there is no such API at"),
        (Answer(200, b"<html>sign in</html>"), "answered with a web page"),
        (
            Answer(200, b'{"params": {"status": "FAILED", "errmsg": "no"}}'),
            "HTTP 200, but FAILED: no",
        ),
    ],
    ids=["redirect", "no such path", "web page", "failed"],
)
def test_answers_that_accept_nothing_say_what_to_do(
    sunbird: Sunbird, client: SunbirdSync, answer: Answer, reason: str
) -> None:
    sunbird.fault = lambda received, fair: answer

    told = client.post_block("user", ["a"])

    assert not told.accepted
    assert reason in told.reason


@pytest.mark.parametrize("content", [b"", b"OK", b"[]", b"{}", b"[" * 5000, b"\xff\xfe"])
def test_any_other_200_is_accepted(sunbird: Sunbird, client: SunbirdSync, content: bytes) -> None:
    sunbird.fault = lambda received, fair: Answer(200, content)

    assert client.post_block("user", ["a"]).accepted


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_tried_again_and_names_where_it_comes_from(
    sunbird: Sunbird, status: int, tmp_path: Path
) -> None:
    sunbird.fault = lambda received, fair: Answer(status, b'{"message": "no"}')
    with settings_of(sunbird).connect() as client:
        result = sync(client, tmp_path, 2, Pauses(), block_size=1)

    assert len(sunbird.received) == 2
    assert result.reasons[0] == (
        f"call 1: HTTP {status}: {sunbird.sync_url} does not accept the API key; check the "
        "environment variable SUNBIRD_KEY, which holds the api_key of the store sunbird_sync"
    )


def test_without_a_key_none_is_sent_and_the_server_asks_for_one(sunbird: Sunbird) -> None:
    with settings_of(sunbird, api_key=None).connect() as client:
        answer = client.post_block("user", ["a"])

    assert "Authorization" not in sunbird.received[0].headers
    assert "asks for an API key; give the store sunbird_sync api_key: {env: NAME}" in answer.reason


# -- the key is nowhere


def echo(received: Received, fair: Fair) -> Answer:
    """Repeat the key in every way that a careless server may."""
    given = received.headers["Authorization"]
    hidden = "".join(f"\\u{ord(c):04x}" for c in given)
    return Answer(
        400,
        json.dumps({"params": {"err": given, "errmsg": given.replace("/", "\\/")}})[:-2].encode()
        + f', "status": "{hidden}"}}, "responseCode": "{hidden}"}}'.encode(),
    )


@pytest.mark.parametrize(
    "fault",
    [
        echo,
        lambda r, f: Answer(500, f"no {r.headers['Authorization']}".encode()),
        lambda r, f: Answer(302, b"", {"Location": f"http://x/?k={KEY}"}),
        lambda r, f: Answer(401, KEY.encode()),
        lambda r, f: Answer(500, (b"x" * (MAX_ANSWER_BYTES - 9)) + KEY.encode() * 9),
        lambda r, f: Answer(200, KEY.encode()),
        lambda r, f: None,
    ],
)
def test_the_key_appears_nowhere(
    sunbird: Sunbird,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    fault: Any,
) -> None:
    caplog.set_level(0)
    sunbird.fault = fault
    pauses = Pauses()
    with settings_of(sunbird, retry_seconds=0.05, user_token="tok3n-of-a-user").connect() as client:
        result = sync(client, tmp_path, 2, pauses, block_size=1)
        answer = client.post_block("user", ["a"])
        with pytest.raises(MigrationError) as caught:
            client.count("user", {"rootOrgId": TARGET})
        seen = [repr(client), str(client), repr(client.settings), str(client.settings)]

    seen += [repr(answer), answer.text, answer.reason, answer.request, repr(result), str(result)]
    seen += [path.read_text() for path in tmp_path.iterdir()]
    seen += ["".join(traceback.format_exception(caught.value)), caplog.text, *pauses.lines]
    seen += capsys.readouterr()
    assert not [text for text in seen if KEY in text or KEY[:-3] in text]
    assert not [text for text in seen if "tok3n-of-a-user" in text]


def test_a_redirect_does_not_carry_the_key_to_another_host(
    sunbird: Sunbird, client: SunbirdSync, rows: Rows
) -> None:
    with serve_sunbird(rows, KEY) as other:
        sunbird.fault = lambda r, f: Answer(307, b"", {"Location": other.sync_url})
        assert not client.post_block("user", ["a"]).accepted

        assert not other.received


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} ", "sécret", ""])
def test_a_key_that_no_header_carries_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(PreflightError) as caught:
        SunbirdSyncSettings("http://x/", key, store="search")

    assert str(caught.value).startswith("the api_key of the store search ")
    assert not key.strip() or key.strip() not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"endpoint": "localhost:9000"}, "endpoint is no URL; write the full"),
        ({"endpoint": "ftp://x/y"}, "endpoint is no URL"),
        ({"endpoint": "http://x:port/"}, "endpoint is no URL"),
        ({"endpoint": "http://u:p4ss@x/"}, "endpoint holds a user or a password"),
        ({"endpoint": "http://x/\r\nA: b"}, "endpoint is no URL"),
        ({"endpoint": "http://x/#a"}, "has a part after #"),
        ({"search_endpoints": {"usr": "http://x/"}}, "object_type is 'usr'; valid are"),
        ({"search_endpoints": {"user": "x"}}, "search_endpoints.user is no URL"),
        ({"operation_type": "all"}, "leave it out or write sync"),
        ({"timeout_seconds": 0}, "timeout_seconds is 0"),
        ({"retry_seconds": -1}, "retry_seconds is -1"),
        ({"ca_file": "/none.pem"}, "there is no ca_file /none.pem"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_sentence(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(MigrationError, match=message) as caught:
        SunbirdSyncSettings(**{"endpoint": "http://x/", "api_key": KEY, **changes})

    assert "p4ss" not in str(caught.value)


def test_settings_go_to_another_process_and_back() -> None:
    settings = SunbirdSyncSettings("http://x/", KEY, {"user": "http://x/s"})

    assert pickle.loads(pickle.dumps(settings)) == settings


# -- TLS


def test_a_certificate_is_trusted_by_its_authority_only(rows: Rows, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(LOCALHOST).configure_cert(context)
    with serve_sunbird(rows, KEY, tls=context) as server:
        for ca_file, accepted in ((str(tmp_path / "ca.pem"), True), (None, False)):
            settings = settings_of(server, ca_file=ca_file, retry_seconds=0, timeout_seconds=5)
            with settings.connect() as client:
                answer = client.post_block("user", ["a"])
            assert answer.accepted == accepted
    assert "is not trusted; name its authority in ca_file" in answer.reason


# -- id files


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_an_id_file_is_read_line_by_line_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "ids.csv", b"\xef\xbb\xbfid\n a \r\n\xc3\xa9\nlast")

    assert list(read_ids(path)) == ["id", " a ", "é", "last"]
    assert count_ids(path) == 4


@pytest.mark.parametrize(("content", "words"), [(None, "there is no id file"), (b"", "is empty")])
def test_a_missing_or_empty_id_file_is_an_error_and_never_a_sync_of_everything(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "user_migration.csv"
    if content is not None:
        write(path, content)
    hint = "make the plan of the step users first"

    for _ in range(2):
        with pytest.raises(PreflightError, match=rf"No id found.*{words}.*{hint}"):
            count_ids(path, hint)
        with pytest.raises(PreflightError, match="No id found"):
            sync_ids(
                client, read_ids(path, hint), 5, object_type="user", log_folder=tmp_path / "logs"
            )
    with pytest.raises(PreflightError, match="No id found"):
        sync(client, tmp_path / "logs", 0, Pauses())

    assert not sunbird.received
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", "line 2 of the id file .* is blank, and is no id"),
        (b"a\n  \n", "line 2 of the id file .* is blank"),
        (b"a\nb\x00c\n", "line 2 of the id file .* cannot be printed"),
        (b"a\rb\n", "line 1 of the id file .* cannot be printed"),
        (b"a\n\xff\n", "line 2 of the id file .* is not UTF-8"),
        (b"x" * 257 + b"\n", "line 1 of the id file .* is longer than 256"),
        (b"a\n" + b"x" * 5_000_000, "line 2 of the id file .* is longer than 256"),
    ],
)
def test_lines_that_are_no_ids_are_refused_by_number(
    tmp_path: Path, content: bytes, message: str
) -> None:
    with pytest.raises(PreflightError, match=message):
        count_ids(write(tmp_path / "ids.csv", content))


def test_a_folder_is_no_id_file(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="cannot be read: Is a directory"):
        count_ids(tmp_path)


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(
        st.text(min_size=1, max_size=64).filter(lambda t: t.isprintable() and t.strip()),
        min_size=1,
    )
)
def test_every_printable_id_comes_back_from_a_file(tmp_path: Path, ids: list[str]) -> None:
    path = write(tmp_path / "ids.csv", "".join(f"{row_id}\n" for row_id in ids).encode())

    assert list(read_ids(path)) == ids


def test_a_file_of_a_move_is_synced_as_it_is(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    path = write(tmp_path / "ids.csv", "".join(f"{row_id}\n" for row_id in ids_of(250)).encode())

    result = sync_ids(
        client,
        read_ids(path),
        count_ids(path),
        object_type="user",
        log_folder=tmp_path,
        sleep=Pauses(),
    )

    assert list(chain.from_iterable(each.ids for each in sunbird.received)) == ids_of(250)
    assert result.ids_accepted == 250


# -- what a sync would do


def test_a_dry_run_describes_the_sync_and_sends_nothing(sunbird: Sunbird) -> None:
    described = describe_sync(
        iter(ids_of(2500)),
        2500,
        endpoint=sunbird.sync_url,
        object_type="course_batch",
        block_size=1000,
        sleep_ms=5000,
    )

    assert (described.ids, described.blocks, described.pause_seconds) == (2500, 3, 10.0)
    assert described.object_type == "batch"
    assert described.request.startswith('{"params": {}, "request": {"objectType": "batch", ')
    assert len(described.request) == 2000
    assert str(described) == (
        "2500 ids of type batch in 3 calls of at most 1000 to "
        f"{sunbird.sync_url}, with 5000 ms before each but the first: 10 s of pauses"
    )
    assert not sunbird.received


# -- replay


def test_a_replay_without_a_pause_falls_back_with_a_message(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    path = write(tmp_path / "failure.log", f"Request : {to_request('user', ['a'])}\n".encode() * 2)
    pauses = Pauses()

    replay_failed(
        client,
        path,
        log_folder=tmp_path,
        sleep_ms=0,
        on_progress=pauses.lines.append,
        sleep=pauses,
    )

    assert pauses.seconds == [10.0]
    assert "sleep_ms is 0" in pauses.lines[0]


def test_failed_blocks_are_sent_again_exactly(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    sunbird.fault = lambda r, f: f() if "id-2" in r.ids else Answer(400, b"{no")
    failed = sync(client, tmp_path, 7, Pauses(), block_size=2)
    assert failed.blocks_failed == 3
    sunbird.fault = None
    sunbird.received.clear()
    pauses = Pauses()

    result = replay_failed(
        client, failed.failure_log, log_folder=tmp_path, on_progress=pauses.lines.append,
        sleep=pauses,
    )  # fmt: skip

    assert [each.ids for each in sunbird.received] == [
        ["id-0", "id-1"],
        ["id-4", "id-5"],
        ["id-6"],
    ]
    assert pauses.seconds == [5.0, 5.0]
    assert pauses.lines[-1] == "Sync API call done for 5/5 records..."
    assert (result.complete, result.ids_accepted) == (True, 5)
    assert result.failure_log != failed.failure_log


def test_a_log_of_the_original_job_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "SyncFailure_1548000000000.log",
        b"\n\nRequest No : 1\r\n"
        b'Request : {"request":{"objectIds":["a","b"],"operationFor":"es","objectType":"batch"},'
        b'"params":{}}\r\nResponse : {"id":"api","result":{}} \n\nRequest No : 2\n'
        b'Request : {"params":{},"request":{"objectType":"user","objectIds":["c"]}}\nResponse : ',
    )

    blocks = list(read_failed_blocks(path))

    assert [(b.object_type, b.ids, b.line) for b in blocks] == [
        ("batch", ("a", "b"), 4),
        ("user", ("c",), 8),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"request": {"objectType": "user", "objectIds": []}}', "would sync every row"),
        (b'{"request": {"objectType": "user"}}', "holds no whole request"),
        (b'{"request": {"objectType": "user", "objectIds": ["a", "b', "holds no whole request"),
        (b'{"request": {"objectType": "all", "objectIds": ["a"]}}', "valid are user"),
        (b'{"request": {"objectType": "user", "objectIds": [1]}}', "an id that is no text"),
        (b'{"request": {"objectType": ["user"], "objectIds": "a"}}', "no objectType or no"),
        (b'{"request": {"objectType": "user", "objectIds": ["a\\nb"]}}', "cannot be printed"),
        (b"[" * 100_000, "holds no whole request"),
        (b"\xff\xfe", "holds no whole request"),
        (b'{"request": ["' + b"x" * (17 << 20), "is too long"),
    ],
    ids=range(10),
)
def test_hostile_lines_of_a_log_are_refused_by_number_before_anything_is_sent(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path, line: bytes, message: str
) -> None:
    fine = b'\n\nRequest No : 1\nRequest : {"request": {"objectType": "user", "objectIds": ["a"]}}'
    path = write(tmp_path / "failure.log", fine + b"\nResponse : \nRequest : " + line)

    with pytest.raises(PreflightError, match=f"line 6 of the failure log .*{message}") as caught:
        replay_failed(client, path, log_folder=tmp_path / "logs")

    assert len(str(caught.value)) < 600
    assert not sunbird.received


@pytest.mark.parametrize(("content", "message"), [(None, "no failure log"), (b"", "no failed req")])
def test_a_log_without_requests_is_told(
    client: SunbirdSync, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "failure.log"
    if content is not None:
        write(path, content)

    with pytest.raises(PreflightError, match=message):
        replay_failed(client, path, log_folder=tmp_path)


def test_an_answer_cannot_forge_a_request_in_the_log(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    forged = f"x\n\nRequest No : 9\nRequest : {to_request('user', ['z'])}"
    sunbird.fault = lambda r, f: Answer(400, forged.encode() + b"\x1b[2J")

    result = sync(client, tmp_path, 1, Pauses())

    (block,) = read_failed_blocks(result.failure_log)
    assert block.ids == ("id-0",)
    assert "\x1b" not in result.failure_log.read_text()


# -- what the index shows


def read_from(reader: Session, keyspace: str) -> Callable[..., Mapping[str, dict[str, Any]]]:
    """Read rows from Cassandra, and name their columns as the index does."""
    tables = {
        "user": (f'"{keyspace}".user', "rootorgid", "rootOrgId"),
        "batch": (f'"{keyspace}".course_batch', "createdfor", "createdFor"),
    }

    def read(kind: str, ids: Sequence[str] | None) -> Mapping[str, dict[str, Any]]:
        table, column, field = tables[kind]
        rows = reader.execute(f"SELECT id, {column} AS value FROM {table}")
        return {
            row["id"]: {"id": row["id"], field: row["value"]}
            for row in rows
            if ids is None or row["id"] in ids
        }

    return read


def test_the_index_shows_the_new_tenant_after_the_sync_and_the_old_one_before(
    connection: Connection, reader: Session, keyspace: str, tmp_path: Path
) -> None:
    run = connection.session.execute
    run(f'CREATE TABLE "{keyspace}".user (id text PRIMARY KEY, rootorgid text)')
    run(f'CREATE TABLE "{keyspace}".course_batch (id text PRIMARY KEY, createdfor list<text>)')
    moved, others = [f"u{n}" for n in range(25)], ["o1", "o2"]
    for row_id in [*moved, *others]:
        tenant = ORIGIN if row_id in moved else "another"
        run(f'INSERT INTO "{keyspace}".user (id, rootorgid) VALUES (%s, %s)', (row_id, tenant))
    insert = f'INSERT INTO "{keyspace}".course_batch (id, createdfor) VALUES (%s, %s)'
    run(insert, ("b1", ["a", ORIGIN]))
    with serve_sunbird(read_from(reader, keyspace), KEY, index_delay_seconds=0.1) as server:
        server.index["user"] = dict(read_from(reader, keyspace)("user", None))
        server.index["batch"] = dict(read_from(reader, keyspace)("batch", None))
        with settings_of(server).connect() as client:
            for row_id in moved:
                run(f'UPDATE "{keyspace}".user SET rootorgid = %s WHERE id = %s', (TARGET, row_id))
            run(insert, ("b1", ["a", TARGET]))
            assert client.count("user", {"rootOrgId": ORIGIN}) == 25
            assert client.count("user", {"rootOrgId": TARGET}) == 0
            before = wait_for_index(
                client,
                "user",
                origin={"rootOrgId": ORIGIN},
                target={"rootOrgId": TARGET},
                target_expected=25,
                wait_seconds=0,
            )

            sync(client, tmp_path, moved, Pauses(), block_size=10)
            sync(client, tmp_path, ["b1"], Pauses(), object_type="course_batch")
            users = wait_for_index(
                client,
                "user",
                origin={"rootOrgId": ORIGIN},
                target={"rootOrgId": TARGET},
                target_expected=25,
                wait_seconds=20,
                first_poll_seconds=0.02,
            )
            batches = wait_for_index(
                client,
                "course_batch",
                origin={"createdFor": [ORIGIN]},
                target={"createdFor": TARGET},
                target_expected=1,
                wait_seconds=20,
            )
            assert client.count("user", {"rootOrgId": "another"}) == 2

    assert not before.passed
    assert (before.origin_count, before.target_count) == (25, 0)
    assert "indexing may still go on, so check again" in str(before)
    assert users.passed
    assert users.polls > 1
    assert batches.passed
    assert [each for each in server.syncs if not each.ids] == []


def test_waiting_for_the_index_is_bounded_and_asks_less_and_less_often(
    sunbird: Sunbird, client: SunbirdSync
) -> None:
    now = 0.0
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    verdict = wait_for_index(
        client,
        "user",
        origin={"rootOrgId": ORIGIN},
        target={"rootOrgId": TARGET},
        target_expected=3,
        sleep=sleep,
        clock=lambda: now,
    )

    assert not verdict.passed
    assert (verdict.target_count, verdict.target_expected) == (0, 3)
    assert verdict.seconds == pytest.approx(60)
    assert pauses[:6] == [0.25, 0.5, 1, 2, 4, 5]
    assert verdict.polls == len(pauses) + 1


def test_a_count_asks_for_no_document(sunbird: Sunbird, client: SunbirdSync) -> None:
    assert client.count("course_batch", {"createdFor": [ORIGIN]}) == 0

    (received,) = sunbird.received
    assert received.path == "/v1/course/batch/list"
    assert received.body == {"request": {"filters": {"createdFor": [ORIGIN]}, "limit": 0}}


def test_a_users_token_goes_to_the_search_api_only(sunbird: Sunbird) -> None:
    with settings_of(sunbird, user_token="t0ken").connect() as client:
        client.count("user", {"rootOrgId": ORIGIN})
        client.post_block("user", ["a"])

    sent = [each.headers.get("x-authenticated-user-token") for each in sunbird.received]
    assert sent == ["t0ken", None]


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (Answer(500, b""), TransientError, "user documents cannot be counted: HTTP 500"),
        (Answer(401, b""), PermanentError, "does not accept the API key"),
        (Answer(200, b"{}"), PermanentError, "answered without result.response.count"),
        (Answer(200, b'{"result": {"response": {"count": true}}}'), PermanentError, "without"),
        (Answer(200, b'{"result": {"response": {"count": -1}}}'), PermanentError, "without"),
        (None, TransientError, "broke before the answer was whole"),
    ],
    ids=str,
)
def test_a_count_that_cannot_be_had_says_why(
    sunbird: Sunbird,
    client: SunbirdSync,
    answer: Answer | None,
    kind: type[MigrationError],
    message: str,
) -> None:
    sunbird.fault = lambda received, fair: answer

    with pytest.raises(kind, match=message):
        client.count("user", {"rootOrgId": ORIGIN})


def test_without_a_search_endpoint_nothing_is_counted(sunbird: Sunbird) -> None:
    with settings_of(sunbird, search_endpoints={}).connect() as client:
        assert not client.counts("user")
        with pytest.raises(PreflightError, match=r"give it search_endpoints: \{user: URL\}"):
            client.count("user", {})


# -- as a Dagster resource


def declared(folder: Path, **attributes: Any) -> SunbirdSyncResource:
    """Declare a store in a project's YAML, and give its resource as a run has it."""
    project = make_project(folder, cassandra_port=9)
    project.declare("search", "Stores", sunbird_sync={"search": attributes})
    resources: Any = project.load().resources
    return resources["search"].process_config_and_initialize()


@pytest.fixture
def resource(
    sunbird: Sunbird, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SunbirdSyncResource:
    monkeypatch.setenv("SUNBIRD_KEY", KEY)
    return declared(
        tmp_path,
        endpoint=sunbird.sync_url,
        api_key={"env": "SUNBIRD_KEY"},
        search_endpoints={"course_batch": sunbird.search_urls["batch"]},
    )


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"endpoint": "http://x/", "api_key": KEY}, "search.api_key must be a block with env"),
        ({"api_key": {"env": "A"}}, "sunbird_sync.search.endpoint is missing"),
        ({"endpoint": "http://x/", "api_kee": {}}, "did you mean sunbird_sync.search.api_key"),
    ],
)
def test_what_does_not_fit_in_a_declaration_is_refused(
    tmp_path: Path, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DeclarationError, match=r"defs\.yaml: ") as caught:
        declared(tmp_path, **attributes)

    told = "".join(traceback.format_exception(caught.value))
    assert message in told
    assert KEY not in told


def test_a_declared_store_reaches_both_apis(resource: SunbirdSyncResource) -> None:
    with resource.connect("search") as client:
        assert client.post_block("user", ["a"]).accepted
        assert client.count("batch", {}) == 0
        assert KEY not in f"{resource!r} {client.settings!r} {resource.model_dump()}"


def test_a_variable_that_is_not_set_is_told_in_a_sentence_before_anything_is_sent(
    sunbird: Sunbird, resource: SunbirdSyncResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUNBIRD_KEY")

    with pytest.raises(PreflightError) as caught:
        resource.connect("search")

    assert str(caught.value) == (
        "the environment variable SUNBIRD_KEY, which holds the api_key of the store search, is "
        "not set; set it where runs are executed"
    )
    assert not sunbird.received


def test_an_empty_variable_is_told_too(
    resource: SunbirdSyncResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUNBIRD_KEY", "")

    with pytest.raises(PreflightError, match=r"SUNBIRD_KEY, which holds .* is empty; set it"):
        resource.connect("search")


def test_every_object_type_of_the_api_is_known() -> None:
    assert set(OBJECT_TYPES) == {"user", "organisation", "batch", "user_course", "location"}


# -- the key, before anything is sent; the pause, also before a second try


def test_a_block_that_is_sent_again_waits_as_long_as_the_next_one(
    sunbird: Sunbird, client: SunbirdSync, tmp_path: Path
) -> None:
    sunbird.fault = first_times(1, Answer(500, b"oops"))
    pauses = Pauses()

    assert sync(client, tmp_path, 3, pauses, block_size=2, sleep_ms=4_000).complete

    again, between = pauses.seconds
    assert [each.ids for each in sunbird.received] == [ids_of(2), ids_of(2), ids_of(3)[2:]]
    # Less what the client waits of itself after a failure: 20 ms here at most.
    assert again == pytest.approx(4, abs=0.05)
    assert between == 4


def test_a_key_is_tried_without_a_sync(sunbird: Sunbird, client: SunbirdSync) -> None:
    assert client.check_key() == ""
    with (
        settings_of(sunbird, api_key="of-yesterday").connect() as other,
        pytest.raises(PreflightError, match="does not accept the API key; check the envir"),
    ):
        other.check_key()
    assert sunbird.received == []
    assert all(not documents for documents in sunbird.index.values())


def test_a_service_that_cannot_be_asked_is_no_wrong_key(sunbird: Sunbird) -> None:
    nowhere = f"http://{LOCALHOST}:{free_port()}{SYNC_PATH}"
    with settings_of(sunbird, endpoint=nowhere).connect() as client:
        assert "cannot be reached" in client.check_key()
