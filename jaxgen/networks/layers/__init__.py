"""This room holds layers and blocks that several networks share, and what they agree on."""
