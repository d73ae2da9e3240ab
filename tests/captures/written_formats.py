"""Captures in the formats of other programs, each with the projection that the program documents for its numbers.

A function writes a capture. It returns for each image the function from points of the world, (N, 3), to pixels, (N, 2).
Those functions use the numbers that were written, in the format's own axes and units. They share nothing with the
readers. Pixels are returned as this project counts them: the centre of the first one is at (0.5, 0.5).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

Projection = Callable[[np.ndarray], np.ndarray]
Projections = dict[str, Projection]

WIDTH, HEIGHT, FOCAL = 48, 36, 50.0
ALL_AROUND = WIDTH, WIDTH // 2
"""Size of an image of all directions."""
POINTS = np.random.default_rng(1).uniform(-0.5, 0.5, (12, 3))
COLORS = np.random.default_rng(2).integers(0, 256, (12, 3))


def views(count: int = 4) -> list[tuple[np.ndarray, np.ndarray]]:
    """World-to-camera rotations and translations with OpenCV's axes, of cameras that see all of `POINTS`."""
    found = []
    for i in range(count):
        angle = 0.3 + 1.7 * i
        position = np.array([3 * np.cos(angle), 3 * np.sin(angle), 0.6 + 0.4 * i])
        forward = -position / np.linalg.norm(position)
        right = np.cross(forward, [0.1, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        found.append((rotation, -rotation @ position))
    return found


def write_images(folder: Path, names: list[str], size: tuple[int, int] = (WIDTH, HEIGHT)) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", size, (10 * i, 100, 200)).save(folder / name)
    return names


def numbered(count: int, suffix: str = ".png") -> list[str]:
    return [f"{i:03d}{suffix}" for i in range(count)]


def brown(xy: np.ndarray, k: tuple[float, ...], across: float, down: float) -> np.ndarray:
    """Brown's distortion. `across` is the coefficient of r² + 2x², `down` that of r² + 2y²."""
    x, y = xy.T
    r2 = x**2 + y**2
    radial = 1 + sum(coefficient * r2 ** (i + 1) for i, coefficient in enumerate(k))
    return np.stack(
        [
            x * radial + across * (r2 + 2 * x**2) + 2 * down * x * y,
            y * radial + down * (r2 + 2 * y**2) + 2 * across * x * y,
        ],
        -1,
    )


def angles(xy: np.ndarray) -> np.ndarray:
    """Normalised coordinates of an equidistant fisheye lens."""
    r = np.hypot(*xy.T)[:, None]
    return xy * np.arctan(r) / r


def ahead(local: np.ndarray) -> np.ndarray:
    """Normalised coordinates (x right, y down) of points in OpenCV's axes, all of which must be before the camera."""
    assert (local[:, 2] > 0).all()
    return local[:, :2] / local[:, 2:]


# --- LLFF ------------------------------------------------------------------------------------------------------------


def write_llff(folder: Path, *, reduced: int = 1) -> Projections:
    names = write_images(folder / ("images" if reduced == 1 else f"images_{reduced}"), numbered(4, ".JPG"))
    rows = []
    for rotation, translation in views():
        right, down, forward = rotation
        size = HEIGHT * reduced, WIDTH * reduced, FOCAL * reduced
        matrix = np.column_stack([down, right, -forward, -rotation.T @ translation, size])
        rows.append([*matrix.ravel(), 1.0, 5.0])
    np.save(folder / "poses_bounds.npy", rows)

    def project(points: np.ndarray, row: list[float]) -> np.ndarray:
        matrix = np.array(row[:15]).reshape(3, 5)
        depth = -(points - matrix[:, 3]) @ matrix[:, 2]
        assert (depth > 0).all()
        u = (points - matrix[:, 3]) @ matrix[:, 1] / depth * matrix[2, 4] + matrix[1, 4] / 2
        v = (points - matrix[:, 3]) @ matrix[:, 0] / depth * matrix[2, 4] + matrix[0, 4] / 2
        return np.stack([u, v], -1) / reduced

    return {name: lambda points, row=row: project(points, row) for name, row in zip(names, rows, strict=True)}


# --- NeuS, Middlebury ------------------------------------------------------------------------------------------------

CAMERA_MATRIX = np.array([[FOCAL, 0.0, 22.3], [0.0, FOCAL + 2, 19.1], [0.0, 0.0, 1.0]])


def through(projection: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels of points by a projection (3, 4), as its numbers count them."""
    homogeneous = points @ projection[:, :3].T + projection[:, 3]
    return homogeneous[:, :2] / homogeneous[:, 2:]


def write_neus(
    folder: Path, *, matrix: np.ndarray = CAMERA_MATRIX, center: float = 0.5, dtype: type = np.float64
) -> Projections:
    """The projections of every second image are negative, as scale and sign of a projection mean nothing."""
    names = write_images(folder / "image", numbered(4))
    write_images(folder / "mask", [f"{i:06d}.png" for i in range(4)])
    arrays, projections = {}, {}
    for i, (rotation, translation) in enumerate(views()):
        projection = matrix @ np.column_stack([rotation, translation]) * (-0.3 if i % 2 else 2.0)
        arrays[f"world_mat_{i}"] = np.vstack([projection, [0, 0, 0, 1]]).astype(dtype)
        arrays[f"world_mat_inv_{i}"] = np.eye(4)
        arrays[f"scale_mat_{i}"] = np.array([[1.5, 0, 0, 0.1], [0, 1.5, 0, -0.2], [0, 0, 1.5, 0.3], [0, 0, 0, 1]])
        projections[names[i]] = lambda points, projection=projection: through(projection, points) + center
    np.savez(folder / "cameras_sphere.npz", **arrays)
    return projections


def write_middlebury(folder: Path) -> Projections:
    names = write_images(folder, [f"temple{i:04d}.png" for i in range(4)])
    lines, projections = [str(len(names))], {}
    for name, (rotation, translation) in zip(names, views(), strict=True):
        lines.append(
            " ".join([name, *map(repr, map(float, (*CAMERA_MATRIX.ravel(), *rotation.ravel(), *translation)))])
        )
        projection = CAMERA_MATRIX @ np.column_stack([rotation, translation])
        projections[name] = lambda points, projection=projection: through(projection, points)
    (folder / "temple_par.txt").write_text("\n".join(lines) + "\n")
    return projections


# --- Metashape -------------------------------------------------------------------------------------------------------

COMPONENT = (2.5, Rotation.from_euler("xyz", [20, -35, 130], degrees=True).as_matrix(), np.array([7.0, -8.0, 9.0]))
"""Scale, rotation and translation from a chunk to the world."""
METASHAPE = {"f": FOCAL, "cx": 1.7, "cy": -0.9, "b1": 1.3, "k1": 0.1, "k2": -0.05, "k3": 0.02, "k4": -0.01}
METASHAPE |= {"p1": 0.004, "p2": -0.003}


def write_metashape(
    folder: Path, *, kind: str = "frame", placed: bool = True, origin: tuple[float, ...] = (0, 0, 0), **changes: float
) -> Projections:
    """A fifth photo is not aligned. `origin` is where the middle of the points lies in the world."""
    width, height = ALL_AROUND if kind == "spherical" else (WIDTH, HEIGHT)
    names = write_images(folder / "ring", numbered(4, ".jpg"), (width, height))
    lens = METASHAPE | changes
    scale, turn, shift = (*COMPONENT[:2], COMPONENT[2] + origin) if placed else (1.0, np.eye(3), np.zeros(3))
    projections, cameras = {}, []
    for i, (name, (rotation, translation)) in enumerate(zip(names, views(), strict=True)):
        in_chunk = np.eye(4)
        in_chunk[:3, :3] = turn.T @ rotation.T
        in_chunk[:3, 3] = turn.T @ (-rotation.T @ translation + origin - shift) / scale
        text = " ".join(map(repr, map(float, in_chunk.ravel())))
        label = name if i % 2 else name.removesuffix(".jpg")
        cameras.append(
            f'<camera id="{i}" sensor_id="1" component_id="0" label="{label}"><transform>{text}</transform></camera>'
        )

        def project(points: np.ndarray, in_chunk: np.ndarray = in_chunk) -> np.ndarray:
            local = ((points + origin - shift) @ turn / scale - in_chunk[:3, 3]) @ in_chunk[:3, :3]
            if kind == "spherical":
                x, y, z = local.T
                f = width / (2 * np.pi)
                return np.stack([width / 2 + f * np.arctan2(x, z), height / 2 + f * np.arctan2(y, np.hypot(x, z))], -1)
            xy = angles(ahead(local)) if kind == "fisheye" else ahead(local)
            x, y = brown(xy, (lens["k1"], lens["k2"], lens["k3"], lens["k4"]), lens["p1"], lens["p2"]).T
            u = WIDTH * 0.5 + lens["cx"] + x * lens["f"] + x * lens["b1"] + y * lens.get("b2", 0.0)
            return np.stack([u, HEIGHT * 0.5 + lens["cy"] + y * lens["f"]], -1)

        projections[name] = project
    size = f'<resolution width="{width}" height="{height}"/>'
    values = "".join(f"<{name}>{value!r}</{name}>" for name, value in lens.items())
    initial = f'<calibration type="{kind}" class="initial">{size}<f>1.0</f></calibration>'
    adjusted = f'<calibration type="{kind}" class="adjusted">{size}{values}</calibration>'
    calibration = "" if kind == "spherical" else adjusted + initial
    numbers = (" ".join(map(repr, map(float, np.ravel(value)))) for value in (turn, shift, scale))
    transform = "<rotation>{}</rotation><translation>{}</translation><scale>{}</scale>".format(*numbers)
    transform = f"<transform>{transform}</transform>" if placed else ""
    (folder / "cameras.xml").write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<document version="2.0.0"><chunk label="Chunk 1" enabled="true"><sensors next_id="2">
<sensor id="0" label="unused" type="frame"><resolution width="9" height="9"/></sensor>
<sensor id="1" label="lens" type="{kind}">{size}{calibration}</sensor></sensors>
<components next_id="1"><component id="0" label="Component 1">{transform}</component></components>
<cameras next_id="5"><group id="0" label="ring">{"".join(cameras)}</group>
<camera id="4" sensor_id="1" label="lost"/></cameras></chunk></document>"""
    )
    return projections


# --- RealityCapture --------------------------------------------------------------------------------------------------


def write_realitycapture(folder: Path, *, coefficients: tuple[float, ...] = (0.1, -0.05, 0.02, -0.01, 0.004, -0.003)):
    names = write_images(folder / "images", numbered(4, ".jpg"))
    lines, projections = ["#name,x,y,alt,heading,pitch,roll,f,px,py,k1,k2,k3,k4,t1,t2"], {}
    f, px, py = 37.5, 0.02, -0.03
    for name, (rotation, translation) in zip(names, views(), strict=True):
        position = -rotation.T @ translation
        axes = rotation.T * [1, -1, -1]
        turned, pitch, roll = Rotation.from_matrix(axes).as_euler("ZXY", degrees=True)
        numbers = (*position, -turned, pitch, roll, f, px, py, *coefficients)
        lines.append(",".join([name, *map(repr, map(float, numbers))]))

        def project(points: np.ndarray, numbers: tuple = numbers) -> np.ndarray:
            heading, pitch, roll = np.radians(numbers[3:6])
            local = points - numbers[:3]
            # First the turn to the heading, clockwise seen from above, then up by the pitch, then the roll.
            east, north = local[:, 0], local[:, 1]
            right, front = (
                east * np.cos(heading) - north * np.sin(heading),
                east * np.sin(heading) + north * np.cos(heading),
            )
            up = local[:, 2]
            front, up = front * np.cos(pitch) + up * np.sin(pitch), up * np.cos(pitch) - front * np.sin(pitch)
            right, up = right * np.cos(roll) - up * np.sin(roll), right * np.sin(roll) + up * np.cos(roll)
            xy = ahead(np.stack([right, -front, -up], -1))
            k1, k2, k3, k4, t1, t2 = numbers[9:]
            longer = max(WIDTH, HEIGHT)
            pixels = brown(xy, (k1, k2, k3, k4), t1, t2) * numbers[6] * longer / 36
            return pixels + np.array([WIDTH / 2 + numbers[7] * longer, HEIGHT / 2 + numbers[8] * longer])

        projections[name] = project
    (folder / "registration.csv").write_text("\n".join(lines) + "\n")
    return projections


# --- OpenSfM ---------------------------------------------------------------------------------------------------------

OPENSFM = {
    "perspective": {"focal": 1.05, "k1": 0.1, "k2": -0.05},
    "brown": {
        **{"focal_x": 1.05, "focal_y": 1.1, "c_x": 0.02, "c_y": -0.03},
        **{"k1": 0.1, "k2": -0.05, "k3": 0.02, "p1": 0.004, "p2": -0.003},
    },
    "fisheye": {"focal": 1.05, "k1": 0.1, "k2": -0.05},
    "fisheye_opencv": {
        **{"focal_x": 1.05, "focal_y": 1.1, "c_x": 0.02, "c_y": -0.03},
        **{"k1": 0.1, "k2": -0.05, "k3": 0.02, "k4": -0.01},
    },
    "simple_radial": {"focal_x": 1.05, "focal_y": 1.1, "c_x": 0.02, "c_y": -0.03, "k1": 0.1},
    "spherical": {},
}


def write_opensfm(folder: Path, *, kind: str = "brown", **changes: float) -> Projections:
    """A second reconstruction has one image. The last image of the first one sees no points."""
    width, height = ALL_AROUND if kind == "spherical" else (WIDTH, HEIGHT)
    names = write_images(folder / "images", numbered(5, ".jpg"), (width, height))
    lens = OPENSFM[kind] | changes
    camera = {"projection_type": kind, "width": width, "height": height, **lens}
    shots, projections = {}, {}
    for name, (rotation, translation) in zip(names[:4], views(), strict=True):
        vector = Rotation.from_matrix(rotation).as_rotvec()
        shots[name] = {"rotation": vector.tolist(), "translation": translation.tolist(), "camera": "v2 lens"}

        def project(
            points: np.ndarray, vector: np.ndarray = vector, translation: np.ndarray = translation
        ) -> np.ndarray:
            local = Rotation.from_rotvec(vector).apply(points) + translation
            if kind == "spherical":
                x, y, z = local.T
                normalized = np.stack([np.arctan2(x, z), -np.arctan2(-y, np.hypot(x, z))], -1) / (2 * np.pi)
            else:
                xy = angles(ahead(local)) if "fisheye" in kind else ahead(local)
                k = tuple(lens.get(f"k{i}", 0.0) for i in range(1, 5))
                focal = [lens.get(f"focal_{axis}", lens.get("focal")) for axis in "xy"]
                center = [lens.get(f"c_{axis}", 0.0) for axis in "xy"]
                normalized = brown(xy, k, lens.get("p2", 0.0), lens.get("p1", 0.0)) * focal + center
            # OpenSfM's pixels count from the centre of the first one: w / 2 - 0.5 is the middle.
            return normalized * max(width, height) + [width / 2 - 0.5, height / 2 - 0.5] + 0.5

        projections[name] = project
    points = {
        str(7 * i): {"coordinates": point.tolist(), "color": color.tolist()}
        for i, (point, color) in enumerate(zip(POINTS, COLORS, strict=True))
    }
    small = {"cameras": {}, "shots": {names[4]: shots[names[0]]}, "points": {}}
    large = {"cameras": {"v2 lens": camera}, "shots": dict(reversed(shots.items())), "points": points}
    (folder / "reconstruction.json").write_text(json.dumps([small, large]))
    lines = ["OPENSFM_TRACKS_VERSION_v2"]
    for name in (*names[:3], names[4]):
        lines += [f"{name}\t{7 * i}\t{i}\t0.1\t0.2\t0.01\t1\t2\t3\t-1\t-1" for i in range(len(POINTS))]
    (folder / "tracks.csv").write_text("\n".join([*lines, f"{names[0]}\tlost\t3\t0\t0\t0\t1\t2\t3\t-1\t-1"]) + "\n")
    return projections


# --- OpenMVG ---------------------------------------------------------------------------------------------------------

OPENMVG = {
    "pinhole": {},
    "pinhole_radial_k1": {"disto_k1": [0.1]},
    "pinhole_radial_k3": {"disto_k3": [0.1, -0.05, 0.02]},
    "pinhole_brown_t2": {"disto_t2": [0.1, -0.05, 0.02, 0.004, -0.003]},
    "fisheye": {"fisheye": [0.1, -0.05, 0.02, -0.01]},
}


def write_openmvg(folder: Path, *, kind: str = "pinhole_brown_t2") -> Projections:
    """A fifth view has no pose. Images are in the folder of another machine, as the file says."""
    width, height = ALL_AROUND if kind == "spherical" else (WIDTH, HEIGHT)
    names = write_images(folder / "images", numbered(5, ".jpg"), (width, height))
    size, center = {"width": width, "height": height}, [22.3, 19.1]
    if kind == "spherical":
        content = {"value0": size}
    else:
        content = {**size, "focal_length": FOCAL, "principal_point": center, **OPENMVG[kind]}

    def view(i: int) -> dict:
        data = {"local_path": "", "filename": names[i], **size, "id_view": 10 + i, "id_intrinsic": 3, "id_pose": 20 + i}
        return {
            "key": 10 + i,
            "value": {"polymorphic_id": 1073741824, "ptr_wrapper": {"id": 2147483649 + i, "data": data}},
        }

    extrinsics, projections = [], {}
    for i, (rotation, translation) in enumerate(views()):
        pose = {"rotation": rotation.tolist(), "center": (-rotation.T @ translation).tolist()}
        extrinsics.append({"key": 20 + i, "value": pose})

        def project(points: np.ndarray, pose: dict = pose) -> np.ndarray:
            local = (points - pose["center"]) @ np.array(pose["rotation"]).T
            if kind == "spherical":
                x, y, z = local.T
                turns = np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], -1) / (2 * np.pi)
                return turns * width + [width / 2, height / 2]
            xy = angles(ahead(local)) if kind == "fisheye" else ahead(local)
            values = next(iter(OPENMVG[kind].values()), [])
            k, t = (values[:3], values[3:]) if kind == "pinhole_brown_t2" else (values, [0.0, 0.0])
            return brown(xy, tuple(k), t[1], t[0]) * FOCAL + center + 0.5

        projections[names[i]] = project
    seen = [{"key": 10 + i, "value": {"id_feat": 1, "x": [1.0, 2.0]}} for i in (0, 2, 4)]
    meta = {
        "sfm_data_version": "0.3",
        "root_path": "/home/somebody/photos",
        "views": [view(i) for i in range(5)],
        "intrinsics": [
            {
                "key": 3,
                "value": {
                    "polymorphic_id": 2147483649,
                    "polymorphic_name": kind,
                    "ptr_wrapper": {"id": 2147483660, "data": content},
                },
            }
        ],
        "extrinsics": extrinsics,
        "structure": [{"key": 5 * i, "value": {"X": p.tolist(), "observations": seen}} for i, p in enumerate(POINTS)],
        "control_points": [],
    }
    (folder / "sfm_data.json").write_text(json.dumps(meta))
    return projections


# --- Bundler ---------------------------------------------------------------------------------------------------------


def write_bundler(folder: Path) -> Projections:
    """The second of five images has no pose. Every point is seen by the images 0, 1 and 4."""
    names = write_images(folder / "images", numbered(5, ".jpg"))
    k1, k2 = 0.1, -0.05
    lines, projections, posed = ["# Bundle file v0.3", f"5 {len(POINTS)}"], {}, iter(views())
    for i, name in enumerate(names):
        if i == 1:
            lines += ["0 0 0", "0 0 0", "0 0 0", "0 0 0", "0 0 0"]
            continue
        rotation, translation = next(posed)
        rotation, translation = rotation * [[1], [-1], [-1]], translation * [1, -1, -1]
        rows = [(FOCAL, k1, k2), *rotation, translation]
        lines += [" ".join(map(repr, map(float, row))) for row in rows]

        def project(
            points: np.ndarray, rotation: np.ndarray = rotation, translation: np.ndarray = translation
        ) -> np.ndarray:
            local = points @ rotation.T + translation
            assert (local[:, 2] < 0).all()
            p = -local[:, :2] / local[:, 2:]
            r2 = (p**2).sum(-1, keepdims=True)
            x, y = (FOCAL * (1 + k1 * r2 + k2 * r2**2) * p).T
            return np.stack([WIDTH / 2 + x, HEIGHT / 2 - y], -1)

        projections[name] = project
    for point, color in zip(POINTS, COLORS, strict=True):
        lines += [
            " ".join(map(repr, map(float, point))),
            " ".join(map(str, color)),
            "3 0 5 1.0 2.0 1 6 3.0 4.0 4 7 5.0 6.0",
        ]
    (folder / "bundle").mkdir()
    (folder / "bundle" / "bundle.out").write_text("\n".join(lines) + "\n")
    (folder / "list.txt").write_text("".join(f"./{name} 0 {FOCAL}\n" for name in names))
    return projections


# --- Polycam, Record3D -----------------------------------------------------------------------------------------------


def write_polycam(folder: Path, *, prefix: str = "corrected_") -> Projections:
    names = write_images(folder / "keyframes" / f"{prefix}images", [f"{1000 + i}.jpg" for i in range(4)])
    cameras = folder / "keyframes" / f"{prefix}cameras"
    cameras.mkdir()
    projections = {}
    for name, (rotation, translation) in zip(names, views(), strict=True):
        matrix = np.column_stack([rotation.T * [1, -1, -1], -rotation.T @ translation])
        meta = {f"t_{row}{column}": matrix[row, column] for row in range(3) for column in range(4)}
        meta |= {
            "fx": FOCAL,
            "fy": FOCAL + 1,
            "cx": 22.3,
            "cy": 19.1,
            "width": WIDTH,
            "height": HEIGHT,
            "blur_score": 90.0,
        }
        (cameras / name.replace(".jpg", ".json")).write_text(json.dumps(meta))
        projections[name] = lambda points, matrix=matrix: _arkit(points, matrix, FOCAL, FOCAL + 1, 22.3, 19.1)
    return projections


def _arkit(points: np.ndarray, matrix: np.ndarray, fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """ARKit's camera looks along -z with y up."""
    x, y, z = np.linalg.solve(matrix[:, :3], (points - matrix[:, 3]).T)
    assert (z < 0).all()
    return np.stack([cx + fx * x / -z, cy - fy * y / -z], -1)


def write_record3d(folder: Path, *, each: bool = False) -> Projections:
    """`each`: every image has intrinsics of its own. A thirteenth image, "3(1)", is a copy."""
    names = write_images(folder / "rgb", [f"{i}.jpg" for i in range(12)])
    write_images(folder / "rgb", ["3(1).jpg"])
    poses, projections, intrinsics = [], {}, []
    for i, (name, (rotation, translation)) in enumerate(zip(names, views(12), strict=True)):
        axes, position = rotation.T * [1, -1, -1], -rotation.T @ translation
        poses.append([*Rotation.from_matrix(axes).as_quat(), *position])
        intrinsics.append((FOCAL + i, FOCAL + i + 1, 22.3, 19.1) if each else (FOCAL, FOCAL, 22.3, 19.1))
        matrix = np.column_stack([axes, position])
        projections[name] = lambda points, matrix=matrix, lens=intrinsics[-1]: _arkit(points, matrix, *lens)
    meta = {"w": WIDTH, "h": HEIGHT, "K": [FOCAL, 0, 0, 0, FOCAL, 0, 22.3, 19.1, 1], "poses": poses, "fps": 60}
    (folder / "metadata.json").write_text(json.dumps(meta | ({"perFrameIntrinsicCoeffs": intrinsics} if each else {})))
    return projections


# --- kapture ---------------------------------------------------------------------------------------------------------

KAPTURE = {
    "OPENCV": (FOCAL, FOCAL + 1, 22.3, 19.1, 0.1, -0.05, -0.003, 0.004),
    "SIMPLE_RADIAL": (FOCAL, 22.3, 19.1, 0.1),
    "OPENCV_FISHEYE": (FOCAL, FOCAL + 1, 22.3, 19.1, 0.1, -0.05, 0.02, -0.01),
}


def write_kapture(folder: Path, *, model: str = "OPENCV") -> Projections:
    """Images 0 and 1 are of a camera of its own, 2 and 3 of one on a rig. A fifth has no pose."""
    sensors, reconstruction = folder / "sensors", folder / "reconstruction"
    reconstruction.mkdir(parents=True)
    names = write_images(sensors / "records_data", numbered(5, ".jpg"))
    on_rig = Rotation.from_euler("xyz", [10, 20, 30], degrees=True), np.array([0.1, -0.2, 0.3])
    numbers, projections = [], {}
    for i, (name, (rotation, translation)) in enumerate(zip(names, views(), strict=False)):
        turn, shift = Rotation.from_matrix(rotation), translation
        if i >= 2:
            turn, shift = on_rig[0].inv() * turn, on_rig[0].inv().apply(translation - on_rig[1])
        numbers.append(_kapture_pose(turn, shift))

        def project(points: np.ndarray, turn: Rotation = turn, shift: np.ndarray = shift, i: int = i) -> np.ndarray:
            local = turn.apply(points) + shift
            return _kapture_pixels(on_rig[0].apply(local) + on_rig[1] if i >= 2 else local, model)

        projections[name] = project
    values = ", ".join(map(str, KAPTURE[model]))
    cameras = [f"{camera}, lens, camera, {model}, {WIDTH}, {HEIGHT}, {values}\n" for camera in ("cam", "left")]
    (sensors / "sensors.txt").write_text("# kapture format: 1.1\n" + "".join(cameras) + "gps, , gnss, EPSG:4326\n")
    (sensors / "rigs.txt").write_text(f"rig, left, {_kapture_pose(*on_rig)}\n")
    devices = ["cam", "cam", "rig", "rig"]
    trajectories = [
        f"{10 + i}, {device}, {row}\n" for i, (device, row) in enumerate(zip(devices, numbers, strict=True))
    ]
    (sensors / "trajectories.txt").write_text("# kapture format: 1.1\n" + "".join(trajectories))
    taken = zip(["cam", "cam", "left", "left", "cam"], names, strict=True)
    records = [f"{10 + i}, {camera}, {name}\n" for i, (camera, name) in enumerate(taken)]
    (sensors / "records_camera.txt").write_text("".join(records))
    rows = [", ".join(map(repr, map(float, (*p, *c)))) for p, c in zip(POINTS, COLORS, strict=True)]
    (reconstruction / "points3d.txt").write_text("\n".join(rows) + "\n")
    seen = [f"{i}, sift, {names[0]}, 5, {names[4]}, 6, {names[2]}, 7" for i in range(len(POINTS))]
    (reconstruction / "observations.txt").write_text("\n".join(seen) + "\n")
    return projections


def _kapture_pose(turn: Rotation, shift: np.ndarray) -> str:
    x, y, z, w = turn.as_quat()
    return ", ".join(map(repr, map(float, (w, x, y, z, *shift))))


def _kapture_pixels(local: np.ndarray, model: str) -> np.ndarray:
    """Pixels by COLMAP's camera models."""
    values = KAPTURE[model]
    if model == "SIMPLE_RADIAL":
        f, cx, cy, k = values
        return brown(ahead(local), (k,), 0.0, 0.0) * f + (cx, cy)
    fx, fy, cx, cy, *rest = values
    if model == "OPENCV_FISHEYE":
        return brown(angles(ahead(local)), tuple(rest), 0.0, 0.0) * (fx, fy) + (cx, cy)
    k1, k2, p1, p2 = rest
    return brown(ahead(local), (k1, k2), p2, p1) * (fx, fy) + (cx, cy)
