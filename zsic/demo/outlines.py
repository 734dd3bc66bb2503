"""The outline of each shape as a polygon around the origin, within the unit circle, y pointing down.

P = points of a polygon; 2 = x, y.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

Outline_P2 = NDArray[np.float64]


def _arc(radius: float, start_deg: float, end_deg: float, n_points: int = 40) -> Outline_P2:
    angle = np.deg2rad(np.linspace(start_deg, end_deg, n_points))
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _moved(outline: Outline_P2, x: float, y: float) -> Outline_P2:
    moved: Outline_P2 = outline + np.array([x, y])
    return moved


def _regular(n_corners: int) -> Outline_P2:
    """A regular polygon with a corner on top."""
    return _arc(1.0, -90, 270, n_corners + 1)[:-1]


def _star() -> Outline_P2:
    corners = _arc(1.0, -90, 270, 11)[:-1]
    corners[1::2] *= 0.42
    return corners


def _heart() -> Outline_P2:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y + 2.5], axis=1) / 17


def _crescent() -> Outline_P2:
    outer = _arc(1.0, 50, 310)
    tip_x, tip_y = outer[0]
    inner_centre_x = 0.45
    radius = float(np.hypot(tip_x - inner_centre_x, tip_y))
    turn = float(np.rad2deg(np.arctan2(tip_y, tip_x - inner_centre_x)))
    inner = _moved(_arc(radius, -turn, -(360 - turn)), inner_centre_x, 0)
    return _moved(np.concatenate([outer, inner]), 0.15, 0)


def _polygon(*corners: tuple[float, float]) -> Outline_P2:
    return np.array(corners, dtype=np.float64)


_ARM: Final = 0.30

OUTLINES: Final[Mapping[str, Outline_P2]] = MappingProxyType(
    {
        "circle": 0.95 * _arc(1.0, 0, 360),
        "square": _polygon((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)),
        "triangle": _moved(_regular(3), 0, 0.15),
        "star": _star(),
        "heart": _heart(),
        "cross": _polygon(
            *((-_ARM, -0.95), (_ARM, -0.95), (_ARM, -_ARM), (0.95, -_ARM), (0.95, _ARM), (_ARM, _ARM)),
            *((_ARM, 0.95), (-_ARM, 0.95), (-_ARM, _ARM), (-0.95, _ARM), (-0.95, -_ARM), (-_ARM, -_ARM)),
        ),
        # Outer edge one way, inner edge the other way: the joint between them has no width.
        "ring": np.concatenate([_arc(1.0, 0, 360), _arc(0.52, 360, 0)]),
        "crescent": _crescent(),
        "diamond": _polygon((0, -1), (0.6, 0), (0, 1), (-0.6, 0)),
        "hexagon": _regular(6),
        "arrow": _polygon(
            *((-1, -0.26), (0.1, -0.26), (0.1, -0.75), (1, 0)),
            *((0.1, 0.75), (0.1, 0.26), (-1, 0.26)),
        ),
        "bolt": _polygon((0.3, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.35, 1), (0.6, -0.25), (0.05, -0.25)),
    }
)
