"""Says what a run needs of a machine that may not exist yet, and what it spends its time on where it runs."""
