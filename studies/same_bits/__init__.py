"""Shows that two checkouts of jaxgen train and draw the same bits, across renamings: `python -m studies.same_bits`."""
