"""The page of launches says when the first row came, and where the time went."""

from benchmarks.launch import QUESTIONS, UI, WITH, Launched, Launching, make_page

MARKS = {"run begins": 2.0, "step begins": 2.5, "step ends": 6.0, "run ends": 6.5}


def launched(how: str, ranges: int, first_row: float) -> Launched:
    return Launched(ranges, how, first_row, 7.0, MARKS, 5.0, 1.0, 126, 1.5)


def test_runs_are_shown_by_kind_and_ranges_with_their_spread() -> None:
    runs = [launched(UI, 16, 4.0), launched(WITH, 64, 5.0), launched(WITH, 16, 3.0)]
    runs += [launched(WITH, 16, 4.0), launched(WITH, 16, 3.5)]
    page = make_page(Launching("python -m benchmarks.launch", 2_000, {"cores": "2"}, runs))

    lines = [line for line in page.splitlines() if line.startswith(("| `dg", "| the UI"))]
    assert lines[0] == f"| {WITH} | 16 | 3.5 (3.0 to 4.0) | 7.0 | 5.0 | 1.0 | 126 | 1.5 | 3 |"
    assert [line.split(" | ")[1] for line in lines[:3]] == ["16", "64", "16"]
    assert f"| {WITH} | 16 | 2.0 | 2.5 | 3.5 | 6.0 | 6.5 |" in page
    assert "questions" not in page


def test_the_uis_questions_have_a_column_for_each_number_of_ranges() -> None:
    question = next(iter(QUESTIONS))
    asked = {(16, question): [0.01, 0.02, 0.01], (1024, question): [0.5, 1.0, 0.5]}
    launching = Launching("c", 2_000, {"cores": "2"}, [launched(WITH, 16, 3.0)], asked)
    page = make_page(launching)

    assert "|  | 16 ranges | 1,024 ranges |" in page
    assert f"| {question} | 10.0 (10.0 to 20.0) | 500 (500 to 1,000) |" in page
