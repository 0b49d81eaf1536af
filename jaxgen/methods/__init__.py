"""This room holds what trains: one file per method, which joins networks to mathematics. See `jaxgen.methods.base`."""
