"""The configs, one file for each experiment; a file may start from the config of another and change some keys."""
