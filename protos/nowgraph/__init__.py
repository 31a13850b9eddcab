"""The wire of nowgraph."""
