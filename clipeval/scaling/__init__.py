"""Scaling laws from a tidy results table: laws, frontiers, estimates with uncertainty, comparisons, forecasts."""
