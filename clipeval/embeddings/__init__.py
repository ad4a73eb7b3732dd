"""Embedding images and texts once per checkpoint, and keeping the results.

records   fixed-size records with checksums: what makes every store resumable and self-healing
pixels    uint8 pixels after resize and crop, shared by all checkpoints with the same preprocessing
images    image embeddings of one data set split
texts     text embeddings, one per unique text, shared by all data sets and tasks
"""
