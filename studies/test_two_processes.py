"""Runs a short form of the study."""

import pytest

from studies import two_processes


@pytest.mark.slow
def test_of_two_that_start_at_once_one_trains():
    assert two_processes.main(trials=3) == 0
