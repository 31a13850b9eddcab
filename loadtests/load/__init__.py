"""The open-loop load generator: arrivals from a schedule, latency from the intended send time.

    scenario ─► schedule ─┬─► sender process ─► server
                          └─► sender process ─► server  ─► histograms, merged ─► verdict, JSON, pictures

`loadtests/loadtest.py` is the command.
"""
