"""Embedding images and texts once per checkpoint, and keeping the results.

entries   where a store entry lies, and what an earlier format has left
records   fixed-size records with checksums: what makes every store resumable and self-healing
bucket    the same records in objects of a bucket
pixels    uint8 pixels after resize and crop, shared by all checkpoints with the same preprocessing
images    image embeddings of one data set split
texts     text embeddings, one per unique text, shared by all data sets and tasks
inputs    what a task sees of them
"""

from clipeval.embeddings.entries import earlier

__all__ = ["earlier"]
