"""Model files, and weights of others as models."""

from unpg.export.importers import IMPORTERS, ForeignModel, import_weights
from unpg.export.model_file import load_model, save_model

__all__ = ["IMPORTERS", "ForeignModel", "import_weights", "load_model", "save_model"]
