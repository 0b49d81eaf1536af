"""This room makes many devices and processes one: the named mesh, where arrays are, how processes meet and end."""
