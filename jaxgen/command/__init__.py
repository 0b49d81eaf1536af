"""The command line reads flags and configs; each mode is one function that calls the other rooms.

`flags` declares every flag once. `parse` turns the arguments into a config and flags. `run` checks them, prepares the
machine and calls the mode. `modes` holds the modes. Nothing here imports JAX before a mode runs, so that help, lists
and error messages appear at once.
"""
