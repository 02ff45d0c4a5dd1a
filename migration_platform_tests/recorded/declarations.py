"""Tables with ids of their own, and migrations of them that are declared in many ways."""

import uuid
from collections.abc import Mapping
from typing import Any

KEYSPACE = "recorded"
TABLES = {
    "plain": "region text, id int, name text, note text, amount decimal, seen timestamp, "
    "tags set<text>, marks list<int>, settings map<text, text>, profile text, picture blob, "
    "status text, PRIMARY KEY (region, id)",
    "same": "region text, id int, name text, note text, amount decimal, seen timestamp, "
    "tags set<text>, marks list<int>, settings map<text, text>, profile text, picture blob, "
    "status text, PRIMARY KEY (region, id)",
    "renamed": "region text, id int, full_name text, note text, amount decimal, seen timestamp, "
    "tags set<text>, marks list<int>, settings map<text, text>, profile text, picture blob, "
    "status text, source text, PRIMARY KEY (region, id)",
    "by_id": "id int, region text, name text, status text, PRIMARY KEY (id, region)",
    "only_id": "id int PRIMARY KEY, name text, status text",
    "exploded": "region text, id int, setting text, value text, name text, "
    "PRIMARY KEY (region, id, setting)",
    "parsed": "region text, id int, first_name text, last_name text, PRIMARY KEY (region, id)",
    "coded": "region text, id text, amount text, seen text, name text, PRIMARY KEY (region, id)",
    "by_status": "status text, region text, id int, name text, PRIMARY KEY (status, region, id)",
    "counted": "page text, day date, hits counter, PRIMARY KEY (page, day)",
    "counted_too": "page text, day date, hits counter, PRIMARY KEY (page, day)",
    "halves": "k int, c text, s text STATIC, v text, PRIMARY KEY (k, c)",
    "halves_too": "k int, c text, s text STATIC, v text, PRIMARY KEY (k, c)",
    '"Quoted"': '"Key" int PRIMARY KEY, "select" text',
    '"QuotedToo"': '"Key" int PRIMARY KEY, "select" text',
}
"""By name, what stands in the parentheses of CREATE TABLE."""


def table_id(name: str) -> uuid.UUID:
    """Give a table's id, which is part of its migrations' fingerprints."""
    return uuid.uuid5(uuid.NAMESPACE_URL, f"{KEYSPACE}.{name}")


def _table(one: str = "plain", other: str = "same", **attributes: Any) -> dict[str, Any]:
    sides = {
        "origin": {"store": "sunbird", "table": f"{KEYSPACE}.{one}"},
        "target": {"store": "reports", "table": f"{KEYSPACE}.{other}"},
    }
    return _of_kind("TableMigration", sides, attributes)


def _items(other: str, one: str = "plain", **attributes: Any) -> dict[str, Any]:
    sides = {
        "origin": {"store": "sunbird", "table": f"{KEYSPACE}.{one}"},
        "target": {"store": "items", "table": other, "create": True},
    }
    return _of_kind("TableMigration", sides, attributes)


def _of_kind(
    kind: str, sides: Mapping[str, dict[str, Any]], attributes: dict[str, Any]
) -> dict[str, Any]:
    both = {side: {**given, **attributes.pop(side, {})} for side, given in sides.items()}
    return {"kind": kind, "attributes": {**both, **attributes}}


UNKEPT = ("note", "amount", "seen", "tags", "marks", "settings", "profile", "picture")
"""Columns of `plain` that most tables lack."""
_ONLY_NAMES = {"skip": list(UNKEPT)}

DECLARED: dict[str, dict[str, Any]] = {
    "all_defaults": _table(),
    "its_own_consistency_and_limits": _table(
        origin={"consistency": "ONE", "rows_per_second": 900, "fetch_size": 100},
        target={"consistency": "QUORUM", "bytes_per_second": 10_000},
    ),
    "few_ranges": _table(token_ranges=3, workers=2),
    "one_range": _table(token_ranges=1, ranges_per_run="all"),
    "ranges_by_four": _table(token_ranges=16, ranges_per_run=4, schedule="15 19 * * *"),
    "scheduled": _table(schedule="0 3 * * *", owners=["team:moves"], group="nightly"),
    "with_events": _table(
        events={"store": "monitoring", "topic": "metrics", "job_log_topic": "log"}
    ),
    "row_max": _table(writetime="row_max", ttl="row_max"),
    "row_max_of_columns": _table(
        writetime="row_max",
        ttl="row_max",
        row_max={
            "writetime_columns": ["name", "note"],
            "ttl_columns": ["status"],
            "expiring_cells_only": True,
        },
    ),
    "row_max_without_collections": _table(
        writetime="row_max", ttl="row_max", row_max={"collections": False}
    ),
    "now_for_ever": _table(writetime="now", ttl="none"),
    "fixed_times": _table(writetime=1_700_000_000_000_000, ttl=86_400),
    "later_times": _table(writetime_increment_by=1_000),
    "renamed": _table(
        "plain",
        "renamed",
        columns={"rename": {"name": "full_name"}, "constants": {"source": "old cluster"}},
    ),
    "skipped": _table("plain", "by_id", columns=_ONLY_NAMES),
    "other_key": _table("plain", "by_status", columns=_ONLY_NAMES, group_writes_by=["status"]),
    "key_defaults": _table(
        "plain", "by_status", columns={**_ONLY_NAMES, "key_defaults": {"status": "unknown"}}
    ),
    "newest_wins": _table(
        "plain",
        "only_id",
        columns={"skip": ["region", *_ONLY_NAMES["skip"]]},
        collisions="newest",
    ),
    "oldest_wins": _table(
        "plain",
        "only_id",
        columns={"skip": ["region", *_ONLY_NAMES["skip"]]},
        collisions="oldest",
    ),
    "exploded": _table(
        "plain",
        "exploded",
        columns={
            "skip": ["note", "amount", "seen", "tags", "marks", "profile", "picture", "status"],
            "explode_map": {"column": "settings", "key": "setting", "value": "value"},
        },
    ),
    "parsed": _table(
        "plain",
        "parsed",
        columns={
            "extract_json": {
                "column": "profile",
                "properties": {"first": "first_name", "last": "last_name"},
                "exclusive": True,
            }
        },
    ),
    "parsed_again": _table(
        "plain",
        "parsed",
        columns={
            "extract_json": {
                "column": "profile",
                "properties": {"first": "first_name", "last": "last_name"},
                "exclusive": True,
                "overwrite": True,
            }
        },
    ),
    "codecs_of_millis": _table(
        "plain",
        "coded",
        columns={
            "skip": ["note", "tags", "marks", "settings", "profile", "picture", "status"],
            "codecs": ["INT_STRING", "DECIMAL_STRING", "TIMESTAMP_STRING_MILLIS"],
        },
    ),
    "codecs_of_a_format": _table(
        "plain",
        "coded",
        columns={
            "skip": ["note", "tags", "marks", "settings", "profile", "picture", "status"],
            "codecs": ["INT_STRING", "DECIMAL_STRING", "TIMESTAMP_STRING_FORMAT"],
            "timestamp_format": "yyyy-MM-dd HH:mm",
            "timestamp_zone": "Europe/Berlin",
        },
    ),
    "where": _table(filter={"where": "status = 'active'"}),
    "tokens": _table(filter={"token_min": -1_000, "token_max": 1_000_000}),
    "a_sample": _table(filter={"coverage_percent": 5}),
    "writetimes": _table(
        filter={"writetime_from": "2026-01-01T00:00:00Z", "writetime_to": 1_800_000_000_000_000}
    ),
    "not_the_deleted": _table(filter={"column": {"name": "status", "value": "deleted"}}),
    "guarded": _table(guardrails={"max_column_kb": 64}),
    "guarded_by_skipping": _table(guardrails={"max_column_kb": 64, "action": "skip"}),
    "grouped_by_nothing": _table(group_writes_by=[]),
    "no_requests_across_partitions": _table(batch_across_partitions=False),
    "emptied_first": _table(truncate_target=True),
    "one_way": _table(diff={"mode": "origin_only"}),
    "with_writetimes": _table(diff={"compare_writetime": True}),
    "with_patience": _table(diff={"ignore_newer_than_seconds": 300}),
    "repaired": _table(
        diff={"repair": ["missing", "mismatched", "extra"], "repair_writetime": "now"}
    ),
    "dead_letters": _table(dead_letters={"max_rows": 100}),
    "untracked": _table(tracking=False, retry_seconds=5),
    "tracked_elsewhere": _table(tracking_keyspace="moves"),
    "counters": _table("counted", "counted_too", writetime="now", ttl="none"),
    "counters_repaired": _table(
        "counted", "counted_too", writetime="now", ttl="none", diff={"repair": ["counters"]}
    ),
    "statics": _table("halves", "halves_too"),
    "quoted": _table('"Quoted"', '"QuotedToo"'),
    "items": _items("Plain"),
    "items_of_times": _items(
        "PlainTimes",
        writetime="row_max",
        ttl="row_max",
        target={"writetime_attribute": "written_at", "ttl_attribute": "expires_at"},
    ),
    "items_by_key": _items(
        "PlainByKey",
        target={
            "key": {"partition": ["region", "id"], "sort": "name", "partition_attribute": "pk"}
        },
    ),
    "items_of_types": _items(
        "PlainTypes",
        target={
            "attributes": {
                "name": {"rename": "fullName"},
                "note": {"drop": True},
                "seen": {"type": "N"},
                "amount": {"cql_type": "text"},
            },
            "nulls": "null",
            "numbers": "string",
        },
        columns={"codecs": ["DECIMAL_STRING"]},
    ),
    "items_with_indexes": _items(
        "PlainIndexes",
        target={
            "billing_mode": "PROVISIONED",
            "capacity": {"read_units": 5, "write_units": 5},
            "indexes": {
                "by_status": {
                    "partition": "status",
                    "sort": "id",
                    "projection": "KEYS_ONLY",
                    "capacity": {"read_units": 1, "write_units": 1},
                }
            },
            "write_units_per_second": 50,
        },
        diff={"read_units_per_second": 100},
    ),
    "items_one_way": _items("PlainOneWay", diff={"mode": "origin_only"}),
    "items_filtered": _items(
        "PlainFiltered",
        filter={"column": {"name": "status", "value": "deleted"}, "where": "id > 3"},
        columns={"rename": {"name": "title"}, "skip": ["note"], "constants": {"origin": "C"}},
    ),
    "items_of_statics": _items("Halves", "halves"),
    "items_of_counters": _items("Counted", "counted"),
    "items_of_quoted": _items("quoted-too.1", '"Quoted"'),
    "keyspace": {
        "kind": "KeyspaceMigration",
        "attributes": {
            "origin": {"store": "sunbird", "keyspace": "shop"},
            "target": {"store": "archive"},
            "token_ranges": 8,
            "exclude": ["audit_*"],
            "create": ["tables"],
            "tables": {"orders": {"token_ranges": 32, "target": {"table": "orders_by_day"}}},
        },
    },
    "tenant": {
        "kind": "TenantMove",
        "attributes": {
            "store": "sunbird",
            "origin_tenant": "01241408242723225614",
            "target_tenant": "01246375399411712074",
            "organisations": "sunbird.organisation",
            "steps": {
                "users": {
                    "table": "sunbird.user",
                    "select": "rootorgid",
                    "change": {
                        "rootorgid": {"replace": "value"},
                        "channel": {"constant": "rj"},
                    },
                    "id_file": "user_migration.csv",
                },
                "user_organisations": {
                    "table": "sunbird.user_org",
                    "select": "organisationid",
                    "change": {
                        "organisationid": {"replace": "value"},
                        "hashtagid": {
                            "lookup": {"table": "sunbird.organisation", "column": "hashtagid"}
                        },
                    },
                    "duplicates_by": "userid",
                },
                "search_users": {
                    "sync": {
                        "store": "search",
                        "object_type": "user",
                        "ids_of": "users",
                        "index_field": "rootOrgId",
                    }
                },
                "content": {
                    "graph": {
                        "store": "content",
                        "origin": "0126741568685424647",
                        "target": "0126741573767413761",
                        "nodes": [{"label": "domain", "property": "channel"}],
                    }
                },
            },
        },
    },
    # Attributes that came later: nothing above changed for them.
    "dead_letters_that_fail_nothing": _table(dead_letters={"max_rows": 100, "fail_run": False}),
    "unmatched": _table("plain", "by_id", columns={"unmatched": "skip"}),
    "key_defaults_by_type": _table(
        "plain", "by_status", columns={**_ONLY_NAMES, "key_defaults_by_type": {"text": "none"}}
    ),
    "row_max_or_now": _table(
        writetime="row_max",
        ttl="row_max",
        row_max={"collections": False, "if_none_counts": "now"},
    ),
    "with_forms": _table(diff={"compare_form": True}),
    "transactions_finished": _table(origin={"finish_transactions": True}),
    "large_cells": {
        "kind": "GuardrailCheck",
        "attributes": {
            "origin": {"store": "sunbird", "table": f"{KEYSPACE}.plain"},
            "max_column_kb": 64,
        },
    },
}
"""By name, the kind of component and its attributes."""

for _name, _declared in DECLARED.items():
    _target = _declared["attributes"].get("target", {})
    if _target.get("store") == "reports":
        # One asset is made by one migration, so each writes to a store of its own.
        _target["store"] = f"to_{_name}"

SHOP = ("audit_log", "customers", "orders")
"""The tables that the keyspace's migration knows of."""

STORES = {
    "dynamodb": {"items": {"endpoint_url": "http://127.0.0.1:9", "region": "local"}},
    "kafka": {"monitoring": {"bootstrap_servers": "127.0.0.1:9"}},
    "neo4j": {"content": {"uri": "bolt://127.0.0.1:9"}},
    "sunbird_sync": {
        "search": {
            "endpoint": "http://127.0.0.1:9/v1/data/sync",
            "search_endpoints": {"user": "http://127.0.0.1:9/v1/user/search"},
        }
    },
}
"""Beside Cassandra's; nobody asks them, but for the one of items."""

TOLD_IN_FULL = {
    "all_defaults",
    "emptied_first",
    "items",
    "items_of_quoted",
    "keyspace",
    "large_cells",
    "quoted",
    "ranges_by_four",
    "scheduled",
    "tenant",
    "with_events",
}
"""Those of which every asset is described; the assets of all others differ in their names only."""
