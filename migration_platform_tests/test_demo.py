"""The demo as a newcomer runs it, on servers and in a folder of its own."""

import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from migration_platform.demo import sample_customers, sample_tenants
from migration_platform.demo.sample import COLUMNS, enrolments, users
from migration_platform.demo.sample_tenants import ORIGIN_TENANT, OTHER_TENANTS, TARGET_TENANT
from migration_platform.local.cassandra import Cassandra
from migration_platform.local.dynamodb import DynamoDb
from migration_platform.local.kafka import Kafka
from migration_platform.local.neo4j import Neo4j
from migration_platform.local.ports import free_port
from migration_platform.local.postgres import Postgres
from migration_platform.local.stack import start_all, stop
from migration_platform.local.sunbird_service import Sunbird
from migration_platform_tests.servers import jars_folder


def test_two_sample_sets_with_one_seed_are_the_same_row_for_row():
    first, second = list(enrolments(3_000, seed=7)), list(enrolments(3_000, seed=7))
    assert first == second
    assert first != list(enrolments(3_000, seed=8))


def test_sample_rows_have_keys_of_their_own_and_known_columns():
    rows = list(enrolments(5_000))
    keys = {(row["userid"], row["courseid"], row["batchid"]) for row in rows}
    assert len(keys) == len(rows) == 5_000
    assert {column for row in rows for column in row} <= {name for name, _ in COLUMNS}


def test_a_larger_sample_begins_with_users_of_the_same_ids():
    users = [row["userid"] for row in islice(enrolments(2_000), 100)]
    assert users == [row["userid"] for row in islice(enrolments(4_000), 100)]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_tiny_sample_has_as_many_rows_as_asked_for(count: int):
    assert len(list(enrolments(count))) == count


def test_sample_users_have_time_based_ids_of_their_own_that_are_the_same_in_every_run():
    rows = list(users(5_000))
    assert rows == list(users(5_000))
    assert len({user_id for user_id, _, _ in rows}) == 5_000
    assert {user_id.version for user_id, _, _ in rows} == {1}
    assert rows[4_999][1:] == ("User4999", "user4999@example.com")
    assert rows[0] != next(users(1, seed=2))


def test_sample_customers_are_the_same_in_every_run_and_every_column_is_sometimes_null():
    rows = list(sample_customers.customers(3_000, seed=7))
    assert rows == list(sample_customers.customers(3_000, seed=7))
    assert rows[:10] != list(sample_customers.customers(10, seed=8))
    assert len({(row["account_id"], row["customer_id"]) for row in rows}) == len(rows) == 3_000
    columns = {name for name, _ in sample_customers.COLUMNS}
    assert columns == {column for row in rows for column in row}
    full = {name for name in columns if all(name in row for row in rows)}
    assert full == set(sample_customers.ALWAYS_KNOWN)
    assert any("🌸" in row["name"] for row in rows)
    names = {row["account_id"]: row["account_name"] for row in rows}
    assert all(row["account_name"] == names[row["account_id"]] for row in rows)
    assert len(names) < len(rows)


def test_two_sets_of_tenants_with_one_seed_are_the_same_and_have_the_columns_of_the_tables():
    made = {
        "organisation": sample_tenants.organisations,
        "user": lambda seed: sample_tenants.tenant_users(300, seed),
        "user_org": lambda seed: sample_tenants.associations(300, seed),
        "course_batch": lambda seed: sample_tenants.course_batches(20, seed),
    }
    for table, make in made.items():
        rows = list(make(3))
        assert rows == list(make(3))
        assert rows != list(make(4))
        assert len({row["id"] for row in rows}) == len(rows)
        assert {name for row in rows for name in row} <= set(sample_tenants.TABLES[table][0])
        assert len(rows) == sample_tenants.count_rows(300)[table]
    nodes = list(sample_tenants.content_nodes(100))
    assert nodes == list(sample_tenants.content_nodes(100))
    assert len({node["IL_UNIQUE_ID"] for node in nodes}) == 100


def test_two_hundred_users_are_enough_for_every_hard_case_of_a_move():
    of_user: dict[str, list[str]] = {user["id"]: [] for user in sample_tenants.tenant_users(200)}
    associations = list(sample_tenants.associations(200))
    for row in associations:
        of_user[row["userid"]].append(row["organisationid"])
    people = {user["id"]: user for user in sample_tenants.tenant_users(200)}
    joined = [(people[user]["rootorgid"], organisations) for user, organisations in of_user.items()]
    assert any(ORIGIN_TENANT in each and TARGET_TENANT in each for _, each in joined)
    assert any(root in OTHER_TENANTS and ORIGIN_TENANT in each for root, each in joined)
    assert any(root == ORIGIN_TENANT and not each for root, each in joined)
    assert any(user["isdeleted"] and user["rootorgid"] == ORIGIN_TENANT for user in people.values())
    assert any(row["isdeleted"] and row["organisationid"] == ORIGIN_TENANT for row in associations)
    lists = [row.get("createdfor") for row in sample_tenants.course_batches(20)]
    assert None in lists
    assert [ORIGIN_TENANT, TARGET_TENANT] in lists
    assert any(each and each.count(ORIGIN_TENANT) == 2 for each in lists)
    assert any(
        each and each.index(ORIGIN_TENANT) > 0 for each in lists if ORIGIN_TENANT in (each or ())
    )


def run_demo(home: Path, *options: str) -> str:
    """Run the command as somebody whose own AWS profile does not work; gives what it said."""
    environment = {
        **os.environ,
        "AWS_PROFILE": "expired",
        "MIGRATION_PLATFORM_HOME": str(home),
        "MIGRATION_PLATFORM_JARS": str(jars_folder()),
        "DAGSTER_HOME": str(home / "dagster"),
    }
    done = subprocess.run(
        [Path(sys.executable).parent / "migration-platform", "demo", *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1_200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_tenant_moved(said: str, home: Path, users: int):
    told = re.findall(r"^ +\d (\w+) +(\d+) of +(\d+)   (\d) of (\d) checks passed", said, re.M)
    steps = (
        "users user_organisations course_batches search_users search_batches organisation content"
    )
    assert [line[0] for line in told] == steps.split()
    assert all(done == planned and passed == checks for _, done, planned, passed, checks in told)
    moved = {
        user["id"]
        for user in sample_tenants.tenant_users(users)
        if user["rootorgid"] == ORIGIN_TENANT
    }
    assert told[0][1] == str(len(moved))
    folder = home / "dagster" / "tenant_moves" / "tenant_rajasthan"
    assert set((folder / "user_migration.csv").read_text().split()) == moved
    assert re.search(rf"user +{len(moved)} -> 0 +50 -> {50 + len(moved)}$", said, re.M)
    assert "local-sunbird" not in said + (home / "demo-tenant.log").read_text()


def assert_customers_moved(said: str, count: int):
    assert f"check row_counts_match  passed: {count:,} rows on both sides." in said
    assert f"check all_ranges_match  passed: All 64 ranges match: {count:,} rows.\n" in said
    assert "/assets/postgres/shop/customer" in said
    expected = Counter(
        row["country"]
        for row in sample_customers.customers(count)
        if "vip" in row.get("tags", ()) and row.get("preferences", {}).get("newsletter") == "weekly"
    )
    answered = re.findall(r"^ +([A-Z]{2}) +\| +(\d+) \| +\d+ \| +[-\d,.]* \| \S", said, re.M)
    assert {country: int(customers) for country, customers in answered} == expected
    assert len(expected) > 1


def assert_followed(said: str):
    told = re.findall(r"^ +[\d,]+ changes told   ([\d,]+) behind", said, re.M)
    lags = [int(found.replace(",", "")) for found in told]
    assert len(lags) > 5
    assert max(lags) > 0
    assert lags[-1] == 0
    assert re.search(r"^  changes +1,200: \d+ learned on, \d+ enrolled, \d+ left$", said, re.M)
    for name in ("row_counts_match", "all_ranges_match", "sync_is_fresh", "no_dead_letters"):
        assert re.search(rf"^  check {name} +passed: ", said, re.M), name
    assert "_live_enrolments_sync" in said


@pytest.mark.timeout(1_500)
def test_the_demo_migrates_proves_and_sums_up_and_a_second_one_reuses_what_is_there(tmp_path: Path):
    servers = Cassandra(), Kafka(), DynamoDb(), Postgres(), Neo4j(), Sunbird()
    try:
        # Ports that were chosen before are the ones that the demo finds and uses.
        ports = {server.name: free_port() for server in servers}
        start_all(servers, home=tmp_path, ports=ports, jars_folder=jars_folder())
        counts = {
            "enrolments": 2000,
            "users": 3000,
            "customers": 1000,
            "tenant-users": 200,
            "live-enrolments": 1000,
        }
        options = [text for name, count in counts.items() for text in (f"--{name}", str(count))]
        first = run_demo(tmp_path, *options)
        assert "check row_counts_match  passed: 2,000 rows on both sides." in first
        assert (
            "check all_ranges_match  passed: All 64 ranges match: 2,000 rows, each cell with its "
            "writetime and TTL." in first
        )
        assert '"id": "total-records-migrated", "value": 2000' in first
        assert "make ui" in first
        assert "\r" not in first

        assert "2,000 written to the target" in first
        assert "rows a second" in first

        assert "check row_counts_match  passed: 3,000 rows on both sides." in first
        assert "check all_ranges_match  passed: All 64 ranges match: 3,000 rows." in first
        assert "/assets/dynamodb/UsersTable" in first

        assert_customers_moved(first, 1_000)

        assert_tenant_moved(first, tmp_path, users=200)

        assert_followed(first[first.index("Filling sunbird_courses.live_enrolments") :])

        # DynamoDB Local forgets its tables when it ends.
        stop("dynamodb", home=tmp_path)
        start_all([DynamoDb()], home=tmp_path, ports=ports, jars_folder=jars_folder())
        second = run_demo(tmp_path, "--job", "users", "--users", "3000")
        assert "3,000 users are there already" in second
        assert "check all_ranges_match  passed: All 64 ranges match: 3,000 rows." in second
        assert "enrolments" not in second
    finally:
        for server in servers:
            stop(server.name, home=tmp_path)
