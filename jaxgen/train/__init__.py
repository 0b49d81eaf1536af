"""One loop for all methods: state, update, sharding, checkpoints, sampling, judging."""
