"""Machines that are not here: what a run needs of one, and what it spends its time on where it runs."""
