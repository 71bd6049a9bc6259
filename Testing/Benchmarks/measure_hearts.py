"""Measures on published meshes the hearts that digital patients are blended from, and how well the series keep them.

Run from the repository's root with a folder that holds both collections (see `hearts.meshes`), some minutes:

    .venv/bin/python Testing/Benchmarks/measure_hearts.py FOLDER [--order 20] [--output FILE]

Prints, for each part, Dice of the cosine series against the mesh and the mean distance of the two surfaces, at the
measured hearts' mean size.
"""

import argparse
from pathlib import Path

from CACTrainingLib.phantom.anatomy.hearts.measure import agreement, measured, voxel_hearts
from CACTrainingLib.phantom.anatomy.hearts.models import PARTS
from CACTrainingLib.phantom.anatomy.hearts.shape import SHIPPED

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
parser.add_argument("--order", type=int, default=20)
parser.add_argument("--output", type=Path, default=SHIPPED)
options = parser.parse_args()
hearts = voxel_hearts(options.folder)
models = measured(hearts, options.order)
found = agreement(hearts, models)
print(f"order {options.order}: {len(models.index)} coefficients a part; mean (least or most of {len(hearts)} hearts)")
for n, part in enumerate(PARTS):
    dice, gap = found[:, n].T
    print(f"{part:10} Dice {dice.mean():.3f} ({dice.min():.3f})   distance {gap.mean():.2f} mm ({gap.max():.2f})")
options.output.parent.mkdir(parents=True, exist_ok=True)
models.save(options.output)
print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")
