"""How good answers turn out to be, once what really happened is known: a join of predictions with late outcomes.

    predictions topic ─► translate ─► Answer, ShownList ─┐
                                                         ├─► Monitor: join ─► figures, drift ─► Report ─► Prometheus
    topics of events ──► translate ─► Outcome, Interaction ┘

Everything but the two shells (`reader`: the Kafka client; `faust_app`: Faust) is plain: dataclasses in, figures out.
The figures are a function of the set of records, not of the order in which they come.
"""
