"""Fits the model to a task on a live graph, through the sampler and the collate that serve.

    view.outcomes ─► examples ─► sampled at each example's own cut-off ─► loop ─► evaluation ─► Checkpoint and pictures

`train.train` is the entry.
"""
