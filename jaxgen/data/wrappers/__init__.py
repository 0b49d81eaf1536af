"""Holds sources that are made of another source, or for one; no config names them as `config.data.source`."""
