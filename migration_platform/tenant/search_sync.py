"""Has the rows of an id file indexed anew, block by block, as Sunbird's Talend job `Sync` does.

Unlike that job, it never takes a missing id file for a wish to index every row, it goes on when
a connection breaks, and neither its logs nor its lines hold the API key.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from migration_platform.errors import DeclarationError, PermanentError, PreflightError
from migration_platform.stores.sunbird_sync import (
    MAX_BLOCK_SIZE,
    MAX_ID_CHARS,
    SunbirdSync,
    SyncAnswer,
    find_fault,
    to_object_type,
    to_request,
)

DEFAULT_BLOCK_SIZE = 100
DEFAULT_SLEEP_MS = 5_000
"""Also what Sunbird's documentation gives for sending failed blocks again."""
MAX_SLEEP_MS = 3_600_000
MAX_REASONS = 10
MAX_SHOWN_REQUEST = 2_000
MAX_REQUEST_LINE_BYTES = 16 << 20
"""A block of the most and the longest ids, each character written as an escape."""
LONGEST_POLL_SECONDS = 5.0
_LONGEST_ID_LINE = MAX_ID_CHARS * 4 + 2
_REQUEST = b"Request : "

Tell = Callable[[str], None]
Sleep = Callable[[float], None]


# -- ids ---------------------------------------------------------------------------------------


def read_ids(path: Path, hint: str = "") -> Iterator[str]:
    """Read an id file, one id a line and no header; the lines are not trimmed.

    `hint` says in messages how to make the file. Memory does not grow with the file.

    Raises:
        PreflightError: there is no such file, no id in it, or a line that is no id.
    """
    way_out = f"; {hint}" if hint else ""
    number = 0
    with closing(_open(path, f"No id found: there is no id file {path}{way_out}")) as lines:
        while line := lines.readline(_LONGEST_ID_LINE + 1):
            number += 1
            yield _to_id(line, number, path)
    if not number:
        raise PreflightError(f"No id found in the id file {path}, which is empty{way_out}")


def count_ids(path: Path, hint: str = "") -> int:
    """Count the ids of a file, and see that each line is one.

    Raises:
        PreflightError: as `read_ids` does.
    """
    return sum(1 for _ in read_ids(path, hint))


def _open(path: Path, missing: str) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise PreflightError(missing) from None
    except OSError as error:
        raise PreflightError(f"{path} cannot be read: {error.strerror}") from None


def _to_id(line: bytes, number: int, path: Path) -> str:
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    try:
        row_id = line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise PreflightError(f"line {number} of the id file {path} is not UTF-8") from None
    if fault := find_fault(row_id):
        raise PreflightError(f"line {number} of the id file {path} {fault}, and is no id")
    return row_id


# -- pace --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pace:
    """Ids of a request, milliseconds before each request but the first, and what to tell of it."""

    block_size: int
    sleep_ms: int
    messages: tuple[str, ...] = ()


def to_pace(block_size: int | None, sleep_ms: int | None) -> Pace:
    """Give the pace of a sync: what is not above 0 is replaced, as the job `Sync` does.

    Raises:
        DeclarationError: a number is too large.
    """
    messages: list[str] = []
    if block_size is None or block_size <= 0:
        messages.append(f"block_size is {block_size}; {DEFAULT_BLOCK_SIZE} ids a call are sent")
        block_size = DEFAULT_BLOCK_SIZE
    if sleep_ms is None or sleep_ms <= 0:
        instead = min(block_size * 100, MAX_SLEEP_MS)
        messages.append(
            f"sleep_ms is {sleep_ms}; {instead} ms, 100 for each id of a block, pass before each "
            "call but the first"
        )
        sleep_ms = instead
    if block_size > MAX_BLOCK_SIZE:
        raise DeclarationError(f"block_size is {block_size}; valid are 1 to {MAX_BLOCK_SIZE}")
    if sleep_ms > MAX_SLEEP_MS:
        raise DeclarationError(f"sleep_ms is {sleep_ms}; valid are 1 to {MAX_SLEEP_MS}")
    return Pace(block_size, sleep_ms, tuple(messages))


@dataclass(frozen=True)
class SyncDescription:
    """What a sync would send: `request` is its first body, cut where it gets long."""

    endpoint: str
    object_type: str
    ids: int
    blocks: int
    pace: Pace
    pause_seconds: float
    request: str

    def __str__(self) -> str:
        return (
            f"{self.ids} ids of type {self.object_type} in {self.blocks} calls of at most "
            f"{self.pace.block_size} to {self.endpoint}, with {self.pace.sleep_ms} ms before each "
            f"but the first: {self.pause_seconds:,.0f} s of pauses"
        )


def describe_sync(
    ids: Iterable[str],
    total: int,
    *,
    endpoint: str,
    object_type: str,
    block_size: int | None = DEFAULT_BLOCK_SIZE,
    sleep_ms: int | None = DEFAULT_SLEEP_MS,
    operation_type: str | None = None,
) -> SyncDescription:
    """Say what a sync of these ids would send; only those of the first block are read.

    Raises:
        DeclarationError: the pace, the type or an id does not fit, or there is no id.
    """
    pace = to_pace(block_size, sleep_ms)
    request = to_request(object_type, list(islice(ids, pace.block_size)), operation_type)
    if len(request) > MAX_SHOWN_REQUEST:
        request = request[: MAX_SHOWN_REQUEST - 3] + "..."
    blocks = -(-total // pace.block_size)
    return SyncDescription(
        endpoint=endpoint,
        object_type=to_object_type(object_type),
        ids=total,
        blocks=blocks,
        pace=pace,
        pause_seconds=max(0, blocks - 1) * pace.sleep_ms / 1000,
        request=request,
    )


# -- sync --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SyncResult:
    """What became of a sync. Accepted is not indexed; see `wait_for_index`.

    `reasons` has those of the first blocks that failed; all of them stand in `failure_log`.
    """

    blocks_accepted: int
    blocks_failed: int
    ids_accepted: int
    ids_failed: int
    success_log: Path
    failure_log: Path
    reasons: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every block was accepted."""
        return not self.blocks_failed

    def __str__(self) -> str:
        told = f"{self.ids_accepted} ids in {self.blocks_accepted} calls were accepted"
        if self.complete:
            return told
        return (
            f"{told}, {self.ids_failed} ids in {self.blocks_failed} calls were not; send these "
            f"again from {self.failure_log}. First reasons: {'; '.join(self.reasons)}"
        )


def sync_ids(
    client: SunbirdSync,
    ids: Iterable[str],
    total: int,
    *,
    object_type: str,
    log_folder: Path,
    block_size: int | None = DEFAULT_BLOCK_SIZE,
    sleep_ms: int | None = DEFAULT_SLEEP_MS,
    on_progress: Tell = print,
    sleep: Sleep = time.sleep,
) -> SyncResult:
    """Have rows indexed anew, `block_size` ids a call; a block that fails does not end the others.

    The ids may be those of an id file or those of all rows of a table; `total` is their number.

    Raises:
        DeclarationError: the pace or the type does not fit; nothing was sent.
        PreflightError: there is no id, or one is unfit.
        PermanentError: the logs cannot be written.
    """
    pace = to_pace(block_size, sleep_ms)
    object_type = to_object_type(object_type)
    for message in pace.messages:
        on_progress(message)
    blocks = ((object_type, block) for block in _to_blocks(ids, pace.block_size))
    return _send(client, blocks, total, pace.sleep_ms, log_folder, on_progress, sleep)


def replay_failed(
    client: SunbirdSync,
    failure_log: Path,
    *,
    log_folder: Path,
    sleep_ms: int = DEFAULT_SLEEP_MS,
    on_progress: Tell = print,
    sleep: Sleep = time.sleep,
) -> SyncResult:
    """Send exactly the blocks of a failure log again; what fails anew is in the new failure log.

    Raises:
        PreflightError: the log cannot be read to its end; nothing was sent.
        PermanentError: the new logs cannot be written.
    """
    pace = to_pace(DEFAULT_BLOCK_SIZE, sleep_ms)
    for message in pace.messages:
        on_progress(message)
    total = sum(len(block.ids) for block in read_failed_blocks(failure_log))
    blocks = ((block.object_type, block.ids) for block in read_failed_blocks(failure_log))
    return _send(client, blocks, total, pace.sleep_ms, log_folder, on_progress, sleep)


def _to_blocks(ids: Iterable[str], block_size: int) -> Iterator[Sequence[str]]:
    left = iter(ids)
    while block := list(islice(left, block_size)):
        yield block


def _send(
    client: SunbirdSync,
    blocks: Iterator[tuple[str, Sequence[str]]],
    total: int,
    sleep_ms: int,
    log_folder: Path,
    on_progress: Tell,
    sleep: Sleep,
) -> SyncResult:
    first = next(blocks, None)
    if first is None:
        raise PreflightError("No id found; without ids a call would sync every row, and none is")
    accepted = failed = ids_accepted = ids_failed = done = 0
    reasons: list[str] = []
    with ExitStack() as files:
        success_log, failure_log = _create_logs(log_folder, files)
        block: tuple[str, Sequence[str]] | None = first
        while block is not None:
            object_type, ids = block
            if done:
                sleep(sleep_ms / 1000)
            number = accepted + failed + 1
            # A service that fails is not to be asked faster than one that answers.
            answer = client.post_block(
                object_type, ids, lambda waited: sleep(max(0.0, sleep_ms / 1000 - waited))
            )
            if answer.accepted:
                accepted += 1
                ids_accepted += len(ids)
                _append(success_log, number, answer)
            else:
                failed += 1
                ids_failed += len(ids)
                if len(reasons) < MAX_REASONS:
                    reasons.append(f"call {number}: {answer.reason}")
                _append(failure_log, number, answer)
            done += len(ids)
            line = f"Sync API call done for {done}/{total} records..."
            on_progress(line if answer.accepted else f"{line} It failed: {answer.reason}")
            block = next(blocks, None)
        return SyncResult(
            blocks_accepted=accepted,
            blocks_failed=failed,
            ids_accepted=ids_accepted,
            ids_failed=ids_failed,
            success_log=Path(success_log.name),
            failure_log=Path(failure_log.name),
            reasons=tuple(reasons),
        )


def _create_logs(folder: Path, files: ExitStack) -> tuple[TextIO, TextIO]:
    """Create both logs of a sync; of two that begin in one millisecond the later counts on."""
    now_ms = time.time_ns() // 1_000_000
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                success = (folder / f"SyncSuccess_{now_ms}.log").open("x", encoding="utf-8")
            except FileExistsError:
                now_ms += 1
                continue
            files.enter_context(success)
            failure = (folder / f"SyncFailure_{now_ms}.log").open("x", encoding="utf-8")
            return success, files.enter_context(failure)
    except OSError as error:
        raise PermanentError(
            f"the logs of the sync cannot be written to {folder}: {error.strerror}"
        ) from None


def _append(log: TextIO, number: int, answer: SyncAnswer) -> None:
    """Write an entry as the job `Sync` does; a failure has a line with its reason, too."""
    body = "".join(filter(str.isprintable, answer.text))
    entry = f"\n\nRequest No : {number}\nRequest : {answer.request}\nResponse : {body}"
    if not answer.accepted:
        entry += f"\nReason : {answer.reason}"
    try:
        log.write(entry)
        log.flush()
    except OSError as error:
        raise PermanentError(f"{log.name} cannot be written: {error.strerror}") from None


# -- replay ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FailedBlock:
    """A request of a failure log, and the line that it stands in."""

    object_type: str
    ids: tuple[str, ...]
    line: int


def read_failed_blocks(path: Path) -> Iterator[FailedBlock]:
    """Read the requests of a failure log, one of this package or of the job `Sync`.

    Raises:
        PreflightError: there is no such file, no request in it, or a line that is none.
    """
    number = found = 0
    with closing(_open(path, f"there is no failure log {path}")) as lines:
        begins_line = True
        while line := lines.readline(MAX_REQUEST_LINE_BYTES):
            number += begins_line
            is_whole = line.endswith(b"\n")
            if begins_line and line.startswith(_REQUEST):
                if not is_whole and len(line) >= MAX_REQUEST_LINE_BYTES:
                    raise _unfit(path, number, "is too long")
                yield _to_block(line[len(_REQUEST) :], path, number)
                found += 1
            begins_line = is_whole
    if not found:
        raise PreflightError(f"{path} has no failed request; there is nothing to send again")


def _to_block(line: bytes, path: Path, number: int) -> FailedBlock:
    try:
        request = json.loads(line)["request"]
        object_type, ids = request["objectType"], request["objectIds"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise _unfit(path, number, "holds no whole request") from None
    if not isinstance(object_type, str) or not isinstance(ids, list):
        raise _unfit(path, number, "holds no objectType or no objectIds")
    if not all(isinstance(row_id, str) for row_id in ids):
        raise _unfit(path, number, "holds an id that is no text")
    try:
        to_request(object_type, ids)
    except DeclarationError as error:
        raise _unfit(path, number, f"is refused: {error}") from None
    return FailedBlock(to_object_type(object_type), tuple(ids), number)


def _unfit(path: Path, number: int, what: str) -> PreflightError:
    return PreflightError(f"line {number} of the failure log {path} {what}; nothing was sent")


# -- verification ------------------------------------------------------------------------------


@dataclass(frozen=True)
class IndexVerdict:
    """How many documents the index shows of the origin and of the target, and how many it should.

    `seconds` and `polls` say how long it was asked.
    """

    object_type: str
    origin_count: int
    origin_expected: int
    target_count: int
    target_expected: int
    seconds: float
    polls: int

    @property
    def passed(self) -> bool:
        """Whether both counts are what they should be."""
        found = (self.origin_count, self.target_count)
        return found == (self.origin_expected, self.target_expected)

    def __str__(self) -> str:
        told = (
            f"the index shows {self.origin_count} {self.object_type} documents of the origin "
            f"(expected {self.origin_expected}) and {self.target_count} of the target (expected "
            f"{self.target_expected})"
        )
        if self.passed:
            return told
        return (
            f"{told} after {self.seconds:.0f} s; indexing may still go on, so check again, then "
            "sync again: unknown ids are told in Sunbird's own log only"
        )


def wait_for_index(
    client: SunbirdSync,
    object_type: str,
    *,
    origin: Mapping[str, Any],
    target: Mapping[str, Any],
    target_expected: int,
    origin_expected: int = 0,
    wait_seconds: float = 60.0,
    first_poll_seconds: float = 0.25,
    sleep: Sleep = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> IndexVerdict:
    """Count what the search API shows of origin and target until it is right or time is over.

    `origin` and `target` are filters, as `{"rootOrgId": "…"}` or `{"createdFor": "…"}`.

    Raises:
        MigrationError: the search API cannot be asked.
    """
    began = clock()
    pause = first_poll_seconds
    polls = 0
    while True:
        polls += 1
        verdict = IndexVerdict(
            object_type=to_object_type(object_type),
            origin_count=client.count(object_type, origin),
            origin_expected=origin_expected,
            target_count=client.count(object_type, target),
            target_expected=target_expected,
            seconds=clock() - began,
            polls=polls,
        )
        left = wait_seconds - verdict.seconds
        if verdict.passed or left <= 0:
            return verdict
        sleep(min(pause, left))
        pause = min(pause * 2, LONGEST_POLL_SECONDS)
