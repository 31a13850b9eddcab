"""nowgraph.v1: row events and the prediction service."""
