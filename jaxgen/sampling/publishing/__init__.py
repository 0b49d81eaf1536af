"""This subroom makes the folder of a published run: weights, config, numbers, pictures, and a card."""
