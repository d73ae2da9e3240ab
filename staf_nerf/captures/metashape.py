"""Reader of Metashape's cameras in XML: File > Export > Export Cameras, Agisoft XML.

A camera's transform is camera-to-chunk, with OpenCV's axes. A component's (earlier a chunk's) transform turns, scales
and moves the chunk into the coordinate system of the project, which is geocentric, in metres, for projects with GPS.

The camera models are those of the manual's appendix "Camera models". Pixels count from the image's corner, and cx, cy
from its middle. p1 and p2 have each other's places in OpenCV's formula. The focal length across is f + b1; b2 shears.
A fisheye lens has the same distortion, of angles. Not tried on a file with b1, b2, or a multi-camera system.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.captures.capture import CaptureError, ListedPhoto, Listing
from staf_nerf.captures.conventions import (
    FISHEYE,
    PERSPECTIVE,
    UNDISTORT,
    check_shear,
    equirectangular,
    opengl_pose,
)
from staf_nerf.captures.folders import (
    Images,
    check_photos,
    find_file,
    folder_of,
    left_out,
    readable,
)

FILES = "cameras.xml (Metashape)"

LENSES = {"frame": PERSPECTIVE, "fisheye": FISHEYE}
DISTORTION = {"k1": "k1", "k2": "k2", "k3": "k3", "k4": "k4", "p1": "p2", "p2": "p1"}
"""Our names of Metashape's coefficients."""
EARTH = (6.33e6, 6.40e6)
"""Distances from the earth's centre between which geocentric positions lie, in metres."""


def find(data: Path) -> Path | None:
    """Returns the file with the cameras, or None if it is another format."""
    return find_file(data, ("cameras.xml",)) or find_file(data, ("*.xml",), b"<chunk")


def read(path: Path, data: Path) -> Listing:
    """Returns what the file lists, in the project's coordinates, or in those of the chunk if it has no other.

    Raises:
        CaptureError: If the file is damaged, has no aligned camera, or a lens that cannot be used.
    """
    with readable(path, "a file of Metashape's cameras"):
        chunk = ET.parse(path).getroot().find("chunk")
        if chunk is None:
            raise ValueError("it has no chunk")
        sensors = {sensor.get("id"): sensor for sensor in chunk.iterfind("sensors//sensor")}
        cameras = list(chunk.iterfind("cameras//camera"))
        aligned = [camera for camera in cameras if camera.find("transform") is not None]
        chosen, transforms = _chosen(chunk, aligned)
        images = Images(folder_of(path))
        photos = tuple(_photo(camera, sensors, transforms, images, path) for camera in chosen)
    check_photos(photos, path, "Align the photos in Metashape, and export the cameras again.")
    notes = left_out(len(cameras) - len(aligned), len(cameras), f"are not aligned in {path.name}")
    notes += left_out(len(aligned) - len(chosen), len(cameras), "belong to another component than most")
    return Listing(path, photos, upright=_upright(photos), notes=notes)


def _chosen(
    chunk: ET.Element, aligned: list[ET.Element]
) -> tuple[list[ET.Element], Mapping[str | None, np.ndarray | None]]:
    """Returns the cameras that share a world, and the transform of each component to it."""
    whole = chunk.find("transform")
    own = {component.get("id"): component.find("transform") for component in chunk.iterfind("components//component")}
    used = Counter(camera.get("component_id") for camera in aligned)
    found = {component: own.get(component) if own.get(component) is not None else whole for component in used}
    transforms = {component: None if found[component] is None else _transform(found[component]) for component in used}
    if len(used) > 1 and any(transform is None for transform in transforms.values()):
        largest = used.most_common(1)[0][0]
        aligned = [camera for camera in aligned if camera.get("component_id") == largest]
    return aligned, transforms


def _transform(element: ET.Element | None) -> np.ndarray:
    """Returns the similarity (4, 4) of a component."""
    assert element is not None
    scale = float(element.findtext("scale") or 1.0)
    matrix = np.eye(4)
    matrix[:3, :3] = scale * _numbers(element.findtext("rotation") or "1 0 0 0 1 0 0 0 1").reshape(3, 3)
    matrix[:3, 3] = _numbers(element.findtext("translation") or "0 0 0")
    return matrix


def _numbers(text: str) -> np.ndarray:
    return np.array(text.split(), dtype=np.float64)


def _photo(
    camera: ET.Element,
    sensors: Mapping[str | None, ET.Element],
    transforms: Mapping[str | None, np.ndarray | None],
    images: Images,
    path: Path,
) -> ListedPhoto:
    pose = _numbers(camera.findtext("transform") or "").reshape(4, 4)
    similarity = transforms[camera.get("component_id")]
    if similarity is not None:
        pose = similarity @ pose
        pose[:3, :3] /= np.cbrt(np.linalg.det(pose[:3, :3]))  # a camera keeps its size
    image = images.find(camera.get("label") or "")
    lens = _lens(sensors[camera.get("sensor_id")], path)
    return ListedPhoto(image, opengl_pose(pose[:3, :3], pose[:3, 3]), lens)


def _lens(sensor: ET.Element, path: Path) -> dict[str, Any]:
    """Returns the camera of a sensor by the names of `transforms.json`."""
    calibrations = sorted(sensor.iterfind("calibration"), key=lambda element: element.get("class") == "adjusted")
    calibration = calibrations[-1] if calibrations else sensor
    kind = calibration.get("type") or sensor.get("type") or "frame"
    resolution = calibration.find("resolution")
    resolution = sensor.find("resolution") if resolution is None else resolution
    if resolution is None:
        raise ValueError("a sensor has no resolution")
    width, height = int(resolution.attrib["width"]), int(resolution.attrib["height"])
    if "spherical" in (kind, sensor.get("type")):
        return equirectangular(width, height, path)
    values = {element.tag: float(element.text or 0) for element in calibration if len(element) == 0 and element.text}
    unknown = [name for name in ("p3", "p4") if values.get(name)]
    if kind not in LENSES or unknown:
        name = f"of type {kind!r}" if kind not in LENSES else f"with {' and '.join(unknown)}"
        raise CaptureError(f"{path} has a lens {name}, which cannot be trained with.\n{UNDISTORT}")
    focal = values["f"]
    lens = {
        "camera_model": LENSES[kind],
        "w": width,
        "h": height,
        "fl_x": focal + values.get("b1", 0.0),
        "fl_y": focal,
        "cx": 0.5 * width + values.get("cx", 0.0),
        "cy": 0.5 * height + values.get("cy", 0.0),
        **{ours: values[theirs] for theirs, ours in DISTORTION.items() if theirs in values},
    }
    check_shear(values.get("b2", 0.0), lens, height, path)
    return lens


def _upright(photos: tuple[ListedPhoto, ...]) -> np.ndarray | None:
    """Returns the rotation from geocentric axes to east, north and up, or None if the positions are others."""
    middle = np.mean([photo.pose[:3, 3] for photo in photos], 0)
    distance = np.linalg.norm(middle)
    if not EARTH[0] < distance < EARTH[1]:
        return None
    up = middle / distance
    east = np.cross([0.0, 0.0, 1.0], up)
    east /= np.linalg.norm(east)
    return np.stack([east, np.cross(up, east), up])
