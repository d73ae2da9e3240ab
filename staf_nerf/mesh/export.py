"""Mesh output: PLY, OBJ (with MTL and PNG) and GLB files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from staf_nerf.mesh.preview import vertex_normals
from staf_nerf.mesh.texture import Texture
from staf_nerf.mesh.triangles import Floats, TriangleMesh, linear_from_srgb

SUFFIXES = (".ply", ".obj", ".glb")
WHITE, BLACK = (255, 255, 255, 255), (0, 0, 0, 255)
"""Colours of an OBJ material: white to multiply the texture by, and black for no specular reflection."""
FAR = 100.0
"""Meshes further from the origin than this number of diagonals are shifted in GLB, which stores float32."""


def check_output(path: Path) -> None:
    """Refuses a file that could not be written, before the work is done.

    Raises:
        ValueError: If the name does not end in .ply, .obj or .glb.
        OSError: If its folder cannot be created or the file cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"the name of a mesh file must end in one of {', '.join(SUFFIXES)}, got {path.name}")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Creates the folder of a file, and refuses a file that could not be written.

    Raises:
        OSError: If the folder cannot be created or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    existed = path.exists()
    with path.open("ab"):
        pass
    if not existed:
        path.unlink()


def write_mesh(path: Path, mesh: TriangleMesh, texture: Texture | None = None) -> list[Path]:
    """Writes a mesh in the format given by the file name, and returns the files that were written.

    The colours are those of the texture, if given, otherwise those of the vertices. GLB stores linear vertex colours
    (glTF 2.0, section 3.7.2.1). Coordinates are written unchanged: they are not rotated to have y up.

    Raises:
        ValueError: As `check_output`, or if a texture is to be written to a PLY file.
        OSError: As `check_output`.
    """
    import trimesh

    check_output(path)
    if texture is not None:
        return _write_textured(path, mesh, texture)
    if path.suffix.lower() == ".ply":
        return _write_ply(path, mesh)
    colors = mesh.colors
    if colors is not None and path.suffix.lower() == ".glb":
        colors = linear_from_srgb(colors)
    converted = trimesh.Trimesh(
        mesh.vertices,
        mesh.triangles,
        vertex_normals=vertex_normals(mesh),
        vertex_colors=None if colors is None else _bytes(colors),
        process=False,
    )
    _export(converted, path)
    return [path]


def _export(converted: Any, path: Path) -> None:
    """Writes a trimesh mesh with its normals. In GLB a mesh far from the origin is centred, in a translated node."""
    middle = converted.bounds.mean(0)
    if path.suffix.lower() == ".glb" and np.abs(middle).max() > FAR * np.linalg.norm(converted.extents):
        import trimesh

        normals = converted.vertex_normals.copy()
        converted.vertices = converted.vertices - middle
        converted.vertex_normals = normals  # setting the vertices discards them
        scene = trimesh.Scene()
        scene.add_geometry(converted, transform=trimesh.transformations.translation_matrix(middle))
        converted = scene
    converted.export(path, include_normals=True)


def _write_ply(path: Path, mesh: TriangleMesh) -> list[Path]:
    """Writes with Open3D, in double precision, so that coordinates of surveys keep their millimetres."""
    import open3d

    vectors = open3d.utility.Vector3dVector
    converted = open3d.geometry.TriangleMesh(
        vectors(mesh.vertices), open3d.utility.Vector3iVector(mesh.triangles.astype(np.int32))
    )
    converted.vertex_normals = vectors(vertex_normals(mesh))
    if mesh.colors is not None:
        converted.vertex_colors = vectors(_bytes(mesh.colors) / 255.0)
    if not open3d.io.write_triangle_mesh(path, converted):
        raise OSError(f"could not write {path}")
    return [path]


def _write_textured(path: Path, mesh: TriangleMesh, texture: Texture) -> list[Path]:
    import trimesh.exchange.obj
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial, SimpleMaterial

    if path.suffix.lower() == ".ply":
        raise ValueError(f"a texture needs a file name that ends in .obj or .glb, got {path.name}")
    corners = mesh.triangles.reshape(-1)
    # One vertex for each pair of a vertex and its texture coordinates.
    pairs = np.concatenate([corners[:, None], texture.coordinates.reshape(-1, 2)], -1)
    unique, index = np.unique(pairs, axis=0, return_inverse=True)
    vertex = unique[:, 0].astype(np.int64)
    picture = Image.fromarray(texture.image)
    if path.suffix.lower() == ".glb":
        material = PBRMaterial(baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=1.0)
    else:
        material = SimpleMaterial(picture, diffuse=WHITE, ambient=WHITE, specular=BLACK, name=path.stem)
    converted = trimesh.Trimesh(
        mesh.vertices[vertex],
        index.reshape(-1, 3),
        vertex_normals=vertex_normals(mesh)[vertex],
        visual=TextureVisuals(uv=unique[:, 1:], material=material),
        process=False,
    )
    if path.suffix.lower() == ".glb":
        _export(converted, path)
        return [path]
    text, files = trimesh.exchange.obj.export_obj(
        converted, include_normals=True, return_texture=True, mtl_name=f"{path.stem}.mtl"
    )
    path.write_text(text)
    written = [path]
    for name, content in files.items():
        target = path.with_name(name)
        target.write_bytes(content)
        written.append(target)
    return written


def _bytes(colors: Floats) -> np.ndarray:
    return (255.0 * colors.clip(0.0, 1.0)).round().astype(np.uint8)
