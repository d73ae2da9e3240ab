"""Why photos have no pose, and what to photograph again."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from staf_nerf.sfm.photos import Upright
from staf_nerf.sfm.process import Diagnosis, Job, Model

BLURRED = 0.3
"""Sharpness below this share of the median of all photos counts as blurred."""
FEW_FEATURES = 150
"""Features below which a photo has little that can be matched."""
FEW_MATCHES = 30
"""Matches with one other photo that a pose needs. COLMAP's default."""
GOOD_ERROR = 2.0
"""Mean reprojection error in pixels above which the user is warned."""


@dataclass(frozen=True)
class Missing:
    """An image without a pose."""

    name: str
    reason: str


def missing(job: Job, model: Model, diagnosis: Diagnosis, images: Sequence[Upright]) -> list[Missing]:
    """Returns the images without a pose, each with the likely reason."""
    sharpest = float(np.median([image.sharpness for image in images]))
    registered = set(model.names)
    return [
        Missing(image.name, _reason(place, image, diagnosis, sharpest))
        for place, image in enumerate(images)
        if image.name not in registered
    ]


def _reason(place: int, image: Upright, diagnosis: Diagnosis, sharpest: float) -> str:
    if (group := diagnosis.group[place]) > 0:
        count = diagnosis.group.count(group)
        return f"one of {count} photos that are connected with each other, but not with the rest"
    if image.sharpness < BLURRED * sharpest:
        return "blurred"
    if diagnosis.features[place] < FEW_FEATURES:
        return f"few details ({diagnosis.features[place]} features)"
    if diagnosis.matches[place] < FEW_MATCHES:
        return f"alone: at most {diagnosis.matches[place]} matches with another photo"
    return f"its {diagnosis.matches[place]} matches do not fit the other photos: moved things, or a repeated pattern"


def advice(job: Job, model: Model, diagnosis: Diagnosis, images: Sequence[Upright]) -> list[str]:
    """Returns sentences that say what to photograph again."""
    lost = missing(job, model, diagnosis, images)
    said = []
    registered = set(model.names)
    for is_lost, group in itertools.groupby(enumerate(images), key=lambda item: item[1].name not in registered):
        places = [place for place, _ in group]
        if not is_lost:
            continue
        first, last = max(places[0] - 1, 0), min(places[-1] + 1, len(images) - 1)
        if first < places[0] and last > places[-1]:
            said.append(f"Between {images[first].name} and {images[last].name}, in smaller steps.")
        elif len(places) < len(images):
            near = images[last if places[0] == 0 else first].name
            said.append(f"What {images[places[0]].name} to {images[places[-1]].name} show, with overlap with {near}.")
    if any("blurred" in photo.reason for photo in lost):
        said.append("The blurred ones again, with a steadier hand or more light.")
    if any("few details" in photo.reason for photo in lost):
        said.append("Plain surfaces: with a newspaper or a patterned cloth beneath or beside the object.")
    return said[:6]
