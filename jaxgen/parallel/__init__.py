"""Many devices and many processes as one: the named mesh, where arrays lie, how processes meet and part."""
