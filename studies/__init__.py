"""Makes the tables and pictures of the results pages: see README.md."""
