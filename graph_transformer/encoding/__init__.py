"""From a neighborhood's columns to the numbers a model reads; the same for training and serving.

    Neighborhood (numpy) ─► paths, cells, clock ─► Batch (torch)

`statistics` is what is learned from training neighborhoods and kept in the checkpoint; `encoding` binds it to one
graph's dictionaries; `collate` applies it.
"""
