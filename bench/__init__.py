"""Side-by-side benchmarks with CLIP_benchmark. Each prints its figures and a ratio from one run on one machine."""
