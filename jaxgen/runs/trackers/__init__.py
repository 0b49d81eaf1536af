"""Trackers show a run beside its `metrics.jsonl`: TensorBoard, Weights & Biases, MLflow, or a class of your own.

`base.Tracker` is the interface, `opened.Trackers` all those of a run at once, with what each was shown already.
"""
