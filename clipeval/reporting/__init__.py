"""A results table as one page to read: leaderboards, heat maps, plots, comparisons, and where numbers come from.

Importing this imports nothing heavy.
"""
