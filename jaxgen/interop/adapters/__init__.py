"""This room holds the files of small parts on a published model: low-rank updates, and vectors of new words."""
