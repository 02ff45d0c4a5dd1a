"""The component that declares connections by name."""

import difflib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import dagster as dg
from pydantic import Field, create_model

from migration_platform.components.attributes import NamedAttributes
from migration_platform.components.declared import Declared, tells_all, whole
from migration_platform.components.scaffolds import StoresScaffolder
from migration_platform.errors import DeclarationError
from migration_platform.resources import (
    CassandraResource,
    DynamoDbResource,
    KafkaResource,
    Neo4jResource,
    PostgresResource,
    SunbirdSyncResource,
)
from migration_platform.stores.cassandra.connection import CassandraSettings
from migration_platform.stores.sunbird_sync import SunbirdSyncSettings

_ENV = "_env"
"""Ends the name of a field that holds a variable's name; in YAML `key_env` is `key: {env: NAME}`.

A resource with such a field reads the variable itself, and says in a sentence that it is not set.
"""


class SecretName(NamedAttributes, dg.Model):
    """A secret, by the name of the environment variable that holds it."""

    env: str = Field(description="Name of the environment variable.")


def _attributes_of(resource: type[dg.ConfigurableResource], name: str) -> type:
    """Turn a resource's fields into YAML attributes; a secret becomes a `SecretName`."""
    fields: dict[str, Any] = {}
    for field_name, info in resource.model_fields.items():
        if field_name == "password" or field_name.endswith(_ENV):
            described = Field(None, description="As {env: NAME}: secrets never stand in a file.")
            fields[field_name.removesuffix(_ENV)] = (SecretName | None, described)
        elif field_name == "tls":
            fields[field_name] = (
                TlsFilesAttributes | None,
                Field(None, description="Files that a TLS connection needs."),
            )
        else:
            fields[field_name] = (
                info.annotation,
                Field(
                    info.get_default(call_default_factory=True),
                    description=info.description,
                    alias=info.alias,
                ),
            )
    bases: Any = (NamedAttributes, dg.Model)
    return create_model(name, __base__=bases, **fields)


class TlsFilesAttributes(NamedAttributes, dg.Model):
    """Files in PEM form."""

    ca_file: str | None = Field(None, description="Trusted authorities; default: the system's.")
    certificate_file: str | None = Field(None, description="The client's own certificate.")
    key_file: str | None = Field(None, description="The key of the client's certificate.")
    check_hostname: bool = Field(True, description="Whether the server's name must match.")


CassandraAttributes = _attributes_of(CassandraResource, "CassandraAttributes")
DynamoDbAttributes = _attributes_of(DynamoDbResource, "DynamoDbAttributes")
KafkaAttributes = _attributes_of(KafkaResource, "KafkaAttributes")
Neo4jAttributes = _attributes_of(Neo4jResource, "Neo4jAttributes")
PostgresAttributes = _attributes_of(PostgresResource, "PostgresAttributes")
SunbirdSyncAttributes = _attributes_of(SunbirdSyncResource, "SunbirdSyncAttributes")


_RESOURCES: dict[str, type[dg.ConfigurableResource]] = {
    "cassandra": CassandraResource,
    "dynamodb": DynamoDbResource,
    "kafka": KafkaResource,
    "neo4j": Neo4jResource,
    "postgres": PostgresResource,
    "sunbird_sync": SunbirdSyncResource,
}


class DeclaresStores(dg.Component):
    """A component that declares connections by name."""

    @abstractmethod
    def kinds(self) -> dict[str, str]:
        """Give the kind of each store that it declares, as the table of kinds names it."""


@dg.scaffold_with(StoresScaffolder)
class Stores(DeclaresStores, Declared):
    """Connections by name, for the migrations of this project to use.

    Secrets are given as the name of an environment variable, `password: {env: NAME}`, and are
    read when a run connects: they reach neither the definitions nor the UI, nor a log.
    """

    cassandra: dict[str, CassandraAttributes] = Field(  # type: ignore[valid-type]
        default_factory=dict, description="Cassandra or YugabyteDB (YCQL) clusters."
    )
    dynamodb: dict[str, DynamoDbAttributes] = Field(  # type: ignore[valid-type]
        default_factory=dict,
        description="DynamoDB, by region or endpoint; credentials are the AWS SDK's to find.",
    )
    kafka: dict[str, KafkaAttributes] = Field(  # type: ignore[valid-type]
        default_factory=dict, description="Kafka clusters, for events."
    )
    neo4j: dict[str, Neo4jAttributes] = Field(  # type: ignore[valid-type]
        default_factory=dict, description="Neo4j databases, whose content a tenant move changes."
    )
    postgres: dict[str, PostgresAttributes] = Field(  # type: ignore[valid-type]
        default_factory=dict, description="PostgreSQL, or YugabyteDB by YSQL."
    )
    sunbird_sync: dict[str, SunbirdSyncAttributes] = Field(  # type: ignore[valid-type]
        default_factory=dict, description="Sunbird's sync and search APIs."
    )

    def kinds(self) -> dict[str, str]:
        """Give the kind of each store, as its attribute is called."""
        return {name: kind for kind in _RESOURCES for name in getattr(self, kind)}

    @tells_all
    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build one resource for each connection."""
        self._refuse_equal_names(context)
        resources: dict[str, Any] = {}
        for kind, resource in _RESOURCES.items():
            for name, attributes in getattr(self, kind).items():
                resources[name] = resource(**_to_fields(attributes))
        return dg.Definitions(resources=resources)

    def _refuse_equal_names(self, context: dg.ComponentLoadContext) -> None:
        """Refuse a name that two stores have, here or in another file.

        Raises:
            DeclarationError: there is one.
        """
        own = [(name, kind) for kind in _RESOURCES for name in getattr(self, kind)]
        wrong = [
            f"{kind}.{name} has the name of {others[0]}, and names of stores must differ; rename "
            "one of them"
            for name, kind in own
            if (others := self._stores_called(name, kind, context.component_tree))
        ]
        if wrong:
            raise DeclarationError("; ".join(wrong))

    def _stores_called(self, name: str, kind: str, tree: dg.ComponentTree) -> list[str]:
        """Say where else a store of this name is declared."""
        here = [f"{other}.{name}" for other in _RESOURCES if name in getattr(self, other)]
        # Made in Python, it is none of the components of a project.
        others = whole(tree, Stores) if self._context else []
        elsewhere = [
            f"a store in {stores.place}"
            for stores in others
            if stores is not self and name in stores.kinds()
        ]
        return [place for place in here if place != f"{kind}.{name}"] + elsewhere


def kinds_of_stores(tree: dg.ComponentTree) -> dict[str, str]:
    """Give the kind of each store that a project declares, as `cassandra`."""
    kinds: dict[str, str] = {}
    for stores in tree.get_all_components(DeclaresStores):
        if not isinstance(stores, Declared) or stores.is_whole:
            kinds |= stores.kinds()
    return kinds


_PLACES = ("contact_points", "hosts", "port", "database", "schema", "endpoint_url", "region")
"""Attributes that say which servers a store is; all others say how they are talked to."""


def same_stores(tree: dg.ComponentTree) -> dict[str, str]:
    """Give for each store that a project declares the first that is the same servers."""
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for stores in whole(tree, Stores):
        for kind in _RESOURCES:
            for name, declared in getattr(stores, kind, {}).items():
                fields = {key: getattr(declared, key, None) for key in _PLACES}
                fields |= {key: sorted(v) for key, v in fields.items() if isinstance(v, list)}
                found[name] = first.setdefault(f"{kind} {fields}", name)
    return found


def find_unknown_stores(
    needed: Mapping[str, str], kinds: Mapping[str, str], tree: dg.ComponentTree
) -> list[str]:
    """Find attributes that name a store which no component declares, one sentence each.

    A store may as well be a resource of the project's own Python code, where its name stands then.
    While a declaration of stores cannot be read, nobody knows what it holds.
    """
    unknown = {attribute: name for attribute, name in needed.items() if name not in kinds}
    if not unknown or any(not stores.is_whole for stores in tree.get_all_components(Stores)):
        return []
    files = tree.defs_module_path.parent.rglob("*.py")
    code = [file.read_text("utf-8", "replace") for file in files]
    valid = ", ".join(map(repr, kinds)) or "none yet"
    wrong = []
    for attribute, name in unknown.items():
        if any(name in text for text in code):
            continue
        close = difflib.get_close_matches(name, kinds, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        wrong.append(
            f"{attribute} is {name!r}, and no component migration_platform.Stores of this project "
            f"declares a store of that name; {hint}valid are {valid}"
        )
    return wrong


def read_settings(tree: dg.ComponentTree, name: str) -> CassandraSettings:
    """Give the settings of a cluster that is declared in a project, its secrets read now.

    Raises:
        DeclarationError: there is no such store, or the variable of its secret is not set.
    """
    return read_store(tree, "cassandra", name)


def read_store(tree: dg.ComponentTree, kind: str, name: str) -> Any:
    """Give the settings of a store of a kind that is declared in a project, its secrets read now.

    Raises:
        DeclarationError: there is no such store, or the variable of its secret is not set.
    """
    fields = _find_fields(tree, kind, name)
    secret = fields.get("password")
    if secret is not None and secret.get_value() is None:
        raise DeclarationError(
            f"the environment variable {secret.env_var_name}, which holds the password of the "
            f"store {name}, is not set"
        )
    resource: Any = _RESOURCES[kind](**fields).process_config_and_initialize()
    return resource.to_settings()


def read_sync_settings(tree: dg.ComponentTree, name: str) -> SunbirdSyncSettings:
    """Give the settings of a sync API that is declared in a project, its secrets read now.

    Raises:
        DeclarationError, PreflightError: there is no such store, or the variable of a secret is
            not set.
    """
    return SunbirdSyncResource(**_find_fields(tree, "sunbird_sync", name)).to_settings(name)


def _find_fields(tree: dg.ComponentTree, kind: str, name: str) -> dict[str, Any]:
    declared: dict[str, Any] = {}
    for stores in whole(tree, Stores):
        declared |= getattr(stores, kind, {})
    if name not in declared:
        raise DeclarationError(
            f"there is no {kind} store {name} in a component migration_platform.Stores of this "
            f"project; valid are {', '.join(declared) or 'none yet'}"
        )
    return dict(_to_fields(declared[name]))


def _to_fields(attributes: Any) -> Mapping[str, Any]:
    fields = {
        info.alias or name: getattr(attributes, name)
        for name, info in type(attributes).model_fields.items()
    }
    for name, value in list(fields.items()):
        if isinstance(value, SecretName) and name == "password":
            fields[name] = dg.EnvVar(value.env)
        elif isinstance(value, SecretName):
            fields[name + _ENV] = fields.pop(name).env
    tls = fields.get("tls")
    if tls is not None:
        fields["tls"] = tls.model_dump()
    return {name: value for name, value in fields.items() if value is not None}
