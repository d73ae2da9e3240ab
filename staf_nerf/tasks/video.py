"""Videos: a field of time and place is fitted to all pixels of all frames.

Conventions: a video is (frames, height, width, 3), uint8. Coordinates are (t, x, y). A frame has the coordinates (x, y)
of an image (`staf_nerf.signals.raster`). The step from one frame to the next is `time_step` times that from one pixel
to the next, and the middle of the video is t = 0. Field values are the pixels' values, mapped to [-1, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Generator, Tensor, nn

from staf_nerf.config import FieldConfig, FitConfig, check_range
from staf_nerf.fields import NeuralField
from staf_nerf.figures.plot import new_figure, save_figure
from staf_nerf.metrics.image import image_psnr, psnr, render_and_measure
from staf_nerf.signals.raster import Pixels, Raster, render
from staf_nerf.signals.sampling import SampledSignal, first_omega, refuse_unused_frequency, to_learn
from staf_nerf.tasks.task import Figure, Metrics, Problem, Task

if TYPE_CHECKING:
    from staf_nerf.progress import Stages

MOST_BYTES = 2**31
"""Largest size of a video in memory."""
SHOWN = 5
"""Number of frames in a figure."""


@dataclass(frozen=True)
class VideoConfig:
    """A fit of a video: everything that the preset `video` can set."""

    task: ClassVar[str] = "video"
    """Kind of signal."""
    field: FieldConfig = dataclasses.field(default_factory=lambda: FieldConfig(hidden_features=256, hidden_layers=4))
    """The network and its encoding."""
    fit: FitConfig = dataclasses.field(
        default_factory=lambda: FitConfig(minutes=5.0, points=8192, hidden_learning_rate=2.8e-3, muon_momentum=0.8)
    )
    """Duration and learning rates."""
    bandwidth: float = 0.1
    """Initial bandwidth of the first layer, as a fraction of the Nyquist frequency (half a cycle per pixel).
    It replaces the activation's first_omega and suits any image size. 0: use that."""
    time_step: float = 1.0
    """Step from one frame to the next, in steps from one pixel to the next.
    A smaller value suits slow motion: neighbouring frames then share more."""
    max_image_size: int = 320
    """Longest side of a frame in pixels. Larger videos are reduced. 0: no limit."""

    def __post_init__(self) -> None:
        check_range(self, bandwidth=(0, 100), time_step=(1e-3, 1e3), max_image_size=(0, 2**16))


@dataclass(frozen=True)
class VideoOptions:
    """What a fit of a video writes."""

    scale: float = 1.0
    """Resolution of the written video, relative to that of the fit."""
    slow_motion: int = 1
    """Number of written frames for each frame of the file. They are shown at the file's rate."""

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"scale must be positive, got {self.scale}")
        if self.slow_motion < 1:
            raise ValueError(f"slow_motion must be >= 1, got {self.slow_motion}")


@dataclass(frozen=True)
class Clip:
    """The size and rate of a video: everything that is needed to render a field as such a video."""

    frames: int
    height: int
    width: int
    rate: float
    """Frames per second."""
    time_step: float = 1.0
    """Step from one frame to the next, in steps from one pixel to the next."""

    @property
    def raster(self) -> Raster:
        """The raster of a frame."""
        return Raster(self.height, self.width, 3, 0.0, 255.0, "uint8")

    def times(self, places: Tensor) -> Tensor:
        """Returns the coordinates t of positions in frames from the start. The first frame is at ½."""
        return (2.0 * places - self.frames) * (self.time_step / max(self.height, self.width))


class VideoSignal(SampledSignal):
    """The pixels of a video as a signal.

    Args:
        pixels: The video, (frames, height, width, 3) uint8. It is not copied.
        clip: Size and rate of the video.
        config: Settings of the fit.
        device: Device of the batches.
    """

    def __init__(self, pixels: Pixels, clip: Clip, config: VideoConfig, *, device: torch.device | str = "cpu") -> None:
        self.clip, self.device = clip, device
        self._values = torch.from_numpy(pixels).reshape(-1, 3)
        super().__init__(len(self._values), in_epochs=bool(config.fit.epochs))

    def batch(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Returns coordinates (count, 3) and values (count, 3) in [-1, 1]; see `Sampler` for the count."""
        index = self._sampler.draw(count, generator)
        raster, size = self.clip.raster, self.clip.height * self.clip.width
        frame, pixel = index // size, index % size
        place = raster.coordinates(pixel // raster.width + 0.5, pixel % raster.width + 0.5)
        points = torch.cat([self.clip.times(frame + 0.5)[:, None], place], -1)
        return points.to(self.device), raster.normalize(self._values[index]).to(self.device)

    def losses(self, field: nn.Module, batch: tuple[Tensor, Tensor]) -> Mapping[str, Tensor]:
        """Returns the mean squared error for values in [-1, 1]."""
        points, values = batch
        return {"squared error": (to_learn(field, points) - values).square().mean()}


class AtTime(nn.Module):
    """A field of (t, x, y) at one time, as a field of (x, y)."""

    def __init__(self, field: nn.Module, time: float) -> None:
        super().__init__()
        self.field, self.time = field, time

    def forward(self, x: Tensor) -> Tensor:
        return self.field(nn.functional.pad(x, (1, 0), value=self.time))


@dataclass(frozen=True, kw_only=True)
class VideoProblem(Problem):
    """A video to fit."""

    frame: Clip
    pixels: Pixels
    """(frames, height, width, 3), uint8."""

    @property
    def lines(self) -> list[str]:
        clip = self.frame
        return [f"{clip.frames} frames of {clip.width} x {clip.height} at {clip.rate:g} per second"]

    def signal(self, device: torch.device | str) -> VideoSignal:
        return VideoSignal(self.pixels, self.frame, self.config, device=device)

    def field(self, generator: Generator | None = None) -> NeuralField:
        return TASK.field(self.config, self.frame, generator=generator)

    def epoch_metrics(self, device: torch.device | str) -> Callable[[nn.Module], dict[str, float]]:
        raster = self.frame.raster

        def metrics(field: nn.Module) -> dict[str, float]:
            frames = zip(self._slices(field), self.pixels, strict=True)
            return {"psnr": _mean_psnr([image_psnr(one, raster, truth, device=device) for one, truth in frames])}

        return metrics

    def evaluate(self, field: nn.Module, options: VideoOptions, *, device: torch.device | str) -> Metrics:
        return self.render(field, device)[1]

    def render(self, field: nn.Module, device: torch.device | str) -> tuple[Pixels, Metrics]:
        """Returns the rendered video, and its metrics: "psnr" over all pixels, and the mean "ssim" of the frames."""
        raster, found = self.frame.raster, np.empty_like(self.pixels)
        rows = []
        for number, (one, truth) in enumerate(zip(self._slices(field), self.pixels, strict=True)):
            found[number], metrics = render_and_measure(one, raster, truth, device=device)
            rows.append(metrics)
        ssim = None if any(row["ssim"] is None for row in rows) else float(np.mean([row["ssim"] for row in rows]))
        return found, {"psnr": _mean_psnr([row["psnr"] for row in rows]), "ssim": ssim}

    def _slices(self, field: nn.Module) -> Iterator[AtTime]:
        """Yields the field at the time of each frame."""
        for time in self.frame.times(torch.arange(self.frame.frames) + 0.5).tolist():
            yield AtTime(field, time)

    def write(
        self, field: nn.Module, output: Path, options: VideoOptions, stages: Stages, *, device: torch.device | str
    ) -> tuple[Metrics, list[Figure]]:
        found, metrics = None, {}
        with stages.attempt("metrics"):
            found, metrics = self.render(field, device)
        with stages.attempt("video") as report:
            made = found
            if made is None or options != VideoOptions():
                made = _rendered(field, self.frame, options, device, report)
            write_video(output / "video.mp4", made, self.frame.rate)
        figures: list[Figure] = []
        with stages.attempt("pictures"):
            if found is not None:
                draw_frames(output / "frames.png", self.pixels, found)
                figures = [("frames: the file, the fit, and the error of the fit", output / "frames.png")]
        return metrics, figures


def _mean_psnr(values: list[float | None]) -> float:
    """Returns the PSNR over all frames, which has the mean of their squared errors."""
    return psnr(float(np.mean([10.0 ** (-(value or 0.0) / 10.0) for value in values])), 1.0)


def _rendered(
    field: nn.Module, clip: Clip, options: VideoOptions, device: torch.device | str, report: Callable[..., None]
) -> Iterator[Pixels]:
    """Yields the frames of a video, with more of them for slow motion."""
    count = clip.frames * options.slow_motion
    places = (torch.arange(count) + 0.5) / options.slow_motion
    for number, time in enumerate(clip.times(places).tolist(), 1):
        yield render(AtTime(field, time), clip.raster, scale=options.scale, device=device)
        report(number / count)


class VideoTask(Task):
    """Fits a video. Writes the field, the video at any size and speed, metrics and a report."""

    name = "video"
    title = "Videos"
    coordinates = 3
    config = VideoConfig()
    options = VideoOptions()
    metric, peak = "psnr", 2.0
    methods = ("video", "video+sine")
    results = ("video.mp4", "frames.png")

    def read(self, file: Path, config: VideoConfig, *, seed: int = 0) -> VideoProblem:
        refuse_unused_frequency(config.field, bandwidth=config.bandwidth)
        pixels, rate = read_video(file, max_image_size=config.max_image_size)
        frames, height, width, _ = pixels.shape
        clip = Clip(frames, height, width, rate, config.time_step)
        return VideoProblem(file=file, config=config, frame=clip, seed=seed, pixels=pixels)

    def frame(self, description: Mapping[str, Any]) -> Clip:
        return Clip(**description)

    def field(self, config: VideoConfig, frame: Clip, *, generator: Generator | None = None) -> NeuralField:
        longest = max(frame.height, frame.width)
        field = first_omega(config.field, in_features=3, samples=longest, bandwidth=config.bandwidth)
        return NeuralField(3, 3, field, generator=generator)

    def sizes(self) -> Clip:
        return Clip(100, 256, 256, 25.0)

    def meaning(self, config: VideoConfig, frame: Clip) -> tuple[str, str]:
        end = float(frame.times(torch.tensor(float(frame.frames))))
        where = (
            f"(t, x, y): t in [-{end:g}, {end:g}] are the {frame.frames} frames; x to the right and y down, relative "
        )
        return f"{where}to the frame's centre; [-1, 1] is the longer side", "red, green and blue; -1 is 0, 1 is 255"


# --- files -----------------------------------------------------------------------------------------------------------


def read_video(path: Path, *, max_image_size: int = 0) -> tuple[Pixels, float]:
    """Reads a video, such as MP4 or GIF.

    Args:
        path: The file.
        max_image_size: Longest side of a frame in pixels. Larger videos are reduced. 0: no limit.

    Returns:
        The frames (frames, height, width, 3) uint8, and the number of frames per second.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is not a video, or takes more than 2 GB.
    """
    import av
    from av.error import FFmpegError

    if not path.is_file():
        raise FileNotFoundError(f"the video {path} does not exist")
    frames, size = [], 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path} contains no video")
            stream = container.streams.video[0]
            rate = float(stream.average_rate or stream.guessed_rate or 25)
            for frame in container.decode(stream):
                frames.append(_reduced(frame, max_image_size))
                size += frames[-1].nbytes
                if size > MOST_BYTES:
                    raise ValueError(f"{path} takes more than 2 GB in memory; choose a smaller --max-image-size")
    except FFmpegError as error:
        raise ValueError(f"{path} cannot be read as a video: {error.strerror}") from error
    if not frames:
        raise ValueError(f"{path} contains no frames")
    return np.stack(frames), rate


def _reduced(frame: Any, max_image_size: int) -> Pixels:
    """Returns a decoded frame (height, width, 3), whose longest side is at most that many pixels."""
    ratio = min(max_image_size / max(frame.width, frame.height), 1.0) if max_image_size else 1.0
    width, height = (max(round(ratio * side), 1) for side in (frame.width, frame.height))
    return frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")


def write_video(path: Path, frames: Pixels | Iterator[Pixels], rate: float) -> None:
    """Writes frames (height, width, 3) uint8 as MP4.

    H.264 needs even sides: the last row or column of an odd side is repeated.

    Raises:
        OSError: If the file cannot be written.
    """
    import av
    from av.error import FFmpegError

    try:
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream: Any = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(10**5))
            stream.pix_fmt, stream.options = "yuv420p", {"crf": "16"}
            for pixels in frames:
                odd = [(0, side % 2) for side in pixels.shape[:2]]
                even = np.pad(pixels, [*odd, (0, 0)], mode="edge")
                if not stream.codec_context.is_open:
                    stream.height, stream.width = even.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            container.mux(stream.encode())
    except FFmpegError as error:
        raise OSError(f"could not write {path}: {error.strerror}") from error


def draw_frames(path: Path, truth: Pixels, found: Pixels) -> None:
    """Draws a few frames: the file's above, the fit's below them, and the absolute error."""
    chosen = np.unique(np.linspace(0, len(truth) - 1, SHOWN).round().astype(int))
    height, width = truth.shape[1:3]
    figure, axes = new_figure(3, len(chosen), (2.6 * len(chosen), 3 * 2.6 * height / width))
    for column, number in enumerate(chosen):
        error = np.abs(found[number].astype(float) - truth[number]).mean(-1) / 255.0
        axes[0][column].set_title(f"frame {number + 1}", fontsize=9)
        axes[0][column].imshow(truth[number])
        axes[1][column].imshow(found[number])
        axes[2][column].imshow(error, cmap="magma", vmin=0.0, vmax=0.25)
        for row in range(3):
            axes[row][column].set_axis_off()
    save_figure(figure, path)


TASK = VideoTask()
