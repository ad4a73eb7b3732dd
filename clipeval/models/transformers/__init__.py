"""Checkpoints of transformers: folders and repositories with a config.json, through its own models, processors and
tokenizers. No code of a folder is run."""
