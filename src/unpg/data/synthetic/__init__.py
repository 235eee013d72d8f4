"""Faces rendered from parameters: no weights, no photographs, nobody's face.

A shaded 3-D surface with a depth buffer, in batched torch. :class:`SyntheticFaces` is a set of labelled images;
:func:`render` draws one :class:`Identity` per :class:`View`.
"""

from unpg.data.synthetic.faces import SyntheticFaces
from unpg.data.synthetic.factors import (
    Accessory,
    Background,
    Camera,
    Expression,
    Light,
    Pose,
    Variation,
    View,
    sample_view,
)
from unpg.data.synthetic.identity import Identity, sample_identity
from unpg.data.synthetic.kface import KFaceTwin, kface_view
from unpg.data.synthetic.picture import Picture, render
from unpg.data.synthetic.population import Noise

__all__ = [
    "Accessory",
    "Background",
    "Camera",
    "Expression",
    "Identity",
    "KFaceTwin",
    "Light",
    "Noise",
    "Picture",
    "Pose",
    "SyntheticFaces",
    "Variation",
    "View",
    "kface_view",
    "render",
    "sample_identity",
    "sample_view",
]
