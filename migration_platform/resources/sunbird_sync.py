"""Sunbird's sync and search APIs as a Dagster resource."""

import dagster as dg
from pydantic import Field

from migration_platform.stores.sunbird_sync import SunbirdSync, SunbirdSyncSettings


class SunbirdSyncResource(dg.ConfigurableResource):
    """How to reach Sunbird's sync API. Give the key as an environment variable."""

    endpoint: str = Field(
        description="Full URL of the sync API: https://DOMAIN/api/data/v1/index/sync at the "
        "gateway, http://HOST:9000/v1/data/sync at the service."
    )
    api_key: str | None = Field(
        None, repr=False, description="API key, from an environment variable."
    )
    search_endpoints: dict[str, str] = Field(
        {},
        description="Full URLs of the search APIs by object type, to check what is indexed: "
        "user: https://DOMAIN/api/user/v1/search, "
        "batch: https://DOMAIN/api/course/v1/batch/list.",
    )
    user_token: str | None = Field(
        None,
        repr=False,
        description="Token of a user, from an environment variable, where the search APIs ask for "
        "one.",
    )
    operation_type: str | None = Field(
        None, description="sync waits for the result, at a service that knows it."
    )
    timeout_seconds: float = Field(30.0, description="Longest wait for an answer.")
    retry_seconds: float = Field(30.0, description="How long a failed request is tried again.")
    ca_file: str | None = Field(None, description="Trusted authorities in PEM form.")

    def to_settings(self, store: str = "") -> SunbirdSyncSettings:
        """Give the plain settings; `store` is the name that messages call them by.

        Raises:
            DeclarationError, PreflightError: a value does not fit.
        """
        return SunbirdSyncSettings(
            endpoint=self.endpoint,
            api_key=self.api_key,
            search_endpoints=self.search_endpoints,
            user_token=self.user_token,
            operation_type=self.operation_type,
            timeout_seconds=self.timeout_seconds,
            retry_seconds=self.retry_seconds,
            ca_file=self.ca_file,
            store=store,
        )

    def connect(self, store: str = "") -> SunbirdSync:
        """Give a client; close it, or use it as a context manager.

        Raises:
            DeclarationError, PreflightError: a value does not fit.
        """
        return self.to_settings(store).connect()
