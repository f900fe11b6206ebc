"""Runs: edits of many facts, alone or in sequence, and what they did."""
