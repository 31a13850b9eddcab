"""Predictive queries: what a person asks in one sentence -> a target, its training table and its task table."""

from __future__ import annotations

from graph_transformer.finetune.query.bind import bind_query
from graph_transformer.finetune.query.bound import BoundQuery
from graph_transformer.finetune.query.parse import parse_query
from graph_transformer.finetune.query.syntax import Query

__all__ = ["BoundQuery", "Query", "bind_query", "parse_query"]
