"""Connections, tables and reads of DynamoDB: whole answers only, and faults in one sentence."""

import dataclasses
import datetime
import http.server
import itertools
import json
import pickle
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from migration_platform.errors import MigrationError, PermanentError, PreflightError, TransientError
from migration_platform.local.ports import LOCALHOST, free_port
from migration_platform.resources import DynamoDbResource
from migration_platform.stores.dynamodb import connection as store
from migration_platform.stores.dynamodb.connection import DynamoDb, DynamoDbSettings
from migration_platform.stores.dynamodb.reads import get_items, scan_items
from migration_platform.stores.dynamodb.session import Sdk, open_sdk
from migration_platform.stores.dynamodb.signing import API, CONTENT_TYPE, Signer
from migration_platform.stores.dynamodb.tables import (
    DynamoTable,
    Index,
    KeyAttribute,
    create_table,
    describe,
    find_table,
)
from migration_platform.stores.dynamodb.writes import ItemWriter
from migration_platform_tests.dynamodb_faults import (
    Answered,
    Asked,
    Forward,
    answer_with,
    cut_off,
    damage,
    delay,
    drop,
    fail,
    leave_unprocessed,
    refuse,
    shorten,
    swallow,
    throttle,
)
from migration_platform_tests.dynamodb_tables import (
    budget_of,
    dynamodb_settings,
    item_of,
    key_of,
    new_table,
    settings_of,
)


def fill(dynamo: DynamoDb, table: DynamoTable, count: int, value: str = "v") -> None:
    writer = ItemWriter(dynamo, table, budget=budget_of(), retry_seconds=5, on_retry=print)
    for number in range(count):
        writer.write(number, item_of(number, value), key_of(number), 1)
    writer.flush()


@pytest.fixture(scope="module")
def wide(dynamo: DynamoDb) -> DynamoTable:
    """A table of about 3.5 MB: 180 items of 20 kB."""
    table = new_table(dynamo)
    fill(dynamo, table, 180, "x" * 20_000)
    return table


# -- tables ------------------------------------------------------------------------------------


def billing_mode_of(connection: DynamoDb, table: DynamoTable) -> str:
    found = connection.administer("describe_table", TableName=table.name)["Table"]
    return found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")


def test_a_table_is_described_as_it_was_created(dynamo):
    key = (KeyAttribute("p", "B"), KeyAttribute("s", "N"))
    indexes = (
        Index("by_city", (KeyAttribute("city", "S"),), read_units=3, write_units=4),
        Index("by_s", (KeyAttribute("s", "N"), KeyAttribute("p", "B")), "KEYS_ONLY"),
        Index("some", (KeyAttribute("p", "B"),), "INCLUDE", ("a", "b")),
    )
    made = create_table(
        dynamo,
        "made.as-declared_1",
        key,
        billing_mode="PROVISIONED",
        read_units=5,
        write_units=7,
        indexes=indexes,
        ttl_attribute="expires",
    )
    assert made == describe(dynamo, "made.as-declared_1")
    assert (made.key, made.key_names) == (key, ("p", "s"))
    assert (billing_mode_of(dynamo, made), made.read_units, made.write_units) == (
        "PROVISIONED", 5, 7,
    )  # fmt: skip
    assert (made.ttl_attribute, made.status) == ("expires", "ACTIVE")
    expected = [
        dataclasses.replace(i, read_units=i.read_units or 5, write_units=i.write_units or 7)
        for i in indexes
    ]
    assert sorted(made.indexes, key=lambda i: i.name) == expected


def test_a_table_paid_per_request_has_no_units(dynamo):
    table = new_table(dynamo)
    assert (billing_mode_of(dynamo, table), table.read_units, table.write_units) == (
        "PAY_PER_REQUEST", None, None,
    )  # fmt: skip
    assert table.ttl_attribute is None
    assert find_table(dynamo, "no_such_table") is None


def test_a_table_that_is_there_is_kept_and_one_made_anew_is_another(dynamo):
    table = new_table(dynamo)
    assert create_table(dynamo, table.name, table.key) == table
    dynamo.administer("delete_table", TableName=table.name)
    time.sleep(0.01)
    assert create_table(dynamo, table.name, table.key).table_id != table.table_id


def test_a_table_is_known_again_by_what_the_service_itself_writes(dynamo):
    """Runs that were noted before find the same id, in its very characters."""
    table = new_table(dynamo)
    told = dynamo.call("DescribeTable", json.dumps({"TableName": table.name}))["Table"]
    assert table.table_id in (
        told.get("TableId"),
        f"{told['TableArn']} {told['CreationDateTime']}",
    )


def test_a_table_that_is_deleted_while_it_is_described_is_none(faulty, through):
    table = new_table(through)
    faulty.suffer("DescribeTimeToLive", [refuse("ResourceNotFoundException")])
    assert find_table(through, table.name) is None


def as_creating(asked: Asked, forward: Forward) -> Answered:
    told = json.loads(forward(asked.body).content)
    told["Table"]["TableStatus"] = "CREATING"
    return answer_with(200, told)


def test_a_new_table_is_waited_for(faulty, through):
    faulty.suffer("DescribeTable", [as_creating, refuse("ResourceNotFoundException")])
    reported = []
    table = create_table(through, "awaited", [KeyAttribute("id", "S")], report=reported.append)
    assert reported == ["CREATING", "CREATING"]
    assert table.status == "ACTIVE"


def test_the_wait_for_a_table_ends(faulty, through):
    faulty.suffer("DescribeTable", [], then=as_creating)
    with pytest.raises(PreflightError, match="cannot create the table slow: it is still CREATING"):
        create_table(through, "slow", [KeyAttribute("id", "S")], wait_seconds=0.2)


def test_a_creation_whose_answer_was_lost_is_no_fault(faulty, through):
    faulty.suffer("CreateTable", [swallow])
    assert create_table(through, "lost", [KeyAttribute("id", "S")]).status == "ACTIVE"


@pytest.mark.parametrize("fault", [throttle, fail, drop, swallow, cut_off, damage, shorten])
@pytest.mark.parametrize("operation", ["DescribeTable", "DescribeTimeToLive"])
def test_a_description_is_whole_or_asked_for_again(faulty, through, operation, fault):
    table = new_table(through)
    faulty.suffer(operation, [fault, fault])
    assert find_table(through, table.name, retry_seconds=10) == table


@pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])
def test_the_sdk_itself_tries_nothing_again(faulty, dynamo, monkeypatch, mode):
    table = new_table(dynamo)
    monkeypatch.setenv("AWS_RETRY_MODE", mode)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "7")
    with settings_of(faulty.url).connect() as connection:
        for fault in (throttle, fail, drop, damage):
            faulty.asked.clear()
            faulty.suffer("DescribeTable", [], then=fault)
            with pytest.raises(TransientError):
                find_table(connection, table.name)
            assert len(faulty.asked) == 1


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (Answered(200, {}, b"<html>"), "an answer of http://.* was cut off"),
        (Answered(200, {}, b"[]"), "an answer of http://.* was cut off"),
        (Answered(200, {}, b'{"Table": {"TableName": "\xff"}}'), "an answer of .* was cut off"),
        (Answered(301, {"Location": "http://127.0.0.1:1"}, b""), "HTTP 301 and is no DynamoDB"),
        (Answered(400, {}, b"[]"), "HTTP 400 and is no DynamoDB endpoint"),
        (Answered(400, {}, b'{"__type": 5}'), "HTTP 400 and is no DynamoDB endpoint"),
        (Answered(403, {}, b"<html>"), "HTTP 403 and is no DynamoDB endpoint"),
        (Answered(413, {}, b""), "the request: it is too large"),
        (Answered(503, {}, b"<html>"), "answered HTTP 503"),
    ],
)
def test_what_is_no_answer_of_dynamodb_is_told_in_one_sentence(faulty, through, told, sentence):
    faulty.suffer("DescribeTable", [], then=lambda asked, forward: told)
    with pytest.raises(PreflightError, match=f"^cannot describe the table t: .*{sentence}"):
        describe(through, "t")


@pytest.mark.parametrize(
    ("code", "message", "sentence"),
    [
        ("AccessDeniedException", "arn:x may not", "the user lacks a permission: arn:x may not"),
        ("ValidationException", "too short", "the server said: ValidationException: too short"),
        ("SubscriptionRequiredException", "", "does not accept these credentials"),
    ],
)
def test_a_table_that_may_not_be_made_says_why_in_one_sentence(
    faulty, through, code, message, sentence
):
    faulty.suffer("CreateTable", [], then=refuse(code, message))
    with pytest.raises(PreflightError, match=f"^cannot create the table t: .*{sentence}"):
        create_table(through, "t", [KeyAttribute("id", "S")])
    assert len(faulty.of("CreateTable")) == 1


# -- scans -------------------------------------------------------------------------------------


def scan(dynamo, table, segment=0, total_segments=1, *, budget=None, retries=None, **options):
    return scan_items(
        dynamo,
        table,
        segment=segment,
        total_segments=total_segments,
        budget=budget or budget_of(),
        retry_seconds=10,
        on_retry=(retries if retries is not None else []).append,
        **options,
    )


def ids_in(pages) -> list[int]:
    return sorted(int(item["id"]["S"]) for page in pages for item in page)


def test_a_scan_gives_pages_of_1_mb_with_each_item_once(faulty, through, wide):
    pages = list(scan(through, wide))
    assert len(pages) == 4
    assert ids_in(pages) == list(range(180))
    assert {asked.body["ConsistentRead"] for asked in faulty.of("Scan")} == {True}


def test_segments_together_give_each_item_once(dynamo, wide):
    segments = [list(scan(dynamo, wide, segment, 3)) for segment in range(3)]
    assert sum(1 for pages in segments if pages) > 1
    assert ids_in(itertools.chain(*segments)) == list(range(180))


@pytest.mark.parametrize("fault", [throttle, fail, drop, swallow, cut_off, damage, shorten])
def test_a_page_that_fails_is_neither_skipped_nor_doubled(faulty, through, wide, fault):
    faulty.suffer("Scan", [fault, fault, *[lambda a, f: f(a.body), fault] * 3])
    retries: list[BaseException] = []
    assert ids_in(scan(through, wide, retries=retries)) == list(range(180))
    assert len(retries) == 5


def test_a_scan_of_some_attributes_sends_no_others(dynamo, wide):
    pages = list(scan(dynamo, wide, attributes=["id"]))
    assert ids_in(pages) == list(range(180))
    assert {tuple(item) for page in pages for item in page} == {("id",)}


def test_a_scan_of_an_empty_table_gives_no_page(dynamo):
    assert list(scan(dynamo, new_table(dynamo))) == []


def test_a_read_budget_counts_what_was_consumed(faulty, through, wide):
    # A page of 1 MB is 250 units, strongly consistent.
    budget = budget_of(size=1000)
    assert ids_in(scan(through, wide, budget=budget)) == list(range(180))
    times = [asked.at for asked in faulty.of("Scan")]
    assert len(times) == 4
    assert times[-1] - times[1] > 0.35


def test_a_scan_that_never_succeeds_ends(faulty, through, wide):
    faulty.suffer("Scan", [lambda a, f: f(a.body)], then=throttle)
    pages = scan_items(
        through, wide, segment=0, total_segments=1, budget=budget_of(), retry_seconds=0.3,
        on_retry=lambda error: None,
    )  # fmt: skip
    assert len(next(pages)) > 40
    with pytest.raises(TransientError, match=r"ProvisionedThroughputExceeded.* tries in"):
        next(pages)


# -- reads by key ------------------------------------------------------------------------------


def read(dynamo, table, numbers, retries=None):
    return get_items(
        dynamo,
        table,
        ((f"mark {number}", key_of(number)) for number in numbers),
        budget=budget_of(),
        retry_seconds=10,
        on_retry=(retries if retries is not None else []).append,
    )


WANTED = [7, 3, 7, 999, *range(170), 7]


@pytest.mark.parametrize(
    "fault",
    [
        throttle, drop, cut_off, shorten, lambda asked, forward: forward(asked.body),
        leave_unprocessed(60), leave_unprocessed(100),
    ],
)  # fmt: skip
def test_items_come_in_the_order_of_their_keys(faulty, through, wide, fault):
    faulty.suffer("BatchGetItem", [fault] * 3)
    found = list(read(through, wide, WANTED))
    assert [mark for mark, _ in found] == [f"mark {number}" for number in WANTED]
    assert [item and int(item["id"]["S"]) for _, item in found] == [
        number if number < 180 else None for number in WANTED
    ]
    for asked in faulty.of("BatchGetItem"):
        (wanted,) = asked.body["RequestItems"].values()
        keys = [key["id"]["S"] for key in wanted["Keys"]]
        assert wanted["ConsistentRead"]
        assert len(keys) <= 100
        assert len(set(keys)) == len(keys)


def test_items_of_more_than_16_mb_are_all_read(dynamo):
    table = new_table(dynamo)
    fill(dynamo, table, 50, "x" * 390_000)
    found = list(read(dynamo, table, range(50)))
    assert all(item is not None for _, item in found)


def test_a_key_that_is_a_number_is_found_however_it_is_written(dynamo):
    table = new_table(dynamo, [KeyAttribute("n", "N")])
    writer = ItemWriter(dynamo, table, budget=budget_of(), retry_seconds=5, on_retry=print)
    writer.write(1, '{"n":{"N":"1E+2"}}', '{"n":{"N":"1E+2"}}', 1)
    writer.flush()
    keys = [(text, json.dumps({"n": {"N": text}})) for text in ("100.0", "1E2", "101")]
    found = get_items(dynamo, table, keys, budget=budget_of(), retry_seconds=5, on_retry=print)
    assert [item is not None for _, item in found] == [True, True, False]


def test_numbers_that_differ_in_their_last_digit_are_two_keys(dynamo):
    table = new_table(dynamo, [KeyAttribute("n", "N")])
    texts = ["7" * 37 + last for last in "12"]
    writer = ItemWriter(dynamo, table, budget=budget_of(), retry_seconds=5, on_retry=print)
    for text in texts:
        writer.write(text, f'{{"n":{{"N":"{text}"}}}}', f'{{"n":{{"N":"{text}"}}}}', 1)
    writer.flush()
    keys = [(text, json.dumps({"n": {"N": text}})) for text in texts]
    found = get_items(dynamo, table, keys, budget=budget_of(), retry_seconds=5, on_retry=print)
    assert [item and item["n"]["N"] for _, item in found] == texts


def test_reads_by_key_that_never_succeed_end(faulty, through, wide):
    faulty.suffer("BatchGetItem", [], then=leave_unprocessed(100))
    keys = [(None, key_of(1))]
    found = get_items(
        through, wide, keys, budget=budget_of(), retry_seconds=0.3, on_retry=lambda error: None
    )
    with pytest.raises(TransientError, match="left all keys of a request unprocessed, after"):
        next(found)


# -- connections -------------------------------------------------------------------------------

TOKEN = "the-secret-token"
SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. The Canonical "
    f"String for this request should have been 'POST / x-amz-security-token:{TOKEN}'"
)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (refuse("UnrecognizedClientException"), "does not accept these credentials"),
        (refuse("InvalidSignatureException", SIGNATURE), "the secret key does not belong to"),
        (
            refuse("InvalidSignatureException", "Signature expired: 2026 is now earlier than"),
            "this machine's clock is wrong",
        ),
        (
            refuse("InvalidSignatureException", "Credential should be scoped to a valid region"),
            "the endpoint is not in region local; check the store's region",
        ),
        (refuse("ExpiredTokenException"), "the AWS session has expired; sign in again"),
        (drop, "the connection to .* broke"),
        (fail, "InternalServerError: sorry"),
        (lambda asked, forward: Answered(404, {}, b"<html>"), "is no DynamoDB endpoint; check"),
        (lambda asked, forward: Answered(502, {}, b"<html>"), "answered HTTP 502"),
    ],
)
def test_a_connection_that_fails_says_why_in_one_sentence(faulty, fault, sentence):
    faulty.suffer("ListTables", [], then=fault)
    with pytest.raises(PreflightError, match=sentence) as caught:
        settings_of(faulty.url).connect()
    assert str(caught.value).startswith("cannot connect to DynamoDB: ")
    assert TOKEN not in str(caught.value)


def test_who_may_not_list_tables_may_still_use_one(faulty, dynamo):
    table = new_table(dynamo)
    faulty.suffer("ListTables", [], then=refuse("AccessDeniedException"))
    with settings_of(faulty.url).connect() as restricted:
        assert describe(restricted, table.name) == table


def test_a_table_that_is_missing_is_named_with_its_region(dynamo):
    with pytest.raises(PreflightError, match="no table nowhere in region local at http://127"):
        describe(dynamo, "nowhere")


def test_a_service_that_is_down_is_named(dynamodb):
    with pytest.raises(PreflightError, match=r"http://127.* cannot be reached; check the store's"):
        settings_of(f"http://{LOCALHOST}:{free_port()}").connect()


@pytest.mark.parametrize(
    ("settings", "environment", "sentence"),
    [
        (DynamoDbSettings("http://127.0.0.1:1"), {}, "no AWS region is known; set the store's"),
        (settings_of("http://127.0.0.1:x"), {}, r"endpoint_url is 'http://127.0.0.1:x'; give it"),
        (settings_of("127.0.0.1:1"), {}, r"endpoint_url is '127.0.0.1:1'; give it as http\(s\)"),
        (
            settings_of("http://127.0.0.1:1"),
            {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
            "there are no AWS credentials; set the store's profile, or AWS_PROFILE",
        ),
        (
            settings_of("http://127.0.0.1:1"),
            {"AWS_SECRET_ACCESS_KEY": None},
            "the AWS credentials lack a part",
        ),
        (settings_of("http://127.0.0.1:1", profile="x"), {}, "there is no AWS profile 'x'; add it"),
    ],
)
def test_settings_that_lack_something_say_what(
    aws_environment, monkeypatch, settings, environment, sentence
):
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(PreflightError, match=sentence):
        settings.connect()


def test_endpoint_region_and_credentials_come_from_where_the_sdk_looks(
    dynamodb, faulty, monkeypatch, tmp_path
):
    config = tmp_path / "config"
    config.write_text(
        f"[profile mine]\nregion = eu-somewhere-1\nendpoint_url = {faulty.url}\n"
        "aws_access_key_id = FROMFILE\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    with DynamoDbResource(profile="mine").connect() as dynamo:
        assert (dynamo.endpoint_url, dynamo.region) == (faulty.url, "eu-somewhere-1")
    assert {asked.access_key for asked in faulty.asked} == {"FROMFILE"}


def test_a_proxy_of_the_environment_is_used(faulty, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", faulty.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with settings_of("http://dynamodb.invalid:8000").connect():
        assert len(faulty.of("ListTables")) == 1


def test_a_line_that_cannot_be_opened_is_named(faulty, monkeypatch):
    with pytest.raises(PreflightError, match="speaks no TLS; its endpoint_url is http://"):
        settings_of(faulty.url.replace("http:", "https:")).connect()
    with pytest.raises(PreflightError, match=r"the name of http://dynamodb\.invalid is not known"):
        settings_of("http://dynamodb.invalid").connect()
    faulty.suffer("ListTables", [], then=delay(1))
    with pytest.raises(PreflightError, match=r"did not answer within 0\.3 s"):
        settings_of(faulty.url, read_timeout_seconds=0.3).connect()
    monkeypatch.setenv("HTTP_PROXY", f"http://me:s3cret@{LOCALHOST}:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    proxy = "the proxy for http://dynamodb.invalid cannot be reached; see HTTPS_PROXY"
    with pytest.raises(PreflightError, match=proxy) as caught:
        settings_of("http://dynamodb.invalid").connect()
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_tables_are_asked_about_where_items_are_written(aws_environment, monkeypatch):
    """An address with the account's number in it is one that a firewall may not know."""
    monkeypatch.setenv("AWS_ACCOUNT_ID", "123456789012")
    monkeypatch.setenv("AWS_ENABLE_ENDPOINT_DISCOVERY", "true")
    sdk = open_sdk(
        endpoint_url=None, region="eu-west-1", profile=None, role_arn=None,
        connect_timeout_seconds=1, read_timeout_seconds=1,
    )  # fmt: skip
    addresses = []

    def end(request: AWSPreparedRequest, **_: object) -> None:
        addresses.append(request.url)
        raise ConnectionError

    sdk.client.meta.events.register("before-send.dynamodb", end)
    for operation in ("describe_table", "create_table", "update_time_to_live"):
        with pytest.raises(ConnectionError):
            getattr(sdk.client, operation)(TableName="t")
    sdk.client.close()
    assert set(addresses) == {"https://dynamodb.eu-west-1.amazonaws.com/"}
    assert sdk.client.meta.endpoint_url == "https://dynamodb.eu-west-1.amazonaws.com"


PROXY = "the proxy that HTTPS_PROXY or HTTP_PROXY names is no URL; .* percent-encoded"


@pytest.mark.parametrize(
    "proxy",
    ["http://me:s3cr/et@127.0.0.1:9", "http://me:s3cr#et@127.0.0.1:9", "http://me:[s3cr@127.0.0.1",
     "http://me:s3cr@127.0.0.1:99999"],
)  # fmt: skip
def test_a_proxy_that_is_no_url_is_not_shown(aws_environment, monkeypatch, proxy):
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(PreflightError, match=PROXY) as caught:
        settings_of("http://dynamodb.invalid:8000").connect()
    assert "s3cr" not in "".join(traceback.format_exception(caught.value))


def test_a_proxy_that_is_no_url_is_not_shown_by_whoever_assumes_a_role(faulty, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cr/et@127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://sts.invalid")
    with pytest.raises(PreflightError, match=PROXY) as caught:
        settings_of(faulty.url, role_arn="arn:aws:iam::123456789012:role/migration").connect()
    assert "s3cr" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("url", ["http://me:s3cr@h", "http://me:s3/cr@h", "me:s3cr@h:8000"])
def test_an_endpoint_with_a_password_is_refused_and_not_shown(aws_environment, monkeypatch, url):
    sentence = "endpoint_url holds a user or a password; give it as http"
    with pytest.raises(PreflightError, match=sentence) as caught:
        settings_of(url)
    assert "s3" not in str(caught.value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    with pytest.raises(PreflightError, match="endpoint_url") as caught:
        DynamoDbSettings(region="local").connect()
    assert "s3" not in "".join(traceback.format_exception(caught.value))


def test_an_expired_session_is_renewed_once(faulty, through, monkeypatch):
    table = new_table(through)
    old = refuse("ExpiredTokenException")

    def expire(asked: Asked, forward: Forward) -> Answered | None:
        return forward(asked.body) if asked.access_key == "NEW" else old(asked, forward)

    faulty.fault = expire
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEW")
    assert describe(through, table.name) == table
    faulty.fault = old
    with pytest.raises(PreflightError, match="the AWS session has expired"):
        describe(through, table.name)


def test_threads_whose_session_expired_renew_it_once(faulty, through, wide, monkeypatch):
    old = refuse("ExpiredTokenException")
    faulty.fault = lambda asked, forward: (
        forward(asked.body) if asked.access_key == "NEW" else old(asked, forward)
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NEW")
    opened = []

    def count(**settings: Any) -> Sdk:
        opened.append(settings)
        return open_sdk(**settings)

    monkeypatch.setattr(store, "open_sdk", count)
    found = list(read(through, wide, range(180)))
    assert all(item is not None for _, item in found)
    assert find_table(through, wide.name) == wide
    assert len(opened) == 1


ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>ROLE{number}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>
<SessionToken>t</SessionToken><Expiration>{expiry}</Expiration></Credentials><AssumedRoleUser>
<AssumedRoleId>i</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/s</Arn></AssumedRoleUser>
</AssumeRoleResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>
</AssumeRoleResponse>"""
DENIED = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender
</Type><Code>AccessDenied</Code><Message>may not assume it</Message></Error></ErrorResponse>"""


@contextmanager
def security_token_service(lifetimes: list[int]) -> Iterator[str]:
    """Answers AssumeRole with sessions of these lifetimes in seconds, and refuses then."""
    count = itertools.count(1)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            number = next(count)
            granted = number <= len(lifetimes)
            content = DENIED
            if granted:
                ends = time.time() + lifetimes[number - 1]
                expiry = datetime.datetime.fromtimestamp(ends, datetime.UTC).isoformat()
                content = ASSUMED.format(number=number, expiry=expiry)
            self.send_response(200 if granted else 403)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((LOCALHOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://{LOCALHOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_role_is_assumed_and_anew_when_it_expires(faulty, monkeypatch):
    role = "arn:aws:iam::123456789012:role/migration"
    with security_token_service([60, 3600]) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        with settings_of(faulty.url, role_arn=role).connect() as dynamo:
            dynamo.call("ListTables", "{}")
        assert {asked.access_key for asked in faulty.asked} == {"ROLE1", "ROLE2"}
        with pytest.raises(PreflightError, match=f"cannot assume the role {role}: AccessDenied"):
            settings_of(faulty.url, role_arn=role).connect()


def test_a_role_is_assumed_once_for_tables_and_items(faulty, wide, monkeypatch):
    role = "arn:aws:iam::123456789012:role/migration"
    with security_token_service([3600]) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        with settings_of(faulty.url, role_arn=role).connect() as dynamo:
            assert describe(dynamo, wide.name) == wide
            assert len(list(read(dynamo, wide, range(3)))) == 3
    assert {asked.operation for asked in faulty.asked} >= {"DescribeTable", "BatchGetItem"}
    assert {asked.access_key for asked in faulty.asked} == {"ROLE1"}


def test_a_role_is_assumed_anew_for_tables_and_for_items(faulty, wide, monkeypatch):
    # Each of these sessions is about to end, and is renewed before the next request.
    with security_token_service([60] * 9) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        role = "arn:aws:iam::123456789012:role/migration"
        with settings_of(faulty.url, role_arn=role).connect() as dynamo:
            for _ in range(2):
                assert find_table(dynamo, wide.name) == wide
                assert len(list(read(dynamo, wide, range(3)))) == 3
    users = [asked.access_key for asked in faulty.asked]
    assert len(users) == len(set(users)) == 7


def test_what_was_found_shows_no_secret(aws_environment, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    sdk = open_sdk(
        endpoint_url=None, region="local", profile=None, role_arn=None,
        connect_timeout_seconds=1, read_timeout_seconds=1,
    )  # fmt: skip
    sdk.client.close()
    shown = f"{sdk!r} {sdk} {sdk.client!r} {vars(sdk)}"
    assert "s3cret" not in shown
    assert TOKEN not in shown


def test_a_session_that_has_expired_when_it_is_given_says_so(faulty, monkeypatch):
    with security_token_service([-60] * 9) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        role = "arn:aws:iam::123456789012:role/migration"
        with pytest.raises(PreflightError, match="the AWS session has expired; sign in again"):
            settings_of(faulty.url, role_arn=role).connect()


def test_whatever_ends_a_connection_at_its_start_closes_it(faulty, monkeypatch):
    pools = []
    open_pool = store._open_pool

    def keep(*arguments):
        pools.append(open_pool(*arguments))
        return pools[0]

    def fail(*_: object, **parameters: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "_open_pool", keep)
    monkeypatch.setattr(DynamoDb, "administer", fail)
    with pytest.raises(KeyboardInterrupt):
        settings_of(faulty.url).connect()
    assert pools[0][0].pool is None


def test_settings_travel_to_other_processes_and_hold_no_secret():
    settings = DynamoDbResource(
        endpoint_url="http://h", region="r", profile="p", role_arn="a"
    ).to_settings()
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings == DynamoDbSettings("http://h", "r", "p", "a")


def test_threads_end_with_their_connection(dynamodb):
    before = threading.active_count()
    with dynamodb_settings(dynamodb.port).connect() as dynamo:
        fill(dynamo, new_table(dynamo), 300)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_whatever_fails_is_a_migration_error(faulty, through):
    faulty.fault = refuse("SomethingNew", "unheard of")
    with pytest.raises(PermanentError, match="the server said: SomethingNew: unheard of"):
        through.call("ListTables", "{}")
    assert issubclass(PermanentError, MigrationError)


@given(
    st.sampled_from(
        ["https://dynamodb.eu-west-1.amazonaws.com", "http://127.0.0.1:8000", "http://[::1]:8000",
         "https://h:443", "http://h:8000/a/path~b"]
    ),
    st.sampled_from(["eu-west-1", "us-gov-west-1"]),
    st.text(),
    st.sampled_from([None, "to/ken+="]),
    st.integers(0, 4_000_000_000),
)  # fmt: skip
def test_a_signature_is_the_sdks_own(url, region, body, token, now):
    data = body.encode(errors="replace")
    user = ReadOnlyCredentials("AKID", "secret", token)
    ours = Signer(url, region).sign("Scan", data, user, now)
    headers = {"Content-Type": CONTENT_TYPE, "X-Amz-Target": f"{API}.Scan"}
    request = AWSRequest("POST", url, headers, data)
    moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: moment)
        SigV4Auth(user, "dynamodb", region).add_auth(request)
    assert ours["Authorization"] == request.headers["Authorization"]
    assert ours["X-Amz-Date"] == request.headers["X-Amz-Date"]
