"""Face embeddings with Unified Negative Pair Generation (arXiv 2203.11593).

The parts live in sub-packages: ``unpg.losses``, ``unpg.backbones``, ``unpg.data``, ``unpg.train``, ``unpg.evaluate``,
``unpg.export``, ``unpg.report``. Importing one never imports the command line.
"""

__version__ = "0.1.0"
