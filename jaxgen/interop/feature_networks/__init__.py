"""This room converts the published weights of networks whose features metrics compare."""
