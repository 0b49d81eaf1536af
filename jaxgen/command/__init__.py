"""The command line: flags and configs are read here, and each mode is one function that hands over to the rooms.

`flags` declares every flag once, `parse` makes a config and flags of the arguments, `run` checks them, prepares the
machine and calls the mode, `modes` holds the modes. Nothing here imports JAX before a mode runs, so that help, lists
and mistakes are answered at once.
"""
