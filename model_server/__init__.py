"""The server: gRPC in front of a live graph and a model.

    ScoreRequest ─► request ─► engine (micro-batch: sample ─► collate ─► forward) ─► answer ─► ScoreResponse
                                                                                      └─► predictions topic

`models` is how a model gets there: a registry, verified, swapped between two batches, beside canaries and shadows.
`server.build_server` puts one together in a process that already has the graph; `attached.serve` runs one beside the
updater, over its arena. Importing this package loads neither.
"""
