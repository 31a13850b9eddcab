"""The main job on one machine: history -> graph -> training -> live payments, each scored before it is applied."""
