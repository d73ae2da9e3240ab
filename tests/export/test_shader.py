"""The GLSL function, compiled by a browser's driver."""

import json

import numpy as np
import pytest
import torch

from staf_nerf.export.network import network_of
from staf_nerf.export.shader import glsl_function
from tests.export.conftest import KINDS, image, shape

SIDE = 16
HARNESS = """(() => {
  const gl = document.createElement('canvas').getContext('webgl2'), program = gl.createProgram();
  const sources = [[gl.VERTEX_SHADER, `#version 300 es
    void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`],
    [gl.FRAGMENT_SHADER, SOURCE]];
  for (const [type, text] of sources) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32UI, SIDE, SIDE);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  gl.viewport(0, 0, SIDE, SIDE);
  gl.drawArrays(gl.TRIANGLES, 0, 3);
  const bits = new Uint32Array(4 * SIDE * SIDE);
  gl.readPixels(0, 0, SIDE, SIDE, gl.RGBA_INTEGER, gl.UNSIGNED_INT, bits);
  gl.getExtension('WEBGL_lose_context').loseContext();
  return Array.from(new Float32Array(bits.buffer));
})()"""


def compiled(browser, function: str, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """The function's values on a grid in the browser, and the points of it."""
    place = {1: "p.x", 2: "p", 3: "vec3(p, 0.5 * p.x - 0.3 * p.y)"}[inputs]
    values = {1: "vec4(staf(%s))", 2: "staf(%s).xyxy", 3: "vec4(staf(%s), 0.0)", 4: "staf(%s)"}[outputs] % place
    fragment = (
        f"#version 300 es\nprecision highp float;\nout uvec4 bits;\n{function}\n"
        f"void main() {{ vec2 p = (gl_FragCoord.xy - 0.5) / {SIDE}.0 * 2.0 - 1.0; bits = floatBitsToUint({values}); }}"
    )
    text = HARNESS.replace("SOURCE", json.dumps(fragment)).replace("SIDE", str(SIDE))
    found = np.array(browser.run(text), np.float32).reshape(-1, 4)[:, :outputs]
    x, y = np.meshgrid(*(np.arange(SIDE, dtype=np.float32) / SIDE * 2 - 1,) * 2)
    p = np.stack([x.ravel(), y.ravel()], 1)
    return found, np.concatenate([p, 0.5 * p[:, :1] - 0.3 * p[:, 1:]], 1)[:, :inputs]


@pytest.mark.parametrize("kind", KINDS)
def test_the_function_computes_what_the_field_computes(browser, kind):
    field = image(kind).field
    found, x = compiled(browser, glsl_function(network_of(field), scale=0.5, offset=0.25), 2, 3)
    with torch.no_grad():
        exact = 0.5 * field(torch.from_numpy(x)).numpy() + 0.25
    # float32 in another order: 1e-6, times the frequencies of the layers.
    assert found == pytest.approx(exact, abs=2e-4)


def test_a_signed_distance_is_a_float_of_three_coordinates(browser):
    field = shape().field
    found, x = compiled(browser, glsl_function(network_of(field), head=["a potato"]), 3, 1)
    with torch.no_grad():
        assert found == pytest.approx(field(torch.from_numpy(x)).numpy(), abs=1e-4)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_an_image_may_have_one_to_four_channels(browser, channels):
    field = image(channels=channels).field
    found, x = compiled(browser, glsl_function(network_of(field)), 2, channels)
    with torch.no_grad():
        assert found == pytest.approx(field(torch.from_numpy(x)).numpy(), abs=2e-4)


def test_sines_of_large_arguments_are_those_of_float64(browser):
    """To 2e-7 where the argument itself is exact: its multiples of π are taken away in three parts."""
    from staf_nerf.export.templates import template

    arguments = [0.0, 1.5, -2.25, 100.5, 1234.5678, -4321.0, 12345.678, 65432.125]
    numbers = ", ".join(f"{a:.9g}" if "." in f"{a:.9g}" else f"{a:.1f}" for a in arguments)
    function = template("sine.glsl") + (
        f"const float t[8] = float[]({numbers});\n"
        "vec2 staf(vec2 x) { vec4 a = vec4(t[int(gl_FragCoord.x) % 8]); return vec2(sine(a).x, cosine(a).x); }"
    )
    found, _ = compiled(browser, function, 2, 2)
    exact = np.array(arguments, np.float32).astype(np.float64)
    assert found[:8, 0] == pytest.approx(np.sin(exact), abs=2e-6)
    assert found[:8, 1] == pytest.approx(np.cos(exact), abs=2e-6)
    assert found[:6, 0] == pytest.approx(np.sin(exact[:6]), abs=2e-7)


def test_a_network_too_large_is_refused_with_a_width_that_fits():
    large = network_of(image({"hidden_features": 256, "hidden_layers": 3}).field)
    with pytest.raises(
        ValueError, match=r"at most 8,192 parameters, got 133,150, .*--hidden-features 60, or export --to html"
    ):
        glsl_function(large)
    fitting = network_of(image({"hidden_features": 60, "hidden_layers": 3}).field)
    assert "vec3 staf(vec2 x)" in glsl_function(fitting)
    with pytest.raises(ValueError, match="1 to 4 values, got 5"):
        glsl_function(network_of(image(channels=5).field))
