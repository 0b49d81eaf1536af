"""What has weights: pure linen modules that know shapes, not losses."""
