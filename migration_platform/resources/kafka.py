"""A Kafka cluster as a Dagster resource."""

import dagster as dg
from pydantic import Field

from migration_platform.runs.events import KafkaSettings


class KafkaResource(dg.ConfigurableResource):
    """How to reach a Kafka cluster. Give the password as an environment variable."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="host:port, comma-separated.")
    security_protocol: str = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."
    )
    sasl_mechanism: str | None = Field(None, description="PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.")
    username: str | None = Field(None, description="User name for SASL.")
    password: str | None = Field(
        None, repr=False, description="Password, from an environment variable."
    )
    ca_file: str | None = Field(None, description="Trusted authorities in PEM form.")

    def to_settings(self) -> KafkaSettings:
        """Give the plain settings that any process can connect with."""
        return KafkaSettings(
            bootstrap_servers=self.bootstrap_servers,
            security_protocol=self.security_protocol,
            sasl_mechanism=self.sasl_mechanism,
            username=self.username,
            password=self.password,
            ca_file=self.ca_file,
        )
