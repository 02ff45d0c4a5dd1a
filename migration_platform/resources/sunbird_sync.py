"""Sunbird's sync and search APIs as a Dagster resource."""

import os

import dagster as dg
from pydantic import Field

from migration_platform.errors import PreflightError
from migration_platform.stores.sunbird_sync import SunbirdSync, SunbirdSyncSettings


class SunbirdSyncResource(dg.ConfigurableResource):
    """How to reach Sunbird's sync API. Secrets are read from the environment by `connect`."""

    endpoint: str = Field(
        description="Full URL of the sync API: https://DOMAIN/api/data/v1/index/sync at the "
        "gateway, http://HOST:9000/v1/data/sync at the service."
    )
    api_key_env: str | None = Field(
        None, description="Name of the environment variable that holds the API key."
    )
    search_endpoints: dict[str, str] = Field(
        {},
        description="Full URLs of the search APIs by object type, to check what is indexed: "
        "user: https://DOMAIN/api/user/v1/search, "
        "batch: https://DOMAIN/api/course/v1/batch/list.",
    )
    user_token_env: str | None = Field(
        None,
        description="Name of the environment variable that holds a user's token, where the search "
        "APIs ask for one.",
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
            DeclarationError: a value does not fit.
            PreflightError: the variable of a secret is not set, or holds what is none.
        """
        of_store = f"of the store {store}" if store else "of the sunbird_sync store"
        for name, variable in (("api_key", self.api_key_env), ("user_token", self.user_token_env)):
            if variable is not None and variable not in os.environ:
                raise PreflightError(
                    f"the environment variable {variable}, which holds the {name} {of_store}, is "
                    "not set; set it where runs are executed"
                )
        return SunbirdSyncSettings(
            endpoint=self.endpoint,
            api_key=os.environ[self.api_key_env] if self.api_key_env else None,
            search_endpoints=self.search_endpoints,
            user_token=os.environ[self.user_token_env] if self.user_token_env else None,
            operation_type=self.operation_type,
            timeout_seconds=self.timeout_seconds,
            retry_seconds=self.retry_seconds,
            ca_file=self.ca_file,
            store=store,
            api_key_env=self.api_key_env or "",
            user_token_env=self.user_token_env or "",
        )

    def connect(self, store: str = "") -> SunbirdSync:
        """Give a client; close it, or use it as a context manager.

        Raises:
            DeclarationError, PreflightError: as `to_settings` does.
        """
        return self.to_settings(store).connect()
