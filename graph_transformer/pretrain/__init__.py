"""Learns from a graph's own rows, without labels, what a task then begins with.

rows of the past ─► cells masked, next events asked ─► the same model, other outputs ─► weights and statistics
                                                                   train --pretrained ◄────────┘
"""
