"""How a served program is told what to do: lines of JSON on its standard input and output.

It says `ready` once it is connected. A request names a work; `prepared` answers it, outside of what
is measured; then a line `go` starts the work, and the answer brings its result.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

Prepare = Callable[[dict[str, Any]], Callable[[], Any]]


def serve(prepare: Prepare) -> None:
    """Answer until the input ends. `prepare` gives the work, which is then done."""
    # Libraries that print would talk into the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: object) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    say(ready=True)
    for line in iter(sys.stdin.readline, ""):
        work = prepare(json.loads(line))
        say(prepared=True)
        sys.stdin.readline()
        say(result=work())


def serve_by(pipes: Sequence[Connection]) -> None:
    """Answer until the input ends; the work is done by processes at the other ends of pipes.

    Each says once that it is ready. Told `copy`, it answers with its rows, or a text that says why
    it failed.
    """
    for pipe in pipes:
        pipe.recv()

    def copy() -> int:
        for pipe in pipes:
            pipe.send("copy")
        answers = [pipe.recv() for pipe in pipes]
        if failures := [answer for answer in answers if isinstance(answer, str)]:
            raise SystemExit(failures[0])
        return sum(answers)

    serve(lambda request: copy)
