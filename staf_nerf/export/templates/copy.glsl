#version 300 es
precision highp float;
uniform sampler2D picture;
uniform vec2 size;
uniform bool upright;
out vec4 color;

void main() {
  vec2 p = gl_FragCoord.xy / size;
  color = vec4(texture(picture, vec2(p.x, upright ? 1.0 - p.y : p.y)).rgb, 1.0);
}
