"""Files of the Cassandra Data Migrator as declarations of this platform."""
