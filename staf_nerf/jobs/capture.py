"""`staf capture`: finds the cameras of photos or of a video, and writes a capture to train on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import Positional, arg

from staf_nerf.captures.capture import CaptureError
from staf_nerf.captures.drawing import draw, scene_of, write_page
from staf_nerf.captures.load import load
from staf_nerf.captures.masks import WHITE_ENOUGH, threshold
from staf_nerf.captures.region import region_of_interest
from staf_nerf.jobs.output import write_json
from staf_nerf.progress import Stages
from staf_nerf.sfm import frames as film
from staf_nerf.sfm.advice import GOOD_ERROR, advice, missing
from staf_nerf.sfm.pairs import Matching
from staf_nerf.sfm.photos import Source, Upright, check_formats, gather, write_upright
from staf_nerf.sfm.process import Diagnosis, Job, JobCamera, JobImage, Model, reconstruct, threads
from staf_nerf.sfm.scene import scaled, upright, write_scene

WORK = ".capture"
"""Folder in the output in which an unfinished capture lies."""
INPUTS = "inputs.json"
"""File in the work folder: photos and settings. The same ones go on with what was begun."""
PICTURE, PAGE, REPORT = "cameras.png", "cameras.html", "report.json"
MOST_LINES = 12
"""The most photos without a pose that are named on screen. The report names all."""


@dataclass(frozen=True)
class CapturePhotos:
    """Photos or videos, and how their cameras are found."""

    inputs: Annotated[Positional[tuple[Path, ...]], arg(metavar="PHOTOS|VIDEO|FOLDER")]
    """Photos, a video, or folders of photos."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("scene")
    """Output folder, which must be empty. An interrupted capture in it goes on."""
    frames: int | None = None
    """Number of frames to take from a video. Defaults to 2.5 a second, between 40 and 200."""
    masks: Path | None = None
    """Folder of masks, black where a photo is not to be used. Defaults to those beside the photos."""
    matching: Matching = "auto"
    """Which photos are compared: all pairs ("exhaustive"), neighbours and similar ones ("sequential"), or similar ones
    ("retrieval"). "auto": all pairs up to 200 photos, "sequential" for a video."""
    cameras: Literal["auto", "one", "each"] = "auto"
    """Which photos share a camera: those of one body, lens, focal length and size ("auto"), all of one size ("one"), or
    none ("each")."""
    distance: tuple[str, str, float] | None = None
    """Names of two photos, and the distance between the places they were taken from, in metres. The capture is then in
    metres. Without it the scale means nothing."""
    features: int = 3000
    """Number of features of a photo, about."""
    image_size: int = 1600
    """Longest side, in pixels, at which features are found. The photos themselves stay as large as they are."""
    keep_work: bool = False
    """Keep the work folder (.capture) with the database of features and matches."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        for name, least in (("frames", 3), ("features", 100), ("image_size", 100)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} must be >= {least}, got {value}")
        if not self.inputs:
            raise ValueError("inputs must name photos, a video or a folder")
        if self.distance is not None and not self.distance[2] > 0:
            raise ValueError(f"distance must be positive, got {self.distance[2]:g}")

    @property
    def work(self) -> Path:
        return self.output / WORK


def capture_photos(job: CapturePhotos) -> Path:
    """Finds the cameras of photos or videos, and writes a capture.

    Returns:
        The folder of the capture.

    Raises:
        CaptureError: If the photos cannot be used, or not be connected. Nothing is left behind.
        FileExistsError: If the output folder holds something else.
        KeyboardInterrupt: If the user interrupts it. The same command goes on with what was found.
    """
    if find_spec("pycolmap") is None:
        raise ModuleNotFoundError("No module named 'pycolmap'", name="pycolmap")
    console = Console()
    photos, videos = gather(job.inputs, job.masks)
    _check_inputs(job, photos, videos)
    is_new = not job.output.exists()
    if _prepare_work(job, [*(photo.path for photo in photos), *videos]):
        console.print("Going on with the capture that was interrupted.")
    try:
        with Stages(console) as stages:
            images = [*_copied(job, photos, stages), *_framed(job, videos, stages)]
            _check_distance(job, images)
            task = _task(job, images, is_video=not photos)
            model, diagnosis = _reconstructed(task, job.work, stages)
    except CaptureError:
        shutil.rmtree(job.work, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):
                job.output.rmdir()
        raise
    except KeyboardInterrupt:
        console.print("The same command goes on with what was found so far.")
        raise
    model, job = _with_scale(job, upright(model), console)
    _write(job, task, model, diagnosis, images, {photo.stem for photo in photos if photo.mask}, stages.seconds)
    _tell(console, job, task, model, diagnosis, images)
    return job.output


# --- before ----------------------------------------------------------------------------------------------------------


def _check_inputs(job: CapturePhotos, photos: Sequence[Source], videos: Sequence[Path]) -> None:
    """Refuses what cannot work, and options without an effect, before anything is written."""
    if not videos and len(photos) < 2:
        named = photos[0].path if photos else job.inputs[0]
        raise CaptureError(f"{named} is {len(photos)} photo: at least 2 are needed, and 30 to 100 make a good capture")
    if job.frames is not None and not videos:
        raise ValueError("--frames has no effect on photos; it is the number of frames of a video")
    check_formats(photos)


def _check_distance(job: CapturePhotos, images: Sequence[Upright]) -> None:
    """Refuses a distance between photos that do not exist, before the long work."""
    known = {name for image in images for name in (image.name, Path(image.name).stem)}
    for name in job.distance[:2] if job.distance is not None else ():
        if name not in known:
            raise CaptureError(f"--distance: there is no photo {name}; there is, for example, {images[0].name}")


def _with_scale(job: CapturePhotos, model: Model, console: Console) -> tuple[Model, CapturePhotos]:
    """Returns the model in metres. If one of the two photos has no pose, the work is not lost: it has no scale then."""
    if job.distance is None:
        return model, job
    try:
        return scaled(model, *job.distance), job
    except CaptureError as error:
        console.print(f"--distance has no effect: {error}", style="yellow", markup=False, soft_wrap=True)
        return model, dataclasses.replace(job, distance=None)


def _prepare_work(job: CapturePhotos, files: Sequence[Path]) -> bool:
    """Creates the work folder. Returns whether there is one of the same photos and settings, which goes on."""
    output, told = job.output, json.dumps(_inputs(job, files), indent=1)
    if output.exists() and not output.is_dir():
        raise FileExistsError(f"output must be a folder, {output} is a file")
    known = job.work / INPUTS
    goes_on = known.is_file() and not (output / "transforms.json").exists()
    if goes_on and known.read_text(encoding="utf-8") != told:
        raise FileExistsError(
            f"{output} holds an unfinished capture of other photos or settings. "
            f"Remove {job.work}, or choose another folder"
        )
    if not goes_on and output.is_dir() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty. Choose another folder: -o SCENE")
    try:
        for name in ("images", "masks"):
            (job.work / name).mkdir(parents=True, exist_ok=True)
        known.write_text(told, encoding="utf-8")
    except OSError as error:
        raise OSError(f"cannot write to the folder {output}: {error.strerror}") from error
    return goes_on


def _inputs(job: CapturePhotos, files: Sequence[Path]) -> dict[str, Any]:
    """Returns what the work depends on: files with sizes and times, and settings."""
    settings = {name: str(value) for name, value in dataclasses.asdict(job).items()}
    for name in ("inputs", "output", "distance", "keep_work"):
        del settings[name]
    stats = [(str(file), file.stat()) for file in files]
    return {"settings": settings, "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]}


# --- stages ----------------------------------------------------------------------------------------------------------


def _copied(job: CapturePhotos, photos: Sequence[Source], stages: Stages) -> list[Upright]:
    """Writes upright copies of the photos."""
    if not photos:
        return []
    images, masks = job.work / "images", job.work / "masks"
    own = [photo.mask for photo in photos if photo.mask is not None]
    least = threshold(own) if own else WHITE_ENOUGH
    with stages("photos") as report, ThreadPoolExecutor(threads()) as pool:
        written = []
        try:
            for image in pool.map(lambda photo: write_upright(photo, images, masks, least), photos):
                written.append(image)
                report(len(written) / len(photos), f"{len(written)} of {len(photos)}")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return written


def _framed(job: CapturePhotos, videos: Sequence[Path], stages: Stages) -> list[Upright]:
    """Writes the frames of the videos that are worth a pose."""
    written: list[Upright] = []
    for number, video in enumerate(videos):
        stem = "frame" if len(videos) == 1 else f"video{number + 1}"
        with stages(f"looking at {video.name}") as report:
            chosen = film.choose_frames(video, job.frames, report=report)
        with stages(f"frames of {video.name}") as report:
            written += film.write_frames(video, chosen, job.work / "images", stem=stem, report=report)
            report(1.0, f"{len(chosen)} frames")
    return written


def _task(job: CapturePhotos, images: Sequence[Upright], *, is_video: bool) -> Job:
    """Returns the task of structure from motion."""
    keys = [_camera_key(job, place, image) for place, image in enumerate(images)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    first = {key: image for key, image in reversed(list(zip(keys, images, strict=True)))}
    return Job(
        tuple(JobImage(image.name, numbers[key], image.masked) for key, image in zip(keys, images, strict=True)),
        tuple(JobCamera(*first[key].size, first[key].focal) for key in numbers),
        is_video=is_video,
        matching=job.matching,
        image_size=job.image_size,
        features=job.features,
        seed=job.seed,
    )


def _camera_key(job: CapturePhotos, place: int, image: Upright) -> Any:
    """Returns what photos of one camera have in common."""
    return {"auto": image.camera, "one": image.size, "each": place}[job.cameras]


def _reconstructed(task: Job, work: Path, stages: Stages) -> tuple[Model, Diagnosis]:
    """Finds the cameras, with a progress bar for each stage that the process reports."""
    with _following(stages) as report:
        return reconstruct(task, work, report)


@contextlib.contextmanager
def _following(stages: Stages) -> Iterator[Callable[[str, float, str], None]]:
    """Context of a function that shows the stage which it is told. A new name ends the stage before."""
    with contextlib.ExitStack() as stack:
        current: dict[str, Callable[..., None]] = {}

        def report(stage: str, done: float, note: str) -> None:
            if stage not in current:
                stack.close()
                current.clear()
                current[stage] = stack.enter_context(stages(stage))
            current[stage](done, note)

        yield report


# --- results ---------------------------------------------------------------------------------------------------------


def _write(
    job: CapturePhotos,
    task: Job,
    model: Model,
    diagnosis: Diagnosis,
    images: Sequence[Upright],
    with_mask: set[str],
    seconds: dict[str, float],
) -> None:
    """Writes the capture. `transforms.json` comes last: without it the folder is no capture, and work can go on."""
    listed = {image.name: Path(image.name).stem in with_mask and image.masked for image in images}
    for image in images:
        if not listed[image.name]:
            (job.work / "masks" / f"{image.name}.png").unlink(missing_ok=True)
    for name in ("images", "masks") if any(listed.values()) else ("images",):
        shutil.rmtree(job.output / name, ignore_errors=True)
        shutil.copytree(job.work / name, job.output / name, copy_function=_linked)
    write_json(_report(task, model, diagnosis, images, seconds), job.output / REPORT)
    write_scene(model, {image.name: image for image in images}, listed, job.output)
    if not job.keep_work:
        shutil.rmtree(job.work, ignore_errors=True)
    _draw(job.output)


def _draw(folder: Path) -> None:
    """Draws a capture that is written."""
    capture = load(folder)
    region = region_of_interest(capture)
    scene = scene_of(capture.photos, capture.points, center=region.center, radius=region.radius)
    draw(scene, folder / PICTURE)
    write_page(scene, capture.photos, folder / PAGE, title=folder.name, marked=frozenset())


def _linked(source: str, target: str) -> None:
    """Gives a file of the work folder its place in the capture, without a copy where the file system can."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def _report(
    task: Job, model: Model, diagnosis: Diagnosis, images: Sequence[Upright], seconds: dict[str, float]
) -> dict[str, Any]:
    groups = [diagnosis.group.count(group) for group in range(max(diagnosis.group, default=-1) + 1)]
    return {
        "images": len(task.images),
        "registered": len(model.names),
        "missing": {photo.name: photo.reason for photo in missing(task, model, diagnosis, images)},
        "advice": advice(task, model, diagnosis, images),
        "reprojection_error": float(model.errors.mean()) if len(model.errors) else None,
        "points": len(model.positions),
        "models": groups,
        "cameras": [dict(camera) for camera in model.cameras],
        "attempts": list(diagnosis.attempts),
        "notes": list(diagnosis.notes),
        "seconds": seconds,
    }


def _tell(
    console: Console, job: CapturePhotos, task: Job, model: Model, diagnosis: Diagnosis, images: Sequence[Upright]
) -> None:
    """Prints what was found, what is missing and why, and what to do next."""

    def say(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    lost = missing(task, model, diagnosis, images)
    error = float(model.errors.mean()) if len(model.errors) else float("nan")
    count, kind = len(task.images), "frames" if task.is_video else "photos"
    say(
        f"{len(model.names)} of {count} {kind} have a pose ({100 * len(model.names) / count:.0f} %). Mean reprojection "
        f"error {error:.2f} pixels, {len(model.positions):,} points.",
        "green" if not lost else "yellow",
    )
    for photo in lost[:MOST_LINES]:
        say(f"  without a pose: {photo.name}, {photo.reason}")
    if len(lost) > MOST_LINES:
        say(f"  and {len(lost) - MOST_LINES} more: {job.output / REPORT} names them")
    if error > GOOD_ERROR:
        say(f"An error above {GOOD_ERROR:g} pixels is large: something moved, or the zoom changed.", "yellow")
    for sentence in diagnosis.notes:
        say(sentence, "yellow")
    if lost and (sentences := advice(task, model, diagnosis, images)):
        say("Photograph again:")
        for sentence in sentences:
            say(f"  {sentence}")
    scale = "metres" if job.distance is not None else "no known unit (--distance gives one)"
    say(f"Wrote {job.output}: z points up by the cameras, lengths in {scale}. Look at {PAGE} in a browser.")
    say(f"Next: ns-train staf-nerf --data {shlex.quote(str(job.output))}")
