"""Face embeddings with Unified Negative Pair Generation (arXiv 2203.11593)."""
