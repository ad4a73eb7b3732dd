"""Fine-tune the image tower of any checkpoint to classify, and patch: interpolate it with where it came from."""
