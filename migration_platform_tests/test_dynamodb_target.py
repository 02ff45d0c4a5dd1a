"""What a declaration says wrongly of a DynamoDB table is refused in words of its YAML."""

from dataclasses import fields
from typing import Any

import pytest

from migration_platform.cql.names import TableName
from migration_platform.declaration.columns import Columns
from migration_platform.declaration.migration import Endpoint, Migration
from migration_platform.errors import DeclarationError
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget, GlobalIndex


def why_refused(**declared: Any) -> str:
    """Declare a migration; what is no option of the migration is one of its DynamoDB target."""
    names = [field.name for field in fields(Migration)]
    options = {name: declared.pop(name) for name in names if name in declared}
    target = {"consistency": declared.pop("consistency", "LOCAL_QUORUM")}
    with pytest.raises(DeclarationError) as refused:
        Migration(
            Endpoint("a", TableName("k", "users")),
            Endpoint("b", TableName("", "Users"), declared=DynamoDbTarget(**declared), **target),
            **{"writetime": "now", "ttl": "none", **options},
        )
    return str(refused.value)


def test_capacity_and_key_are_named_as_they_are_written():
    index = GlobalIndex("by_mail", "mail")
    message = why_refused(billing_mode="PROVISIONED", read_units=0, indexes=(index,))
    assert "target.capacity.read_units is 0" in message
    assert "target.capacity.write_units is missing; target.billing_mode PROVISIONED" in message
    assert "target.indexes.by_mail.capacity.read_units is missing" in message
    assert "target.capacity.write_units does nothing unless target.billing_mode is" in why_refused(
        write_units=5
    )
    assert "target.key.partition_attribute is ''; valid are names" in why_refused(
        partition_attribute=""
    )
    assert "target.key.sort_attribute is" in why_refused(sort_attribute="x" * 256)
    assert "target.ttl_attribute is ''" in why_refused(ttl_attribute="")


def test_what_means_nothing_to_dynamodb_is_refused():
    assert "target.consistency is not known of a DynamoDB target" in why_refused(consistency="ONE")
    assert "group_writes_by is not known of a DynamoDB target" in why_refused(
        group_writes_by=("id",)
    )
    assert "columns.unmatched is not known of a DynamoDB target" in why_refused(
        columns=Columns(unmatched="skip")
    )
    assert "batch_across_partitions is not known of a DynamoDB target" in why_refused(
        batch_across_partitions=True
    )
    assert "in DynamoDB a counter is a number like any other; name mismatched" in why_refused(
        repair=("counters",)
    )
    assert "target.indexes.by_mail.projection names no column; set it to KEYS_ONLY" in why_refused(
        indexes=(GlobalIndex("by_mail", "mail", projection=()),)
    )
