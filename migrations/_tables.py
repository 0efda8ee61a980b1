"""Many tables in one operation: before each one Tortoise makes all models anew, which for a new database is seconds."""

from collections.abc import Sequence

from tortoise.migrations.operations import CreateModel, Operation, TortoiseOperation
from tortoise.migrations.schema_editor.base import BaseSchemaEditor
from tortoise.migrations.schema_generator.state import ModelState, State


class CreateModels(TortoiseOperation):
    """Creates tables that refer to each other by no foreign key of Tortoise's."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._creations = [each for each in operations if isinstance(each, CreateModel)]
        if len(self._creations) < len(operations):
            raise TypeError("only tables are created at once")

    def state_forward(self, app_label: str, state: State) -> None:
        """Add the models to the state."""
        for each in self._creations:
            state.models[app_label, each.name] = ModelState.make_from_model(app_label, each.model)
        state.reload_models([(app_label, each.name) for each in self._creations])

    async def database_forward(
        self, app_label: str, old_state: State, new_state: State, state_editor: BaseSchemaEditor | None = None
    ) -> None:
        """Create the tables, in order."""
        for each in self._creations:
            await each.database_forward(app_label, old_state, new_state, state_editor)
