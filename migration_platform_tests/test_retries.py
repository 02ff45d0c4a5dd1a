"""What is tried again, for how long, and what a person is told in the end."""

import pytest
from cassandra import (
    AuthenticationFailed,
    CDCWriteFailure,
    InvalidRequest,
    OperationTimedOut,
    ReadTimeout,
    Unauthorized,
    Unavailable,
    WriteTimeout,
)
from cassandra.cluster import NoHostAvailable
from cassandra.connection import ConnectionShutdown
from cassandra.protocol import OverloadedErrorMessage, ServerError, SyntaxException

from migration_platform.errors import (
    DeclarationError,
    MigrationError,
    PermanentError,
    PreflightError,
    TransientError,
    causes_of,
    explain,
    is_transient,
)
from migration_platform.pacing import retries
from migration_platform.pacing.retries import FIRST_DELAY_SECONDS, LONGEST_DELAY_SECONDS, Attempts

TRANSIENT = [
    OperationTimedOut(),
    ReadTimeout("slow", consistency=1),
    WriteTimeout("slow", consistency=1, write_type=0),
    Unavailable("no replica", consistency=1),
    CDCWriteFailure("no room for the log of changes"),
    ConnectionShutdown("gone"),
    ConnectionRefusedError(111, "refused"),
    OverloadedErrorMessage(0x1001, "busy", None),
    ServerError(0, "odd", None),
    NoHostAvailable("nobody", {}),
    NoHostAvailable("nobody", {"127.0.0.1": ConnectionRefusedError(111, "refused")}),
]
PERMANENT = [
    AuthenticationFailed("no"),
    InvalidRequest("no"),
    Unauthorized("no"),
    SyntaxException(0x2000, "line 1", None),
    ValueError("a fault of this program"),
    NoHostAvailable(
        "nobody", {"a": ConnectionRefusedError(111, "refused"), "b": AuthenticationFailed("no")}
    ),
]


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(retries, "time", clock)
    return clock


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_a_server_that_is_away_or_busy_is_asked_again(error):
    assert is_transient(error)
    assert Attempts(10).delay_after(error) > 0


@pytest.mark.parametrize("error", PERMANENT, ids=repr)
def test_a_refusal_is_final_at_once(error):
    assert not is_transient(error)
    with pytest.raises(PermanentError):
        Attempts(10).delay_after(error)


def test_delays_grow_and_stay_below_the_longest():
    attempts = Attempts(1000)
    delays = [attempts.delay_after(OperationTimedOut()) for _ in range(30)]
    assert FIRST_DELAY_SECONDS / 2 <= delays[0] <= FIRST_DELAY_SECONDS
    assert all(0 < delay <= LONGEST_DELAY_SECONDS for delay in delays)
    assert all(delay >= LONGEST_DELAY_SECONDS / 2 for delay in delays[10:])


def test_workers_that_failed_together_do_not_come_back_together():
    assert len({Attempts(10).delay_after(OperationTimedOut()) for _ in range(10)}) > 1


def test_the_last_try_is_made_when_the_budget_ends_and_not_later(clock):
    attempts = Attempts(7)
    tries = 0
    while True:
        try:
            delay = attempts.delay_after(OperationTimedOut())
        except TransientError as error:
            said = str(error)
            break
        tries += 1
        clock.now += delay
    assert clock.now == pytest.approx(1007)
    assert said == f"the server did not answer in time, after {tries + 1} tries in 7 s"


def test_without_a_budget_there_is_one_try(clock):
    with pytest.raises(TransientError, match=r"in time, after one try in 0 s$"):
        Attempts(0).delay_after(OperationTimedOut())


def test_the_budget_runs_from_the_first_failure(clock):
    attempts = Attempts(5)
    clock.now += 3600
    assert attempts.delay_after(OperationTimedOut()) > 0


@pytest.mark.parametrize("error", TRANSIENT + PERMANENT, ids=repr)
def test_an_explanation_is_one_line_without_python_in_it(error):
    said = explain(error)
    assert said
    assert "\n" not in said
    assert "0x7" not in said
    assert "Traceback" not in said
    assert "object at" not in said


def test_an_explanation_names_the_host_and_the_cause():
    error = NoHostAvailable("nobody", {"10.0.0.1": ConnectionRefusedError(111, "refused")})
    assert explain(error) == "no host answered (10.0.0.1: 111 refused)"
    assert explain(NoHostAvailable("nobody", {})) == "no host answered"
    assert explain(AuthenticationFailed("user pete, password hunter2")) == (
        "the server refused the user name or the password"
    )
    refusal = 'Error from server: code=2200 [Invalid query] message="say "x" \n now"'
    assert explain(InvalidRequest(refusal)) == 'the server said: Invalid query: say "x" now'
    refusal += " info={'consistency': 'TWO', 'alive_replicas': 1}"
    assert explain(InvalidRequest(refusal)) == (
        'the server said: Invalid query: say "x" now (consistency TWO, alive_replicas 1)'
    )
    assert explain(PermanentError("kept as it is")) == "kept as it is"


@pytest.mark.parametrize("kind", [DeclarationError, PreflightError, PermanentError, TransientError])
def test_every_failure_of_the_package_is_one_family(kind):
    assert issubclass(kind, MigrationError)


@pytest.mark.parametrize("errors", [[OSError("refused")], {"10.0.0.1": OSError("refused")}, [], {}])
def test_what_hosts_answered_is_found_however_the_driver_keeps_it(errors):
    error = NoHostAvailable("nobody", errors)
    found = [str(cause) for cause in causes_of(error)]
    assert found == ["refused"] * len(errors)
    assert "no host answered" in explain(error)
