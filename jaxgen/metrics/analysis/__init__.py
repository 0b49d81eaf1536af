"""Functions that no config names: accuracies, outliers, masks, attributes, principal subspaces, people's answers."""
