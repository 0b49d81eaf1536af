"""Gives every command of jaxgen bad inputs and judges how it ends (`fuzzing.judge` says what is right).

    python tests/fuzzing --seed=7 --num=150

makes 150 inputs from the seed, and prints how many were refused or run, and each one that ended otherwise. The inputs
are made from the project's own declarations (flags, arguments, config keys, classes) and from the files of a run, so
that new ones are covered without a change here.
"""
