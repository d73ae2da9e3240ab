"""Structure from motion by pycolmap, as a process: `python -m staf_nerf.sfm.reconstruction WORK`.

It reads the job in the folder WORK, prints a line of JSON for each step forward, and writes what it found there.
Features and matches lie in databases in that folder, which another call uses again.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from staf_nerf.captures.capture import CaptureError
from staf_nerf.sfm import pairs as pairing
from staf_nerf.sfm.process import ARRAYS, RESULT, Diagnosis, Job, Report

ENOUGH = 0.8
"""Share of the images that must get a pose. Other settings are tried otherwise."""
DEFAULT_FOCAL = 1.2
"""Focal length that the search starts from where EXIF has none, in longest sides of the image. COLMAP's default."""
MODEL = "SIMPLE_RADIAL"
"""Camera model of the search: one focal length, one distortion. Few parameters are found safely."""
REFINED = 12
"""Images that a camera must have taken, so that all of OPENCV's parameters and the principal point are refined."""
WORTH = 0.001
"""Share by which the mean error must fall for another principal point: 0.005 where it is 20 pixels off, 0.00003 with a
long lens that leaves it open."""
FARTHEST_CENTER = 0.1
"""Distance of a principal point from the middle of the image, in longest sides, up to which it is believed."""
LARGEST_DISTORTION = 0.5
"""Largest displacement by distortion in the image's corner, as a share of the distance from the middle."""
LARGEST_ERROR, SMALLEST_ANGLE = 4.0, 0.7
"""Points of a larger reprojection error in pixels, or seen under a smaller angle in degrees, are left out."""
INLIERS = 15
"""Matches that two images need to count as connected. COLMAP's default."""
OPENCV_TO_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Attempt:
    """Settings of one attempt."""

    name: str
    robust: bool = False
    """Features of affine shape, pooled over domain sizes, twice as many: slower, and more of them match."""
    lenient: bool = False
    """Lower thresholds in the search for cameras."""
    masked: bool = True
    """Whether there are no features where a mask is black."""

    @property
    def database(self) -> str:
        return f"{'robust' if self.robust else 'plain'}{'' if self.masked else '-unmasked'}.db"


ATTEMPTS = (
    Attempt("default settings"),
    Attempt("lower thresholds", lenient=True),
    Attempt("features outside the masks too", lenient=True, masked=False),
    Attempt("more and other features, lower thresholds", lenient=True, robust=True),
)


# --- features and matches --------------------------------------------------------------------------------------------


def find_features(job: Job, attempt: Attempt, work: Path, report: Callable[[float], None]) -> None:
    """Finds features of all images, a few in one call. pycolmap leaves out those that have some in the database."""
    path = work / attempt.database
    ids = _camera_ids(job, path)
    options: Any = pycolmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads, options.max_image_size = False, threads(), job.image_size
    options.sift.max_num_features = job.features * (2 if attempt.robust else 1)
    options.sift.estimate_affine_shape = options.sift.domain_size_pooling = attempt.robust
    done = 0
    for names, camera in _batches(job, 2 * threads()):
        reader: Any = pycolmap.ImageReaderOptions()
        reader.existing_camera_id = ids[camera]
        if attempt.masked and any(image.masked for image in job.images):
            reader.mask_path = str(work / "masks")
        pycolmap.extract_features(
            path, work / "images", names, pycolmap.CameraMode.AUTO, reader, options, pycolmap.Device.cpu
        )
        done += len(names)
        report(done / len(job.images))


def _camera_ids(job: Job, path: Path) -> list[int]:
    """Returns the cameras' numbers in a database. They are written into it if it is new."""
    with _opened(path) as database:
        if database.num_cameras() == 0:
            for camera in job.cameras:
                focal = camera.focal or DEFAULT_FOCAL * max(camera.width, camera.height)
                created = pycolmap.Camera.create_from_model_name(0, MODEL, focal, camera.width, camera.height)
                created.has_prior_focal_length = camera.focal is not None
                database.write_camera(created)
        return sorted(camera.camera_id for camera in database.read_all_cameras())


def _batches(job: Job, size: int) -> Iterator[tuple[list[str], int]]:
    """Yields names of a few images that one camera took, and its index."""
    ordered = sorted(job.images, key=lambda image: image.camera)
    for camera, group in itertools.groupby(ordered, key=lambda image: image.camera):
        names = [image.name for image in group]
        for start in range(0, len(names), size):
            yield names[start : start + size], camera


def match(job: Job, attempt: Attempt, work: Path, report: Callable[[float], None]) -> None:
    """Matches pairs of images, and checks their geometry. pycolmap leaves out those in the database."""
    path = work / attempt.database
    names = [image.name for image in job.images]
    blocks = pairing.blocks(_chosen_pairs(job, path))
    options: Any = pycolmap.FeatureMatchingOptions()
    options.use_gpu, options.num_threads = False, threads()
    geometry: Any = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = job.seed
    chosen: Any = pycolmap.ImportedPairingOptions()
    chosen.match_list_path = str(work / "pairs.txt")
    total, done = sum(map(len, blocks)), 0
    for block in blocks:
        (work / "pairs.txt").write_text("".join(f"{names[i]} {names[j]}\n" for i, j in block), encoding="utf-8")
        pycolmap.match_image_pairs(path, options, chosen, geometry, pycolmap.Device.cpu)
        done += len(block)
        report(done / total)


def _chosen_pairs(job: Job, path: Path) -> list[pairing.Pair]:
    """Returns the pairs to match."""
    count = len(job.images)
    way = pairing.way_of(job.matching, count, is_video=job.is_video)
    if way == "exhaustive":
        return pairing.all_pairs(count)
    signatures = pairing.signatures(_descriptors(job, path), job.seed)
    if way == "retrieval":
        return pairing.most_similar(signatures, pairing.NEIGHBOURS)
    return sorted({*pairing.sequential(count), *pairing.most_similar(signatures, pairing.LOOPS)})


def _descriptors(job: Job, path: Path) -> list[np.ndarray]:
    ids = {image.name: image.image_id for image in _images(path)}
    with _opened(path) as database:
        found = [database.read_descriptors(ids[image.name]) for image in job.images]
    return [np.asarray(getattr(descriptors, "data", descriptors)) for descriptors in found]


# --- cameras and points ----------------------------------------------------------------------------------------------


def find_cameras(job: Job, attempt: Attempt, work: Path, report: Callable[[float], None]) -> list[Any]:
    """Returns the models that were found, the one with the most images first."""
    options: Any = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = threads(), job.seed
    options.min_model_size = 3
    if attempt.lenient:
        options.min_num_matches = options.mapper.abs_pose_min_num_inliers = INLIERS
        options.mapper.init_min_num_inliers, options.mapper.init_min_tri_angle = 50, 4.0
        options.mapper.abs_pose_min_inlier_ratio = 0.15
        options.mapper.filter_min_tri_angle = options.triangulation.min_angle = 0.7
    count = itertools.count(3)
    folder = work / "models"
    folder.mkdir(exist_ok=True)
    found = pycolmap.incremental_mapping(
        work / attempt.database,
        work / "images",
        folder,
        options,
        initial_image_pair_callback=lambda: report(2 / len(job.images)),
        next_image_callback=lambda: report(min(next(count) / len(job.images), 1.0)),
    )
    return sorted(found.values(), key=lambda model: (-model.num_reg_images(), -model.num_points3D()))


def refine(model: Any) -> Any:
    """Returns a model with refined cameras, poses and points: OPENCV's distortion, and perhaps the principal point.

    A principal point that is some pixels off turns all cameras about their own axes. But it is taken only where the
    errors tell it: with a long lens, or from one side, many fit alike. Cameras of few images stay as they are.
    """
    taken = [model.image(number).camera_id for number in model.reg_image_ids()]
    ready = [number for number in model.cameras if taken.count(number) >= REFINED]
    if not ready:
        return model
    for number in ready:
        focal, x, y, k = model.cameras[number].params
        model.cameras[number].model = pycolmap.CameraModelId.OPENCV
        model.cameras[number].params = [focal, focal, x, y, k, 0.0, 0.0, 0.0]
    _adjust(model, ready, with_center=False)
    pycolmap.ObservationManager(model).filter_all_points3D(LARGEST_ERROR, SMALLEST_ANGLE)
    free = copy.deepcopy(model)
    before, after = _adjust(model, ready, with_center=False), _adjust(free, ready, with_center=True)
    is_better = after < (1 - WORTH) * before and all(_is_believable(free.cameras[number]) for number in ready)
    return free if is_better else model


def _adjust(model: Any, ready: Sequence[int], *, with_center: bool) -> float:
    """Minimises the reprojection errors over poses, points and the intrinsics of some cameras. Returns their mean."""
    options: Any = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point, options.print_summary = with_center, False
    options.ceres.solver_options.num_threads = threads()
    config = pycolmap.BundleAdjustmentConfig()
    for number in model.reg_image_ids():
        config.add_image(number)
    for number in set(model.cameras) - set(ready):
        config.set_constant_cam_intrinsics(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()
    return model.compute_mean_reprojection_error()


def _is_believable(camera: Any) -> bool:
    """Whether the principal point is near the middle, and the distortion is that of a lens."""
    longest = max(camera.width, camera.height)
    offset = np.hypot(camera.principal_point_x - camera.width / 2, camera.principal_point_y - camera.height / 2)
    named = _intrinsics(camera)
    corner = np.array([0.5 * camera.width / named["fl_x"], 0.5 * camera.height / named["fl_y"]])
    square = float(corner @ corner)
    moved = named["k1"] * square + named["k2"] * square**2
    return bool(offset < FARTHEST_CENTER * longest and abs(moved) < LARGEST_DISTORTION)


# --- what is written -------------------------------------------------------------------------------------------------


def _intrinsics(camera: Any) -> dict[str, float]:
    """Returns the parameters of a camera by the names of `transforms.json`."""
    if camera.model == pycolmap.CameraModelId.OPENCV:
        names = ("fl_x", "fl_y", "cx", "cy", "k1", "k2", "p1", "p2")
        return dict(zip(names, map(float, camera.params), strict=True))
    focal, x, y, k = map(float, camera.params)
    return {"fl_x": focal, "fl_y": focal, "cx": x, "cy": y, "k1": k, "k2": 0.0, "p1": 0.0, "p2": 0.0}


def write_model(job: Job, model: Any, diagnosis: Diagnosis, work: Path) -> None:
    """Writes the cameras and points of a model, and what was seen of each image."""
    images = sorted((model.image(number) for number in model.reg_image_ids()), key=lambda image: image.name)
    places = {image.image_id: place for place, image in enumerate(images)}
    points = sorted(model.points3D.items())
    seen = [
        (places[element.image_id], number, *model.image(element.image_id).points2D[element.point2D_idx].xy)
        for number, (_, point) in enumerate(points)
        for element in point.track.elements
    ]
    table = np.array(seen, dtype=np.float64).reshape(-1, 4)
    camera_of = {image.name: image.camera for image in job.images}
    in_order = [model.cameras[number] for number in sorted(model.cameras)]
    arrays = {
        "poses": np.stack([_pose(image) for image in images]),
        "positions": np.array([point.xyz for _, point in points], dtype=np.float64).reshape(-1, 3),
        "colors": np.array([point.color for _, point in points], dtype=np.uint8).reshape(-1, 3),
        "errors": np.array([point.error for _, point in points], dtype=np.float32),
        "observations": table[:, :2].astype(np.int32),
        "pixels": table[:, 2:].astype(np.float32),
    }
    np.savez(work / ARRAYS, **arrays)
    told = {
        "names": [image.name for image in images],
        "camera_of": [camera_of[image.name] for image in images],
        "cameras": [_intrinsics(camera) for camera in in_order],
        "diagnosis": asdict(diagnosis),
    }
    (work / RESULT).write_text(json.dumps(told, indent=1), encoding="utf-8")


def _pose(image: Any) -> np.ndarray:
    """Returns the camera-to-world pose (4, 4) of an image, with OpenGL axes."""
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().inverse().matrix()
    return pose @ OPENCV_TO_OPENGL


def diagnose(job: Job, attempt: Attempt, models: Sequence[Any], work: Path) -> Diagnosis:
    """Returns what was seen of each image."""
    path = work / attempt.database
    ids = {image.name: image.image_id for image in _images(path)}
    numbers = [ids[image.name] for image in job.images]
    with _opened(path) as database:
        features = [database.num_keypoints_for_image(number) for number in numbers]
        pair_ids, counts = database.read_two_view_geometry_num_inliers()
    most, partners = dict.fromkeys(numbers, 0), dict.fromkeys(numbers, 0)
    for pair, count in zip(pair_ids, counts, strict=True):
        for number in pycolmap.pair_id_to_image_pair(pair):
            most[number] = max(most[number], int(count))
            partners[number] += count >= INLIERS
    groups = {model.image(number).name: place for place, model in reversed(list(enumerate(models)))
              for number in model.reg_image_ids()}  # fmt: skip
    return Diagnosis(
        tuple(features),
        tuple(most[number] for number in numbers),
        tuple(partners[number] for number in numbers),
        tuple(groups.get(image.name, -1) for image in job.images),
        (),
        (),
    )


# --- the process -----------------------------------------------------------------------------------------------------


def reconstruct(job: Job, work: Path, report: Report) -> None:
    """Tries settings until enough images have a pose, and writes the best result.

    Raises:
        CaptureError: If no settings connect two images.
    """
    best: tuple[Attempt, list[Any]] | None = None
    tried: list[str] = []
    for attempt in _attempts(job):
        models = _attempted(job, attempt, work, report, tried)
        count = models[0].num_reg_images() if models else 0
        tried.append(f"{attempt.name}: {count} of {len(job.images)} images")
        if models and (best is None or count > best[1][0].num_reg_images()):
            best = attempt, models
        if count >= ENOUGH * len(job.images):
            break
    if best is None:
        raise CaptureError(
            f"no two of the {len(job.images)} photos could be connected. Each must show more than half of what the "
            "next one shows, from another place, sharp and with details"
        )
    attempt, models = best
    report("refining", 0.0, "")
    refined = refine(models[0])
    diagnosis = diagnose(job, attempt, models, work)
    notes = () if attempt.masked else ("The masks were not used to find the cameras: with them fewer were found.",)
    write_model(job, refined, replace(diagnosis, attempts=tuple(tried), notes=notes), work)
    report("refining", 1.0, "")


def _attempts(job: Job) -> list[Attempt]:
    """Returns the settings to try. Leaving out masks is tried if there are some."""
    has_masks = any(image.masked for image in job.images)
    return [attempt for attempt in ATTEMPTS if attempt.masked or has_masks]


def _attempted(job: Job, attempt: Attempt, work: Path, report: Report, tried: Sequence[str]) -> list[Any]:
    """Returns the models that one attempt found."""
    suffix = f" (attempt {len(tried) + 1}: {attempt.name})" if tried else ""
    find_features(job, attempt, work, lambda done: report(f"features{suffix}", done, ""))
    match(job, attempt, work, lambda done: report(f"matches{suffix}", done, ""))
    stage = f"cameras{suffix}"
    report(stage, 0.0, "")
    models = find_cameras(job, attempt, work, lambda done: report(stage, done, ""))
    report(stage, 1.0, f"{models[0].num_reg_images() if models else 0} of {len(job.images)} images")
    return models


def threads() -> int:
    """Returns the number of threads, which the calling process chose."""
    return int(os.environ.get("STAF_SFM_THREADS", "1"))


def _images(path: Path) -> list[Any]:
    """Returns the images of a database whose features were found."""
    with _opened(path) as database:
        return database.read_all_images()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    database = pycolmap.Database.open(path)
    try:
        yield database
    finally:
        database.close()


def main() -> None:
    """Entry point. What C++ prints goes to the log: standard output is for lines of JSON."""
    work = Path(sys.argv[1])
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(**line: Any) -> None:
        print(json.dumps(line), file=told, flush=True)

    job = Job.read(work)
    pycolmap.set_random_seed(job.seed)
    pycolmap.logging.minloglevel = pycolmap.logging.WARNING.value
    try:
        reconstruct(job, work, lambda stage, done, note: tell(stage=stage, done=done, note=note))
    except CaptureError as error:
        tell(error=str(error))


if __name__ == "__main__":
    main()
