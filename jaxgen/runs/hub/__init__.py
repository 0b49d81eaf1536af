"""This subroom holds what runs have to do with the hub: published folders of runs, and the commits that a run uses."""
