"""This room holds grafts: small parts that learn on a frozen trained method, such as low-rank updates and new words."""
