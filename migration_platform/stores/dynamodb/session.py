"""What the SDK finds and opens: a session, its credentials, and a client for tables.

Settings, environment, profiles and roles are looked up by boto3 as by any other program of the
user's. The credentials renew themselves as they expire, for the client and for whoever signs
requests with them, because both hold the same object.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    Credentials,
    DeferredRefreshableCredentials,
)

from migration_platform.errors import PreflightError
from migration_platform.stores.dynamodb.failures import HOW_TO_SIGN_IN

ROLE_SESSION = "migration-platform"


@dataclass(frozen=True, eq=False)
class Sdk:
    """What was found: a client of DynamoDB, whose credentials, and authorities of its own."""

    client: Any
    credentials: Credentials = field(repr=False)
    ca_bundle: str | None


class _AssumedRole(DeferredRefreshableCredentials):
    """The credentials of a role, which is assumed at the first request."""

    def get_deferred_property(self, property_name: str) -> Callable[[], Any]:
        # Each request would ask for the account's number first, which no address has here, and so
        # renew a session twice that is about to end.
        return lambda: None


@dataclass(frozen=True)
class _Given:
    """Stands where botocore looks for credentials, and gives these."""

    credentials: Credentials = field(repr=False)

    def load_credentials(self) -> Credentials:
        return self.credentials


def open_sdk(
    *,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
    role_arn: str | None,
    connect_timeout_seconds: float,
    read_timeout_seconds: float,
) -> Sdk:
    """Find everything that requests need; none is sent. Close the client.

    Raises:
        BotoCoreError, ValueError: a setting is missing or not valid.
        PreflightError: nobody has any credentials.
    """
    core = botocore.session.Session(profile=profile)
    if role_arn is not None:
        own = boto3.Session(profile_name=profile, region_name=region)
        core.register_component("credential_provider", _Given(_assume_role(own, role_arn)))
    session = boto3.Session(botocore_session=core, region_name=region)
    client = session.client(
        "dynamodb",
        endpoint_url=endpoint_url,
        config=Config(
            connect_timeout=connect_timeout_seconds,
            read_timeout=read_timeout_seconds,
            # One call is one try, whatever AWS_MAX_ATTEMPTS and AWS_RETRY_MODE say.
            retries={"total_max_attempts": 1, "mode": "standard"},
            # Tables are asked about where their items are written: at one address, which a
            # firewall may know. The SDK would take one with the account's number in it.
            account_id_endpoint_mode="disabled",
            endpoint_discovery_enabled=False,
            # The service says in one sentence what is wrong.
            parameter_validation=False,
        ),
    )
    credentials = session.get_credentials()
    if credentials is None:
        raise _no_credentials()
    return Sdk(client, credentials, core.get_config_variable("ca_bundle"))


def _assume_role(session: boto3.Session, role_arn: str) -> Credentials:
    """Give the credentials of a role.

    Raises:
        PreflightError: nobody has the credentials to assume it with.
    """
    found = session.get_credentials()
    if found is None:
        raise _no_credentials()
    fetcher = AssumeRoleCredentialFetcher(
        session.client, found, role_arn, extra_args={"RoleSessionName": ROLE_SESSION}
    )
    return _AssumedRole(fetcher.fetch_credentials, "assume-role")


def _no_credentials() -> PreflightError:
    return PreflightError(f"there are no AWS credentials; {HOW_TO_SIGN_IN}")
