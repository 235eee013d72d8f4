"""Margins: how a loss reshapes the similarities that it compares."""

from unpg.margins.additive import Additive
from unpg.margins.angular import Angular, add_angle
from unpg.margins.base import MARGINS, Margin, NoMargin
from unpg.margins.combined import Combined
from unpg.margins.curricular import Curricular
from unpg.margins.elastic import Elastic
from unpg.margins.euclidean import Euclidean
from unpg.margins.lifted import Lifted
from unpg.margins.magnitude import Magnitude
from unpg.margins.multiplicative import Annealed, Multiplicative
from unpg.margins.quality import Quality
from unpg.margins.self_paced import SelfPaced

__all__ = [
    "MARGINS",
    "Additive",
    "Angular",
    "Annealed",
    "Combined",
    "Curricular",
    "Elastic",
    "Euclidean",
    "Lifted",
    "Magnitude",
    "Margin",
    "Multiplicative",
    "NoMargin",
    "Quality",
    "SelfPaced",
    "add_angle",
]
