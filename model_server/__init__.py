"""The server: gRPC in front of a live graph and a model.

    ScoreRequest ─► request ─► engine (micro-batch: sample ─► collate ─► forward) ─► answer ─► ScoreResponse
                                                                                      └─► predictions topic

`server.build_server` puts one together in a process that already has the graph; `attached.serve` runs one beside the
updater, over its arena. Importing this package loads neither.
"""
