"""The data stream: which sample comes when, read, decoded and brought to the device."""

from clipeval_train.input.batch import Batch, arranged, prefetch, to_input
from clipeval_train.input.corpus import Corpus, open_corpus

__all__ = ["Batch", "Corpus", "arranged", "open_corpus", "prefetch", "to_input"]
