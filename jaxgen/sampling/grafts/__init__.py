"""This room puts files of grafts on trained models for sampling, and writes the grafts of a run as files."""
