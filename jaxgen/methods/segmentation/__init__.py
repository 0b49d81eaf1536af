"""This room segments images by small networks on the features of a trained model, from few labelled images."""
