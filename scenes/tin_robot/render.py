"""Renders the scene "tin robot" with Blender's Cycles: views, cameras, depth and the robot's ground-truth mesh.

Conventions: z is up, one unit is ten centimetres, cameras look along their -z axis (OpenGL, as nerfstudio expects),
depth is the distance along the viewing axis in scene units. Everything is made here, from numbers: no image, model or
light probe of anybody else's is used. Run it in an environment of its own (the product never imports bpy):

    python -m venv blender && blender/bin/pip install bpy==5.0.1 numpy
    blender/bin/python scenes/tin_robot/render.py --output scenes/tin_robot
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector

RESOLUTION = 256
FIELD_OF_VIEW = math.radians(42.0)
LOOK_AT = Vector((0.0, 0.0, 1.05))
SPLITS = {"train": 60, "val": 10, "test": 20}
DEPTH_UNIT = 2e-4  # scene units per step of the 16-bit depth images: 0 to 13.1 units

TEAL, CREAM, RED, OCHRE = (0.02, 0.22, 0.24), (0.80, 0.70, 0.50), (0.55, 0.03, 0.02), (0.75, 0.38, 0.04)


# --- materials -------------------------------------------------------------------------------------------------------


def material(name: str, color=(0.8, 0.8, 0.8), *, roughness=0.5, metallic=0.0, coat=0.0, pattern=None):
    """A principled material; `pattern(tree, coordinates)` returns the socket that drives the base colour."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    tree = made.node_tree
    shader = tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*color, 1.0)
    shader.inputs["Roughness"].default_value = roughness
    shader.inputs["Metallic"].default_value = metallic
    shader.inputs["Coat Weight"].default_value = coat
    if pattern is not None:
        coordinates = tree.nodes.new("ShaderNodeTexCoord").outputs["Object"]
        tree.links.new(pattern(tree, coordinates), shader.inputs["Base Color"])
    return made


def node(tree, kind: str, inputs: dict | None = None, **attributes):
    made = tree.nodes.new(kind)
    for name, value in attributes.items():
        setattr(made, name, value)
    for name, value in (inputs or {}).items():
        if isinstance(value, bpy.types.NodeSocket):
            tree.links.new(value, made.inputs[name])
        else:
            made.inputs[name].default_value = value
    return made


def ramp(tree, value, stops):
    """A colour ramp over a scalar socket; `stops` are (position, colour) pairs."""
    made = node(tree, "ShaderNodeValToRGB", {"Fac": value})
    made.color_ramp.interpolation = "LINEAR"
    elements = made.color_ramp.elements
    while len(elements) < len(stops):
        elements.new(0.5)
    for element, (position, color) in zip(elements, stops):
        element.position, element.color = position, (*color, 1.0)
    return made.outputs["Color"]


def mix(tree, factor, first, second):
    made = node(tree, "ShaderNodeMix", {"Factor": factor}, data_type="RGBA")
    for socket, value in zip([s for s in made.inputs if s.type == "RGBA"], (first, second)):
        if isinstance(value, bpy.types.NodeSocket):
            tree.links.new(value, socket)
        else:
            socket.default_value = (*value, 1.0)
    return next(s for s in made.outputs if s.type == "RGBA")


def lithographed_tin(tree, coordinates):
    """Printed tin: small cells between fine lines, a cream belt, a little wear."""
    cells = node(tree, "ShaderNodeTexVoronoi", {"Vector": coordinates, "Scale": 9.0}, feature="DISTANCE_TO_EDGE")
    printed = ramp(tree, cells.outputs["Distance"], [(0.0, CREAM), (0.05, CREAM), (0.09, TEAL), (1.0, (0.03, 0.30, 0.33))])
    stripes = node(tree, "ShaderNodeTexWave", {"Vector": coordinates, "Scale": 5.0}, bands_direction="Z")
    belt = ramp(tree, stripes.outputs["Fac"], [(0.0, OCHRE), (0.45, OCHRE), (0.55, RED), (1.0, RED)])
    height = node(tree, "ShaderNodeSeparateXYZ", {"Vector": coordinates}).outputs["Z"]
    low = node(tree, "ShaderNodeMath", {0: height, 1: -0.28}, operation="LESS_THAN").outputs[0]
    wear = node(tree, "ShaderNodeTexNoise", {"Vector": coordinates, "Scale": 14.0, "Detail": 6.0}).outputs[0]
    worn = node(tree, "ShaderNodeMath", {0: wear, 1: 0.66}, operation="GREATER_THAN").outputs[0]
    return mix(tree, worn, mix(tree, low, printed, belt), (0.30, 0.29, 0.27))


def wood(light, dark, scale):
    def pattern(tree, coordinates):
        warped = node(tree, "ShaderNodeTexNoise", {"Vector": coordinates, "Scale": 1.3 * scale, "Detail": 5.0})
        rings = node(
            tree, "ShaderNodeTexWave",
            {"Vector": coordinates, "Scale": scale, "Distortion": 5.0, "Detail": 4.0, "Detail Scale": 1.6},
            bands_direction="Y",
        )
        grain = ramp(tree, rings.outputs["Fac"], [(0.15, dark), (0.75, light)])
        return mix(tree, warped.outputs[0], grain, light)

    return pattern


def checks(first, second, scale):
    def pattern(tree, coordinates):
        inputs = {"Vector": coordinates, "Color1": (*first, 1), "Color2": (*second, 1), "Scale": scale}
        return node(tree, "ShaderNodeTexChecker", inputs).outputs["Color"]

    return pattern


def bands(first, second, scale, direction="Z"):
    def pattern(tree, coordinates):
        wave = node(tree, "ShaderNodeTexWave", {"Vector": coordinates, "Scale": scale}, bands_direction=direction)
        return ramp(tree, wave.outputs["Fac"], [(0.45, first), (0.55, second)])

    return pattern


def woven(tree, coordinates):
    """A table mat: two crossing sets of threads, with a wide tartan over them."""
    across = node(tree, "ShaderNodeTexWave", {"Vector": coordinates, "Scale": 1.1}, bands_direction="X")
    along = node(tree, "ShaderNodeTexWave", {"Vector": coordinates, "Scale": 1.1}, bands_direction="Y")
    total = node(tree, "ShaderNodeMath", {0: across.outputs["Fac"], 1: along.outputs["Fac"]}, operation="ADD").outputs[0]
    half = node(tree, "ShaderNodeMath", {0: total, 1: 0.5}, operation="MULTIPLY").outputs[0]
    tartan = ramp(tree, half, [(0.1, (0.62, 0.56, 0.46)), (0.5, (0.30, 0.36, 0.42)), (0.9, (0.05, 0.10, 0.20))])
    threads = node(tree, "ShaderNodeTexNoise", {"Vector": coordinates, "Scale": 22.0, "Detail": 2.0}).outputs[0]
    return mix(tree, node(tree, "ShaderNodeMath", {0: threads, 1: 0.35}, operation="MULTIPLY").outputs[0],
               tartan, (0.85, 0.82, 0.75))


# --- shapes ----------------------------------------------------------------------------------------------------------


def finish(paint, *, bevel=0.0, smooth=True, name=""):
    """Names the active object, paints it, rounds its edges and bakes its scale into the mesh."""
    made = bpy.context.object
    made.name = name or made.name
    bpy.ops.object.transform_apply(location=False, rotation=False, scale=True)
    if bevel:
        modifier = made.modifiers.new("round", "BEVEL")
        modifier.width, modifier.segments, modifier.limit_method = bevel, 4, "ANGLE"
    if smooth:
        bpy.ops.object.shade_smooth()
    made.data.materials.append(paint)
    return made


def box(center, size, paint, *, bevel=0.06, rotation=(0, 0, 0)):
    bpy.ops.mesh.primitive_cube_add(size=1.0, location=center, rotation=rotation, scale=size)
    return finish(paint, bevel=bevel, smooth=False)


def ball(center, radius, paint, scale=(1, 1, 1), rotation=(0, 0, 0)):
    bpy.ops.mesh.primitive_uv_sphere_add(
        segments=48, ring_count=24, radius=radius, location=center, scale=scale, rotation=rotation)
    return finish(paint)


def rod(start, end, radius, paint, *, bevel=0.0, vertices=40, radius_end=None):
    start, end = Vector(start), Vector(end)
    axis = end - start
    rotation = axis.to_track_quat("Z", "Y").to_euler()
    bpy.ops.mesh.primitive_cone_add(
        vertices=vertices, radius1=radius, radius2=radius if radius_end is None else radius_end, depth=axis.length,
        location=(start + end) / 2, rotation=rotation)
    made = finish(paint, bevel=bevel, smooth=False)
    bpy.ops.object.shade_auto_smooth(angle=math.radians(40))
    return made


def ring(center, major, minor, paint, rotation=(0, 0, 0)):
    bpy.ops.mesh.primitive_torus_add(
        location=center, rotation=rotation, major_radius=major, minor_radius=minor, major_segments=48, minor_segments=16)
    return finish(paint)


def robot() -> list:
    """A wind-up tin robot: printed body, glossy enamel head, thin antenna, a pinwheel in its raised hand."""
    tin = material("lithographed tin", roughness=0.45, pattern=lithographed_tin)
    enamel = material("red enamel", RED, roughness=0.12, coat=1.0)
    brass = material("brass", (0.70, 0.45, 0.15), roughness=0.28, metallic=1.0)
    steel = material("steel", (0.45, 0.46, 0.48), roughness=0.38, metallic=1.0)
    dark = material("dark rubber", (0.03, 0.03, 0.035), roughness=0.6)
    white = material("eye white", (0.85, 0.83, 0.78), roughness=0.3)
    ribbed = material("ribbed sleeve", pattern=bands(CREAM, TEAL, 9.0), roughness=0.4)
    parts = [
        box((0, 0, 0.95), (0.92, 0.66, 0.98), tin, bevel=0.10),
        box((0.0, -0.345, 1.13), (0.50, 0.05, 0.30), material("dial plate", CREAM, roughness=0.4), bevel=0.02),
        rod((-0.12, -0.36, 1.13), (-0.12, -0.40, 1.13), 0.085, brass, bevel=0.01),
        rod((0.10, -0.36, 1.19), (0.10, -0.40, 1.19), 0.042, enamel, bevel=0.01),
        rod((0.10, -0.36, 1.07), (0.10, -0.40, 1.07), 0.042, dark, bevel=0.01),
        rod((0, 0, 1.42), (0, 0, 1.54), 0.20, steel, bevel=0.02),
        ball((0, 0, 1.78), 0.36, enamel, scale=(1.05, 0.92, 0.86)),
        ring((0, 0, 1.70), 0.365, 0.035, brass),
        rod((-0.15, -0.27, 1.83), (-0.15, -0.36, 1.83), 0.105, white, bevel=0.02),
        rod((0.15, -0.27, 1.83), (0.15, -0.36, 1.83), 0.105, white, bevel=0.02),
        rod((-0.13, -0.35, 1.82), (-0.13, -0.375, 1.82), 0.055, dark, bevel=0.01),
        rod((0.17, -0.35, 1.82), (0.17, -0.375, 1.82), 0.055, dark, bevel=0.01),
        rod((0.14, 0.05, 2.05), (0.24, 0.10, 2.52), 0.014, steel),
        ball((0.24, 0.10, 2.54), 0.055, material("antenna tip", OCHRE, roughness=0.3)),
    ]
    for side in (-1, 1):
        parts += [
            rod((0.24 * side, 0.0, 0.16), (0.24 * side, 0.0, 0.50), 0.135, ribbed),
            box((0.25 * side, -0.07, 0.09), (0.32, 0.52, 0.18), enamel, bevel=0.06),
            ball((0.50 * side, 0.0, 1.27), 0.15, brass),
        ]
    parts += [  # the left arm hangs, the right one is raised
        rod((-0.52, 0.0, 1.27), (-0.70, -0.06, 0.88), 0.085, ribbed),
        rod((-0.70, -0.06, 0.88), (-0.66, -0.26, 0.64), 0.075, steel),
        ball((-0.655, -0.28, 0.61), 0.105, enamel),
        rod((0.52, 0.0, 1.27), (0.82, -0.12, 1.36), 0.085, ribbed),
        rod((0.82, -0.12, 1.36), (0.90, -0.28, 1.62), 0.075, steel),
        ball((0.905, -0.30, 1.65), 0.105, enamel),
        rod((0.87, -0.32, 1.40), (0.98, -0.32, 2.22), 0.018, material("stick", pattern=bands(CREAM, RED, 12.0))),
    ]
    parts += pinwheel(Vector((0.985, -0.345, 2.22)))
    # The key that winds it up, in its back and off centre.
    parts += [
        rod((0.12, 0.30, 0.98), (0.12, 0.56, 0.98), 0.035, brass),
        ring((0.02, 0.60, 1.03), 0.11, 0.03, brass, rotation=(math.pi / 2, 0, 0)),
        ring((0.22, 0.60, 0.93), 0.11, 0.03, brass, rotation=(math.pi / 2, 0, 0)),
    ]
    return parts


def pinwheel(center: Vector) -> list:
    """Four folded paper blades with thickness, each a colour of its own."""
    colors = ((0.80, 0.10, 0.08), (0.90, 0.62, 0.08), (0.10, 0.42, 0.20), (0.10, 0.22, 0.60))
    blades = []
    for i, color in enumerate(colors):
        turn = Matrix.Rotation(math.radians(90 * i + 20), 3, "Y")
        corners = [Vector(c) for c in ((0, 0, 0), (0.34, -0.02, 0.02), (0.36, 0.02, 0.19), (0.20, -0.05, 0.20))]
        mesh = bpy.data.meshes.new("blade")
        mesh.from_pydata([turn @ c + center for c in corners], [], [(0, 1, 2), (0, 2, 3)])
        blade = bpy.data.objects.new("blade", mesh)
        bpy.context.collection.objects.link(blade)
        blade.modifiers.new("paper", "SOLIDIFY").thickness = 0.014
        mesh.materials.append(material(f"paper {i}", color, roughness=0.7))
        blades.append(blade)
    pin = rod(center + Vector((0, 0.04, 0)), center + Vector((0, -0.09, 0)), 0.028, bpy.data.materials["brass"])
    return [*blades, pin]


def surroundings() -> None:
    """The table, a woven mat, and what stands behind: books, a cactus, a mug, toy blocks."""
    rod((0, 0, -0.22), (0, 0, -0.02), 3.3, bevel=0.05, vertices=128,
        paint=material("oak", pattern=wood((0.52, 0.30, 0.14), (0.20, 0.09, 0.035), 1.1), roughness=0.42))
    box((0, -0.05, -0.005), (2.9, 2.1, 0.03), material("mat", pattern=woven, roughness=0.95), bevel=0.01,
        rotation=(0, 0, 0.25))
    for i, (color, size, turn) in enumerate((
        ((0.30, 0.05, 0.06), (1.35, 0.95, 0.20), 0.25),
        ((0.06, 0.16, 0.32), (1.20, 0.88, 0.15), 0.02),
        ((0.66, 0.46, 0.14), (1.05, 0.78, 0.18), 0.40),
    )):
        z = (0.10, 0.275, 0.44)[i] - 0.02
        cloth = material(f"book {i}", color, roughness=0.6,
                         pattern=checks(color, tuple(0.72 * c + 0.02 for c in color), 14.0))
        pages = material(f"pages {i}", pattern=bands((0.82, 0.78, 0.66), (0.66, 0.61, 0.48), 16.0), roughness=0.9)
        box((-1.45, 1.35, z), size, cloth, bevel=0.02, rotation=(0, 0, turn))
        offset = Matrix.Rotation(turn, 3, "Z") @ Vector((0.0, -0.03, 0.0))
        box(Vector((-1.45, 1.35, z)) + offset, (size[0] - 0.06, size[1], size[2] - 0.05), pages, bevel=0.0,
            rotation=(0, 0, turn))
    terracotta = material("terracotta", (0.46, 0.16, 0.07), roughness=0.85)
    rod((1.35, 1.45, -0.02), (1.35, 1.45, 0.55), 0.30, terracotta, radius_end=0.42)
    ring((1.35, 1.45, 0.55), 0.41, 0.06, terracotta)
    rod((1.35, 1.45, 0.50), (1.35, 1.45, 0.56), 0.39, material("soil", (0.06, 0.04, 0.03), roughness=1.0))
    cactus(Vector((1.35, 1.45, 0.95)))
    glaze = material("glaze", pattern=bands((0.10, 0.20, 0.42), (0.85, 0.82, 0.74), 2.6), roughness=0.2, coat=0.6)
    rod((-2.05, -0.55, -0.02), (-2.05, -0.55, 0.62), 0.30, glaze, bevel=0.03)
    rod((-2.05, -0.55, 0.60), (-2.05, -0.55, 0.625), 0.26, material("coffee", (0.05, 0.02, 0.01), roughness=0.15))
    ring((-2.38, -0.66, 0.30), 0.17, 0.045, glaze, rotation=(math.pi / 2, 0, 0.35))
    for center, turn, color in (((1.95, -0.75, 0.18), 0.4, (0.65, 0.08, 0.06)), ((1.70, -0.20, 0.18), 1.1, (0.08, 0.34, 0.16)),
                                ((1.84, -0.50, 0.58), 0.75, (0.75, 0.48, 0.06))):
        sides = material("block", pattern=checks(color, (0.76, 0.66, 0.50), 7.7), roughness=0.55)
        box(center, (0.40, 0.40, 0.40), sides, bevel=0.03, rotation=(0, 0, turn))


def cactus(center: Vector) -> None:
    """A ribbed body: a sphere whose radius follows a cosine of the longitude, with pale spines on the ribs."""
    body = ball(center, 0.42, material("cactus", (0.05, 0.22, 0.07), roughness=0.6), scale=(1, 1, 1.15))
    for vertex in body.data.vertices:
        longitude = math.atan2(vertex.co.y, vertex.co.x)
        rib = 1.0 + 0.08 * math.cos(12 * longitude)
        vertex.co.x, vertex.co.y = vertex.co.x * rib, vertex.co.y * rib
    ball(center + Vector((0.05, 0.0, 0.50)), 0.11, material("flower", (0.80, 0.22, 0.42), roughness=0.5), scale=(1, 1, 0.6))


# --- light, cameras, output ------------------------------------------------------------------------------------------


def environment() -> None:
    """An environment map of our own: a soft sky above warm ground, a window and a lamp as area lights."""
    height, width = 256, 512
    elevation = (np.arange(height) + 0.5) / height * np.pi - np.pi / 2
    azimuth = (np.arange(width) + 0.5) / width * 2 * np.pi
    up = np.sin(elevation)[:, None, None]
    sky = np.array([0.55, 0.70, 0.95]) * np.clip(up, 0, 1) + np.array([0.95, 0.88, 0.80]) * (1 - np.clip(up, 0, 1))
    ground = np.array([0.34, 0.29, 0.25]) + 0.25 * (1 + np.clip(up, -1, 0)) * np.array([1.0, 0.9, 0.8])
    pixels = np.where(up > 0, sky, ground * 0.8) * 0.5 * np.ones((height, width, 1))

    def patch(angle, tilt, half_width, half_height, color):
        du = np.abs((azimuth - angle + np.pi) % (2 * np.pi) - np.pi)[None, :, None]
        dv = np.abs(elevation - tilt)[:, None, None]
        soft = 1 / (1 + np.exp(30 * (du - half_width))) / (1 + np.exp(30 * (dv - half_height)))
        return soft * np.array(color)

    pixels = pixels + patch(0.9, 0.85, 0.45, 0.30, (16.0, 14.2, 11.6)) + patch(3.9, 0.75, 0.35, 0.25, (2.6, 3.1, 4.0))
    image = bpy.data.images.new("environment", width, height, float_buffer=True)
    image.pixels = np.concatenate([pixels, np.ones((height, width, 1))], -1).astype(np.float32).ravel()
    world = bpy.data.worlds.new("world")
    bpy.context.scene.world = world
    world.use_nodes = True
    texture = node(world.node_tree, "ShaderNodeTexEnvironment", image=image)
    world.node_tree.links.new(texture.outputs["Color"], world.node_tree.nodes["Background"].inputs["Color"])


def camera_poses(count: int, seed: int) -> list[Matrix]:
    """Poses around and above the table: golden-angle azimuths, elevations 8 to 68 degrees, a little jitter."""
    rng = np.random.default_rng(seed)
    poses = []
    for i in range(count):
        height = (i + 0.5) / count
        elevation = math.radians(8 + 60 * height**1.25)
        azimuth = i * math.pi * (3 - math.sqrt(5)) + seed
        distance = rng.uniform(4.6, 5.4)
        direction = Vector((math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation),
                            math.sin(elevation)))
        target = LOOK_AT + Vector(rng.uniform(-0.15, 0.15, 3))
        position = LOOK_AT + distance * direction
        rotation = (target - position).to_track_quat("-Z", "Y")
        poses.append(Matrix.Translation(position) @ rotation.to_matrix().to_4x4())
    return poses


def setup_renderer(samples: int):
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.use_denoising = True
    scene.cycles.max_bounces = 6
    scene.render.resolution_x = scene.render.resolution_y = RESOLUTION
    scene.render.use_persistent_data = True
    scene.view_settings.view_transform = "AgX"
    scene.view_settings.look = "AgX - Medium High Contrast"
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    scene.render.image_settings.compression = 100
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.angle = FIELD_OF_VIEW
    bpy.context.collection.objects.link(camera)
    scene.camera = camera
    return scene, camera


def depth_map(scene, pose: Matrix) -> np.ndarray:
    """Depth along the viewing axis through each pixel's centre, by ray casting; 0 where a ray meets nothing."""
    graph = bpy.context.evaluated_depsgraph_get()
    origin, rotation = pose.translation, pose.to_3x3()
    focal = 0.5 * RESOLUTION / math.tan(0.5 * FIELD_OF_VIEW)
    depth = np.zeros((RESOLUTION, RESOLUTION))
    for row in range(RESOLUTION):
        for column in range(RESOLUTION):
            local = Vector(((column + 0.5 - RESOLUTION / 2) / focal, -(row + 0.5 - RESOLUTION / 2) / focal, -1.0))
            hit, point, *_ = scene.ray_cast(graph, origin, (rotation @ local).normalized())
            if hit:
                depth[row, column] = -(pose.inverted() @ point).z
    return depth


def save_depth(depth: np.ndarray, path: Path) -> None:
    image = bpy.data.images.new("depth", RESOLUTION, RESOLUTION, float_buffer=True, is_data=True)
    steps = np.round(depth / DEPTH_UNIT).clip(0, 65535) / 65535.0
    pixels = np.repeat(steps[::-1, :, None], 4, -1)
    pixels[..., 3] = 1.0
    image.pixels = pixels.astype(np.float32).ravel()
    settings = bpy.context.scene.render.image_settings
    before = settings.color_mode, settings.color_depth
    settings.color_mode, settings.color_depth = "BW", "16"
    view, bpy.context.scene.view_settings.view_transform = bpy.context.scene.view_settings.view_transform, "Raw"
    image.save_render(str(path))
    bpy.context.scene.view_settings.view_transform = view
    settings.color_mode, settings.color_depth = before
    bpy.data.images.remove(image)


def save_mesh(parts: list, path: Path) -> None:
    bpy.ops.object.select_all(action="DESELECT")
    for part in parts:
        part.select_set(True)
    bpy.ops.wm.ply_export(filepath=str(path), export_selected_objects=True, apply_modifiers=True, export_uv=False,
                          export_colors="NONE", export_triangulated_mesh=True, forward_axis="Y", up_axis="Z")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=64, help="paths per pixel, before denoising")
    parser.add_argument("--only", nargs=2, metavar=("SPLIT", "INDEX"), help="render one view, for a look")
    arguments = parser.parse_args()

    bpy.ops.wm.read_factory_settings(use_empty=True)
    parts = robot()
    surroundings()
    environment()
    scene, camera = setup_renderer(arguments.samples)
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_mesh(parts, arguments.output / "tin_robot.ply")

    focal = 0.5 * RESOLUTION / math.tan(0.5 * FIELD_OF_VIEW)
    listing = {"camera_model": "OPENCV", "fl_x": focal, "fl_y": focal, "cx": RESOLUTION / 2, "cy": RESOLUTION / 2,
               "w": RESOLUTION, "h": RESOLUTION, "depth_unit_scale_factor": DEPTH_UNIT, "frames": []}
    names = {split: [] for split in SPLITS}
    for seed, (split, count) in enumerate(SPLITS.items()):
        for i, pose in enumerate(camera_poses(count, seed)):
            name = f"images/{split}_{i:03d}.png"
            frame = {"file_path": name, "transform_matrix": [list(map(float, row)) for row in pose]}
            if split == "test":
                frame["depth_file_path"] = f"depth/{split}_{i:03d}.png"
            listing["frames"].append(frame)
            names[split].append(name)
            if arguments.only and [split, str(i)] != arguments.only:
                continue
            camera.matrix_world = pose
            scene.render.filepath = str(arguments.output / name)
            bpy.ops.render.render(write_still=True)
            if split == "test":
                (arguments.output / "depth").mkdir(exist_ok=True)
                save_depth(depth_map(scene, pose), arguments.output / frame["depth_file_path"])
            print(f"rendered {name}", flush=True)
    listing |= {f"{split}_filenames": listed for split, listed in names.items()}
    (arguments.output / "transforms.json").write_text(json.dumps(listing, indent=1))


if __name__ == "__main__":
    main()
