"""This room reads and writes folders of text encoders that other packages use."""
