"""Speed and memory, beside another implementation or another way, measured in one run: see README.md."""
