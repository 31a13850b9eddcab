"""Ranking items for a user: candidates from the live graph, two towers and a learned fusion of both."""
