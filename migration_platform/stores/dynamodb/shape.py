"""The shape of a DynamoDB table to the engine, and the items that its rows become.

To the engine it is a table with the origin's columns, some renamed or left out, and a key of its
own. No column is made of cells that have times of their own.
"""

from collections.abc import Callable, Iterable, Sequence

from migration_platform.cql.names import quote
from migration_platform.cql.types import freeze, parse_type
from migration_platform.declaration.migration import Migration
from migration_platform.errors import DeclarationError
from migration_platform.plan.filled_columns import filled_columns, filled_key
from migration_platform.plan.model import Column, Layer, Plan, Source, Table
from migration_platform.stores.dynamodb.connection import DynamoDb
from migration_platform.stores.dynamodb.declaration import DynamoDbTarget, GlobalIndex
from migration_platform.stores.dynamodb.items import (
    MAX_PARTITION_BYTES,
    MAX_SORT_BYTES,
    ItemColumn,
    ItemForm,
    KeyPart,
    key_schema,
)
from migration_platform.stores.dynamodb.reads import holds_items
from migration_platform.stores.dynamodb.tables import (
    DynamoTable,
    Index,
    KeyAttribute,
    create_table,
)

USABLE = ("ACTIVE", "UPDATING")


def shape_target(migration: Migration, origin: Table, table_id: str) -> Table:
    """Give the target's columns and key as the declaration makes them.

    Raises:
        DeclarationError: the key names what is no column, or a type is none.
    """
    declared = migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    types = filled_columns(migration.columns, origin)
    for name, text in declared.column_types.items():
        try:
            types[name] = str(parse_type(text)), types.get(name, ("", False))[1]
        except ValueError:
            raise DeclarationError(
                f"target.attributes.{name}.cql_type is {text!r}, which is no CQL type"
            ) from None
    partition, sort = _key_of(migration, origin)
    unknown = [name for name in (*partition, *sort) if name not in types]
    if unknown and not declared.partition:
        raise DeclarationError(
            f"{', '.join(map(quote, unknown))} of the origin's key would not be copied; copy it, "
            f"or name other columns in target.key; valid are {', '.join(map(quote, types))}"
        )
    if unknown:
        raise DeclarationError(
            f"target.key names {', '.join(map(quote, unknown))}, which nothing fills; valid are "
            f"{', '.join(map(quote, types))}"
        )
    unknown = [name for name in declared.attribute_types if name not in types]
    if unknown:
        raise DeclarationError(
            f"target.attributes names {', '.join(map(quote, unknown))}, which nothing fills; valid "
            f"are {', '.join(map(quote, types))}"
        )
    return Table(
        name=migration.target.table,
        table_id=table_id,
        columns=tuple(
            Column(name, _in_one_cell(text), is_static) for name, (text, is_static) in types.items()
        ),
        partition_key=partition,
        clustering_columns=sort,
        default_ttl_seconds=0,
        tells_elements=False,
        is_murmur3=False,
    )


def _in_one_cell(text: str) -> str:
    """Give a type as one cell: no part of an item has times of its own."""
    cql_type = parse_type(text)
    return str(freeze(cql_type) if cql_type.is_multicell else cql_type)


def _key_of(migration: Migration, origin: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    declared = migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    if declared.partition:
        return declared.partition, declared.sort
    return filled_key(migration.columns, origin)


def find_ready(
    target: DynamoDb, found: DynamoTable | None, migration: Migration
) -> DynamoTable | None:
    """Give a table unless there is none, or another run has not finished to create it."""
    declared = migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    if found is None or not declared.create:
        return found
    if found.status not in USABLE:
        return None
    if declared.ttl_attribute is None or found.ttl_attribute is not None:
        return found
    # Somebody's items would begin to expire: only what holds none is taken for half made.
    has_items = holds_items(target, found.name, retry_seconds=migration.retry_seconds)
    return found if has_items else None


# -- items ---------------------------------------------------------------------------------------


def build_item_form(plan: Plan, layer: Layer, sources: tuple[Source, ...]) -> ItemForm:
    """Say what the items of a layer are made of, whose rows have their cells in this order.

    Raises:
        DeclarationError: names clash, or an attribute cannot have the type that is declared.
    """
    declared, table = plan.migration.target.declared, plan.target
    assert isinstance(declared, DynamoDbTarget)
    has_statics = any(each.name == "statics" for each in plan.layers)
    partition = _key_part(table.partition_key, declared.partition_attribute)
    if has_statics and declared.sort_attribute in {source.target for source in plan.rows.sources}:
        raise DeclarationError(
            f"{quote(declared.sort_attribute)} is a column, but a table with static columns keeps "
            "them under a sort key of its own; choose another name in target.key.sort_attribute"
        )
    if layer.name == "statics":
        sort = KeyPart(declared.sort_attribute, ())
    elif has_statics:
        # The sort key of a partition's static cells is a text, so all are.
        sort = KeyPart(declared.sort_attribute, table.clustering_columns)
    else:
        columns = table.clustering_columns
        sort = _key_part(columns, declared.sort_attribute) if columns else None
    return ItemForm(
        columns=tuple(
            ItemColumn(
                source.target,
                parse_type(_type_in_items(plan, source)),
                declared.attribute_types.get(source.target),
            )
            for source in sources
        ),
        partition=partition,
        sort=sort,
        is_static=layer.name == "statics",
        nulls=declared.nulls,  # type: ignore[arg-type]
        numbers=declared.numbers,  # type: ignore[arg-type]
        ttl_attribute=declared.ttl_attribute,
        writetime_attribute=declared.writetime_attribute,
        index_keys=tuple(
            (name, limit)
            for index in declared.indexes
            for name, limit in (
                (index.partition, MAX_PARTITION_BYTES),
                (index.sort, MAX_SORT_BYTES),
            )
            if name is not None
        ),
    )


def _key_part(columns: tuple[str, ...], joined: str) -> KeyPart:
    return KeyPart(columns[0] if len(columns) == 1 else joined, columns)


def _type_in_items(plan: Plan, source: Source) -> str:
    """Give a column's type; the origin's tells whether a set may be empty."""
    passes = source.kind == "column" and source.converter(plan.migration.columns) is None
    return source.origin_type if passes else source.target_type


def validate_items(plan: Plan, found: DynamoTable | None, ready: DynamoTable | None) -> list[str]:
    """Refuse items that no table could have, and a table that has another key.

    `found` is the table that is there, `ready` the same unless it is still being made.
    """
    forms: list[ItemForm] = []
    problems: list[str] = []
    declared = plan.migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    for layer in plan.layers:
        try:
            forms.append(build_item_form(plan, layer, layer.ordered(())))
        except DeclarationError as error:
            problems.append(str(error))
    if problems:
        return list(dict.fromkeys(problems))
    wanted = _to_key(key_schema(forms[0]))
    if found is not None and found.key != wanted:
        problems.append(
            f"the table {found.name} has the key {_show(found.key)}, but its items would have "
            f"{_show(wanted)}; name the key's columns in target.key, or another table"
        )
    return [
        *problems,
        *_validate_ttl(declared, ready),
        *_validate_joined_names(declared, forms[0]),
        *_validate_declared_indexes(declared, forms),
        *_validate_found_indexes(declared, forms[0], found),
    ]


def _validate_ttl(declared: DynamoDbTarget, ready: DynamoTable | None) -> list[str]:
    """Refuse a table whose items would expire by another attribute, or not at all."""
    wanted = declared.ttl_attribute
    if ready is None or not wanted or ready.ttl_attribute == wanted:
        return []
    return [
        f"items of {ready.name} do not expire by {quote(wanted)}: "
        + (
            f"its TTL attribute is {quote(ready.ttl_attribute)}"
            if ready.ttl_attribute
            else "its TTL is not enabled"
            + (", and it holds items already, which might expire" if declared.create else "")
        )
        + "; enable it on the table, or change target.ttl_attribute"
    ]


def _validate_declared_indexes(declared: DynamoDbTarget, forms: Sequence[ItemForm]) -> list[str]:
    """Refuse indexes of attributes that nothing fills, or whose values no key can be."""
    problems: list[str] = []
    names = [column.name for column in forms[0].columns]
    attributes = {column.name for form in forms for column in form.columns} | {
        *forms[0].key_names,
        *filter(None, (declared.ttl_attribute, declared.writetime_attribute)),
    }
    for index in declared.indexes:
        if not isinstance(index.projection, str):
            problems += [
                f"target.indexes.{index.name}.projection names {quote(name)}, which nothing fills; "
                f"valid are {', '.join(map(quote, sorted(attributes)))}"
                for name in index.projection
                if name not in attributes
            ]
        unknown = [n for n in (index.partition, index.sort) if n is not None and n not in names]
        problems += [
            f"target.indexes.{index.name} names {quote(name)}, which nothing fills; valid are "
            f"{', '.join(map(quote, names))}"
            for name in unknown
        ]
        if not unknown:
            try:
                _to_index(forms[0], index)
            except DeclarationError as error:
                problems.append(str(error))
            else:
                keys = [name for name in (index.partition, index.sort) if name is not None]
                where = f"target.indexes.{index.name} names"
                problems += _validate_index_values(forms[0], keys, where)
    return problems


def _validate_found_indexes(
    declared: DynamoDbTarget, form: ItemForm, found: DynamoTable | None
) -> list[str]:
    """Refuse what an index that the table has, and nobody declared, could not hold."""
    problems: list[str] = []
    names = [column.name for column in form.columns]
    for index in _undeclared(declared, found):
        keys = [key.name for key in index.key if key.name in names]
        problems += [
            f"the index {index.name} of {found.name if found else ''} has the key "
            f"{_show(index.key)}, but {quote(key.name)} would be {form.type_of(key.name)}; set "
            f"target.attributes.{key.name}.type, or drop the index"
            for key in index.key
            if key.name in keys and form.type_of(key.name) != key.key_type
        ]
        where = f"the key of the index {index.name} is"
        problems += _validate_index_values(form, keys, where)
    return problems


def _validate_joined_names(declared: DynamoDbTarget, form: ItemForm) -> list[str]:
    """Refuse a name for joined columns where the key is one column, and so named as that is."""
    used = {part.name for part in form.parts}
    return [
        f"target.key.{kind}_attribute names what joins several columns, but the key's {kind} is "
        "no joined one; leave it out"
        for kind, name, default in (
            ("partition", declared.partition_attribute, DynamoDbTarget.partition_attribute),
            ("sort", declared.sort_attribute, DynamoDbTarget.sort_attribute),
        )
        if name != default and name not in used
    ]


def _undeclared(declared: DynamoDbTarget, found: DynamoTable | None) -> list[Index]:
    names = {index.name for index in declared.indexes}
    return [index for index in (found.indexes if found else ()) if index.name not in names]


def _validate_index_values(form: ItemForm, keys: Sequence[str], says: str) -> list[str]:
    """Refuse values that the key of an index cannot have, however they are written."""
    problems = []
    for name in keys:
        if name in form.key_columns:
            continue
        where = f"{says} {quote(name)}"
        if form.nulls == "null":
            problems.append(
                f"{where}, of which a null would be an attribute NULL, and no key of an index is; "
                "leave target.nulls out"
            )
        if form.numbers == "string" and form.type_of(name) == "N":
            problems.append(
                f"{where}, of which target.numbers: string may make a string, and the key of the "
                f"index is a number; set target.attributes.{name}.type to S"
            )
    return problems


def _show(key: tuple[KeyAttribute, ...]) -> str:
    return ", ".join(f"{quote(each.name)} ({each.key_type})" for each in key)


def tell_table(plan: Plan, found: DynamoTable | None) -> list[str]:
    """Tell where a table that is there is not what the declaration says of one that is created."""
    declared = plan.migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    if found is None:
        return []
    told = []
    if not plan.target.table_id:
        told.append(
            f"{found.name} is there, but empty and without its TTL; a copy enables it by "
            f"{quote(declared.ttl_attribute or '')}"
            if found.status in USABLE
            else f"{found.name} is {found.status}; a copy waits for it"
        )
    wanted = declared.read_units, declared.write_units
    if declared.billing_mode == "PROVISIONED" and (found.read_units, found.write_units) != wanted:
        has = (
            "is paid per request"
            if found.write_units is None
            else f"has {found.read_units} read and {found.write_units} write units a second"
        )
        told.append(
            f"{found.name} {has}, and stays so: target.billing_mode and target.capacity are for a "
            "table that is created"
        )
    there = {index.name: index for index in found.indexes}
    for index in indexes_of(plan):
        has = there.get(index.name)
        if has is None:
            told.append(
                f"{found.name} has no index {index.name}, and a copy adds none: add it yourself, "
                f"or leave target.indexes.{index.name} out"
            )
        elif _show_index(has) != _show_index(index):
            told.append(
                f"the index {index.name} of {found.name} has {_show_index(has)}, and stays so: "
                f"target.indexes.{index.name} says {_show_index(index)}"
            )
    form = build_item_form(plan, plan.rows, plan.rows.ordered(()))
    known = {column.name for column in form.columns}
    for index in _undeclared(declared, found):
        keys = [key.name for key in index.key if key.name in known]
        if keys:
            told.append(
                f"{found.name} has the index {index.name}, which target.indexes does not name: a "
                f"row whose {' or '.join(map(quote, keys))} is empty or too long for its key "
                "fails in the copy; declare it, so that the plan finds such rows"
            )
    return told


def _show_index(index: Index) -> str:
    held = ", ".join(map(quote, sorted(index.attributes))) or index.projection
    return f"the key {_show(index.key)} and holds {held}"


def create_target(connection: DynamoDb, plan: Plan, report: Callable[[str], None]) -> DynamoTable:
    """Create the table that a plan's items need, and wait until it is active.

    `report` is told each status that is waited in.

    Raises:
        DeclarationError: a column cannot be the key of an index.
        PreflightError: the table was refused, or does not become active.
    """
    declared = plan.migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    form = build_item_form(plan, plan.rows, plan.rows.ordered(()))
    return create_table(
        connection,
        plan.target.name.table,
        _to_key(key_schema(form)),
        billing_mode=declared.billing_mode,  # type: ignore[arg-type]
        read_units=declared.read_units,
        write_units=declared.write_units,
        indexes=indexes_of(plan),
        ttl_attribute=declared.ttl_attribute,
        retry_seconds=plan.migration.retry_seconds,
        report=report,
    )


def indexes_of(plan: Plan) -> list[Index]:
    """Give the indexes that are made with the table.

    Raises:
        DeclarationError: a column cannot be the key of an index.
    """
    declared = plan.migration.target.declared
    assert isinstance(declared, DynamoDbTarget)
    form = build_item_form(plan, plan.rows, plan.rows.ordered(()))
    return [_to_index(form, index) for index in declared.indexes]


def _to_key(schema: Iterable[tuple[str, str]]) -> tuple[KeyAttribute, ...]:
    return tuple(KeyAttribute(name, kind) for name, kind in schema)  # type: ignore[arg-type]


def _to_index(form: ItemForm, index: GlobalIndex) -> Index:
    names = [name for name in (index.partition, index.sort) if name is not None]
    named = not isinstance(index.projection, str)
    return Index(
        index.name,
        _to_key((name, _index_type(form, index.name, name)) for name in names),
        projection="INCLUDE" if named else index.projection,  # type: ignore[arg-type]
        attributes=tuple(index.projection) if named else (),
        read_units=index.read_units,
        write_units=index.write_units,
    )


def _index_type(form: ItemForm, index: str, name: str) -> str:
    kind = form.type_of(name)
    if kind not in ("S", "N", "B"):
        raise DeclarationError(
            f"target.indexes.{index} names {quote(name)}, whose attribute type is {kind}; the key "
            f"of an index is S, N or B: choose another column, or set target.attributes.{name}.type"
        )
    return kind
