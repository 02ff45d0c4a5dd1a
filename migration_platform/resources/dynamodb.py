"""DynamoDB as a Dagster resource."""

from typing import ClassVar

import dagster as dg
from pydantic import Field

from migration_platform.stores.dynamodb.connection import DynamoDb, DynamoDbSettings


class DynamoDbResource(dg.ConfigurableResource):
    """How to reach DynamoDB. What is left out, and all credentials, the AWS SDK's chain finds."""

    kind: ClassVar[str] = "dynamodb"

    endpoint_url: str | None = Field(
        None, description="http(s)://host:port; default: the region's. For DynamoDB Local."
    )
    region: str | None = Field(
        None, description="Region; default: the environment's or the profile's."
    )
    profile: str | None = Field(None, description="Profile of ~/.aws; default: AWS_PROFILE.")
    role_arn: str | None = Field(
        None, description="Role to assume with these credentials, anew whenever it expires."
    )

    def to_settings(self) -> DynamoDbSettings:
        """Give the plain settings that any process can connect with."""
        return DynamoDbSettings(
            endpoint_url=self.endpoint_url,
            region=self.region,
            profile=self.profile,
            role_arn=self.role_arn,
        )

    def connect(self) -> DynamoDb:
        """Open a connection; close it, or use it as a context manager.

        Raises:
            PreflightError: nobody answers, or the service refuses the user.
        """
        return self.to_settings().connect()
