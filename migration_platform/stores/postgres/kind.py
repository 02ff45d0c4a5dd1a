"""PostgreSQL's row of the table of kinds."""

from migration_platform.stores.interface import Kind
from migration_platform.stores.postgres.declaration import PostgresTarget
from migration_platform.stores.postgres.fidelity import describe_rows
from migration_platform.stores.postgres.target import (
    TableTarget,
    canonical_cells,
    compile_rejection,
)

KIND = Kind(
    PostgresTarget,
    open_target=TableTarget,
    describe_fidelity=describe_rows,
    canonical_cells=canonical_cells,
    gives_canonical=True,
    compile_rejection=compile_rejection,
)
"""PostgreSQL and YugabyteDB (YSQL)."""
