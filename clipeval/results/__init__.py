"""The tidy results table: its schema, the ledger it is written from, per-sample outcomes and suite averages."""
