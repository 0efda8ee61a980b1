"""An operation of migrations that Tortoise lacks."""

from tortoise.migrations.operations import Operation, TortoiseOperation
from tortoise.migrations.schema_generator.state import State


class InModelsOnly(TortoiseOperation):
    """Operations that change what Tortoise takes the tables for, and no table: SQL has done so, or will a release later."""

    def __init__(self, *operations: Operation) -> None:
        self._operations = operations

    def state_forward(self, app_label: str, state: State) -> None:
        for operation in self._operations:
            operation.state_forward(app_label, state)
