"""What runs the engine: the process tree, embedded servers, and the operator's commands."""
