"""Holds the source `solids`, and the ray caster and signed distances that its pictures and truths come from."""
