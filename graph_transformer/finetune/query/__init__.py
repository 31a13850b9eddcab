"""Predictive queries: what a person asks in one sentence -> a target, its training table and its task table."""
