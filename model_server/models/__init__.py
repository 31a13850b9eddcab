"""Models under traffic: a registry of versions, channels that say which are served, the switch between batches."""
