"""One file per experiment; a file may begin from another one's config and say what differs."""
