"""clipeval_train: pre-train CLIP models whose checkpoints clipeval evaluates."""
