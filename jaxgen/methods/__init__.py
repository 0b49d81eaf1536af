"""What trains: one file per method, joining networks to mathematics. See `jaxgen.methods.base`."""
