"""The words and the memory of nowgraph: time rule, schema, the live graph and its read face.

`time_rule` and `schema` are plain Python; `graph` (one writer) and `view` (any number of readers) stand on the native
core. Importing this package loads none of them.
"""
