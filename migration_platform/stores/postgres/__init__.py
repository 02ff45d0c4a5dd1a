"""PostgreSQL, and YugabyteDB by its YSQL interface, as a target."""
