"""The graph in Redis or Redis Cluster: its write face (`graph`) and its read face (`view`), for more than one machine.

RowEvents ─► judged ─► frames of rows, entries of lists ─► scripts, fenced ─► Redis ─► frames and entries at a cut-off
"""
