"""This room holds functions that no config names: on accuracies, outliers, masks, attributes, people's answers."""
