"""What operations share: the edge of a mutation, inputs, lists, scalars, and who may do what."""
