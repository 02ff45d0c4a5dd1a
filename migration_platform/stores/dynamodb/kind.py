"""DynamoDB's row of the table of kinds."""

from migration_platform.stores.dynamodb.declaration import DynamoDbTarget
from migration_platform.stores.dynamodb.fidelity import describe_items
from migration_platform.stores.dynamodb.target import (
    ItemTarget,
    canonical_cells,
    compile_rejection,
)
from migration_platform.stores.interface import Kind

KIND = Kind(
    DynamoDbTarget,
    open_target=ItemTarget,
    describe_fidelity=describe_items,
    canonical_cells=canonical_cells,
    compile_rejection=compile_rejection,
)
