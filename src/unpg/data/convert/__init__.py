"""Copy an image set into another form: any to any, going on after a kill, the same bytes whatever happened."""

from unpg.data.convert.convert import MANIFEST, Converted, convert
from unpg.data.convert.folder_form import CsvForm, FolderForm
from unpg.data.convert.form import FORMS
from unpg.data.convert.lmdb_form import LmdbForm
from unpg.data.convert.pairs_form import convert_pairs
from unpg.data.convert.parquet_form import ParquetForm
from unpg.data.convert.recordio_form import RecordForm
from unpg.data.convert.tar_form import TarForm

__all__ = [
    "FORMS",
    "MANIFEST",
    "Converted",
    "CsvForm",
    "FolderForm",
    "LmdbForm",
    "ParquetForm",
    "RecordForm",
    "TarForm",
    "convert",
    "convert_pairs",
]
