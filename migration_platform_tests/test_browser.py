"""What a user sees in Dagster's UI: a real browser against the UI and the daemon of a project."""

import json
import os
import re
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cassandra.cluster import Session
from playwright.sync_api import Browser, Page, sync_playwright

from migration_platform.local.ports import LOCALHOST, free_port
from migration_platform.local.stack import Running
from migration_platform.stores.cassandra.connection import Connection
from migration_platform_tests.dagster_project import (
    DAGSTERS_OWN_WARNINGS,
    DG,
    KEYS,
    ROWS,
    Move,
    Output,
    begin_move,
    end_tree,
    wait_until,
)
from migration_platform_tests.tables import create_keyspace

pytestmark = DAGSTERS_OWN_WARNINGS

CHROMIUM = Path("/usr/bin/chromium")
PATIENCE_MS = 60_000
"""A page of the UI is there within two seconds; a busy machine takes longer."""


@pytest.fixture(scope="module")
def moved(
    tmp_path_factory: pytest.TempPathFactory,
    cassandra: Running,
    kafka: Running,
    connection: Connection,
    reader: Session,
) -> Iterator[Move]:
    """A migration whose full run has ended."""
    keyspace = f"t_{uuid.uuid4().hex[:12]}"
    create_keyspace(connection, keyspace)
    folder = tmp_path_factory.mktemp("browser")
    move = begin_move(folder, keyspace, connection, reader, (cassandra.port, kafka.port))
    move.project.run().assert_success()
    yield move
    connection.session.execute(f"DROP KEYSPACE {keyspace}", timeout=60)


@pytest.fixture(scope="module")
def site(moved: Move) -> Iterator[str]:
    """The address of the project's UI, with its daemon."""
    port = free_port()
    process = moved.project.start(
        str(DG.with_name("dagster")), "dev", "-h", LOCALHOST, "-p", str(port),
        "-m", f"{moved.project.module}.definitions",
    )  # fmt: skip
    output = Output(process)
    try:
        wait_until(
            lambda: "Serving dagster-webserver" in output.text or process.poll() is not None,
            180,
            "the UI is there",
        )
        assert process.poll() is None, output.text
        yield f"http://{LOCALHOST}:{port}"
    finally:
        end_tree(process)
        output.close()


@pytest.fixture(scope="module")
def browser(site: str) -> Iterator[Browser]:
    """A browser; it comes after the project's run, which would see Playwright's event loop."""
    if not CHROMIUM.exists():
        pytest.fail(f"There is no {CHROMIUM}; install it with: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, site: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page in a light and a dark theme; an error in it fails the test."""
    context = browser.new_context(
        base_url=site, viewport={"width": 1440, "height": 1000}, color_scheme=request.param
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    # Where to look when a test fails: set it to a folder.
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{request.node.name}.png", full_page=True)
    context.close()
    assert errors == []


def address(move: Move, view: str = "overview", **more: str) -> str:
    extra = "".join(f"&{name}={value}" for name, value in more.items())
    return f"/assets/{move.target.to_user_string()}?view={view}{extra}"


def test_the_tables_page_tells_what_it_is_and_shows_the_ring(page: Page, moved: Move) -> None:
    page.goto(address(moved))

    page.get_by_text("copied from").wait_for()
    text = page.inner_text("body")
    assert f"{moved.keyspace}.{moved.target_name} in reports, copied from" in text
    assert "8, by the token of the origin's partition key" in text
    assert "batchid" in text
    assert "partition key" in text
    assert f"{ROWS}" in text
    assert "🟩" * len(KEYS) in text
    page.get_by_text("[Show Markdown]").first.click()
    ring = page.get_by_alt_text("the ring of ranges")
    ring.wait_for()
    assert ring.evaluate("image => image.decode().then(() => image.naturalWidth)") == 640
    assert ring.is_visible()
    page.get_by_role("button", name="Close").click()
    page.get_by_text("[Show Markdown]").nth(1).click()
    page.get_by_text("one cell at the target: the newest and longest").first.wait_for()
    assert "no query tells a marker's" in page.inner_text("body")


def test_the_partitions_page_shows_each_ranges_colour_and_numbers(page: Page, moved: Move) -> None:
    page.goto(address(moved, "partitions", partition=KEYS[3]))

    page.get_by_text("rows_written").wait_for()
    text = page.inner_text("body")
    assert "Materialized (8)" in text
    assert "Failed (0)" in text
    assert all(key in text for key in KEYS)
    rows = len(moved.origin_rows(KEYS[3]))
    assert re.search(rf"rows_written\s+{rows}\s", text)


def test_the_checks_page_shows_the_verdict_and_the_ring(page: Page, moved: Move) -> None:
    page.goto(address(moved, "checks", checkDetail="all_ranges_match"))

    page.get_by_text(f"All {len(KEYS)} ranges match: {ROWS} rows.").wait_for()
    text = page.inner_text("body")
    assert "row_counts_match" in text
    assert "Passed" in text
    assert "🟩" * len(KEYS) in text
    page.get_by_text("[Show Markdown]").click()
    ring = page.get_by_alt_text("the ring of ranges")
    ring.wait_for()
    assert ring.evaluate("image => image.decode().then(() => image.naturalWidth)") == 640


def ask(site: str, query: str, **variables: Any) -> dict[str, Any]:
    """Ask the UI's own interface."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{site}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found = json.load(answer)
    assert "errors" not in found, found
    return found["data"]


def test_a_backfill_from_the_ui_copies_all_ranges_in_one_run_and_succeeds(
    site: str, moved: Move
) -> None:
    # As the dialog behind "Materialize all" sends it; the daemon does the rest.
    moved.execute("TRUNCATE {target}")
    keys = [{"path": list(key.path)} for key in (moved.target, moved.diff)]
    launched = ask(
        site,
        """mutation($params: LaunchBackfillParams!) {
            launchPartitionBackfill(backfillParams: $params) {
                __typename ... on LaunchBackfillSuccess { backfillId }
            }
        }""",
        params={"assetSelection": keys, "partitionNames": KEYS},
    )
    backfill = launched["launchPartitionBackfill"]["backfillId"]

    def ended() -> dict[str, Any] | None:
        found = ask(
            site,
            """query($id: String!) {
                partitionBackfillOrError(backfillId: $id) {
                    ... on PartitionBackfill { status runs { status } error { message } }
                }
            }""",
            id=backfill,
        )["partitionBackfillOrError"]
        return found if found["status"] != "REQUESTED" else None

    # The daemon looks at backfills every 30 s.
    found = wait_until(ended, 300, "the backfill has ended")

    assert found["error"] is None
    assert found["status"] == "COMPLETED_SUCCESS"
    assert found["runs"] == [{"status": "SUCCESS"}]
    moved.assert_same_rows()
