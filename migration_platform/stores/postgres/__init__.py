"""PostgreSQL, and what speaks its protocol: YugabyteDB's YSQL."""
