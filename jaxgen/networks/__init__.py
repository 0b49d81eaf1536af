"""Networks: pure linen modules, which know shapes and no losses."""
