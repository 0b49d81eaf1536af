"""This room holds the networks: pure linen modules, which know shapes and no losses."""
