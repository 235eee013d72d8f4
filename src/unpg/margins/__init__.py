"""Margins: how a loss reshapes the similarities that it compares."""

from unpg.margins.additive import Additive
from unpg.margins.angular import Angular, add_angle
from unpg.margins.base import MARGINS, Margin, NoMargin
from unpg.margins.magnitude import Magnitude

__all__ = ["MARGINS", "Additive", "Angular", "Magnitude", "Margin", "NoMargin", "add_angle"]
