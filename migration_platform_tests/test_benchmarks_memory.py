"""The page of memory says what was measured, and how busy the machine was."""

import subprocess
import sys
from pathlib import Path

from benchmarks.memory import Memory, Peak, make_page, read_rows_compared, watch

COMMAND = "python -m benchmarks.memory --rows 100000,1000000"


def some_memory(**changes: float) -> Memory:
    peaks = [
        Peak(100_000, 20.0, 100_000, 200.0, 400.0, 8),
        Peak(1_000_000, 190.4, 1_000_000, 210.0, 440.0, 8),
    ]
    return Memory(COMMAND, {"cores": "2 of some"}, peaks, **changes)


def test_the_page_says_how_memory_grew() -> None:
    page = make_page(some_memory())

    assert "| 1,000,000 | 190 | 1,000,000 | 210 | 440 | 8 |" in page
    assert (
        "10 times the rows take 1.05 times the memory in the largest process, and 1.10 times in "
        "all together." in page
    )
    assert f"```\n{COMMAND}\n```" in page
    assert "busy" not in page
    assert "a load of 3.0 a core" in make_page(some_memory(busy=3.0))


def test_what_the_run_compared_is_read_from_its_log() -> None:
    said = "Asset check 'row_counts_match' on 'dynamodb/UsersTable' passed. Description: "
    assert read_rows_compared(f"a\n{said}'1,000,000 rows on both sides.'\n") == 1_000_000
    assert read_rows_compared("Asset check 'row_counts_match' did not pass. Description: ''") == 0


def test_the_peak_of_a_program_and_of_what_it_starts_is_seen(tmp_path: Path) -> None:
    child = "x = bytearray(150_000_000); import time; time.sleep(1); del x; time.sleep(0.5)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        largest, most, processes = watch(process)

    assert 150 < largest < 200
    assert largest < most < 300
    assert processes == 2
