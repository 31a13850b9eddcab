"""Events in and out: sources, decoders to row events, dead letters, privacy at the door, and publishing.

    Kafka or files ─► source ─► Batch ─► decode ─► Decoded ─► (graph_updater)
                                           └─► dead_letters ─► Kafka

Importing this package loads nothing heavy and starts nothing.
"""
