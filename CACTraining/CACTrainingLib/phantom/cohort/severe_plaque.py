"""Plaques that begin at an ostium, heavy plaques, and plaques made more severe, for patients that teach networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..anatomy.coronaries import CoronaryTree, Plaque, draw_plaque

OSTIAL_LENGTH_MM, RING_SHARE = (4.0, 16.0), 0.2
"""Range of the length of ostial plaque, and share of short rings."""

HEAVY_LENGTH_MM, HEAVY_DENSITY_MG_CM3, HEAVY_MASS_MG = (18.0, 42.0), (800.0, 1350.0), (90.0, 420.0)
"""Ranges of heavy plaque: 500 to 2,000 Agatston, with peaks of 1,000 to 1,700 HU."""


def plaque_from_ostium(number: int, tree: CoronaryTree, name: str, g: np.random.Generator) -> Plaque:
    """Draw a plaque that leads from an ostium along the artery, or a ring around the ostium."""
    vessel = next(vessel for vessel in tree.vessels if vessel.name == name)
    plaque = draw_plaque(number, vessel, 0.0, float(g.normal(0.2, 0.3)), g)
    is_ring = g.random() < RING_SHARE
    length = min(float(g.uniform(1.5, 4) if is_ring else g.uniform(*OSTIAL_LENGTH_MM)), 0.9 * vessel.length_mm)
    return replace(
        plaque,
        length_mm=length,
        middle_mm=length / 2 + float(g.uniform(0, 2.5)),
        arc_degrees=float(g.uniform(280, 360) if is_ring else g.uniform(70, 320)),
        thickness_mm=max(plaque.thickness_mm, float(g.uniform(0.5, 1.8))),
    )


def heavy_plaque(number: int, tree: CoronaryTree, name: str, g: np.random.Generator) -> Plaque:
    """Draw a plaque of several centimetres, nearly as dense as bone, of a mass within HEAVY_MASS_MG."""
    vessel = next(vessel for vessel in tree.vessels if vessel.name == name)
    length = min(float(g.uniform(*HEAVY_LENGTH_MM)), 0.8 * vessel.length_mm)
    place = length / 2 + float(g.uniform(0, 0.4)) * (vessel.length_mm - length)
    mass_mg = float(np.exp(g.uniform(*np.log(HEAVY_MASS_MG))))
    plaque = replace(
        draw_plaque(number, vessel, place, 0.0, g),
        length_mm=length,
        middle_mm=place,
        arc_degrees=float(g.uniform(120, 360)),
        density_mg_cm3=float(g.uniform(*HEAVY_DENSITY_MG_CM3)),
    )
    thicknesses = np.linspace(0.8, 4.5, 38).tolist()
    return min((replace(plaque, thickness_mm=t) for t in thicknesses), key=lambda p: abs(p.mass_mg - mass_mg))


def more_severe(plaque: Plaque, tree: CoronaryTree, generator: np.random.Generator) -> Plaque:
    """Return a plaque as in heavily calcified arteries: several centimetres long, thick, around most of the wall."""
    g = generator
    vessel = next(vessel for vessel in tree.vessels if vessel.name == plaque.vessel)
    length = min(plaque.length_mm * float(g.uniform(1.0, 5.0)), max(1.0, 0.8 * vessel.length_mm))
    middle = float(np.clip(plaque.middle_mm, length / 2, max(length / 2, vessel.length_mm - length / 2)))
    return replace(
        plaque,
        length_mm=length,
        middle_mm=middle,
        thickness_mm=min(plaque.thickness_mm * float(g.uniform(1.0, 2.2)), 3.5),
        arc_degrees=float(g.uniform(60.0, 350.0)),
        density_mg_cm3=min(plaque.density_mg_cm3 * float(g.uniform(0.9, 1.5)), 1200.0),
    )
