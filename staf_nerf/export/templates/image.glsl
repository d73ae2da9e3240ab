#version 300 es
// The screen: all pixels that are known, else every eighth between its neighbours, else what was seen before, moved.
precision highp float;
uniform sampler2D fine, coarse, past;
uniform vec2 size;
uniform float stride;
uniform vec3 back;
uniform vec4 box;
uniform bool remembers, upright;
out vec4 color;

void main() {
  // Pixels are counted from above; the screen's own from below, those of pictures as they are stored.
  vec2 p = vec2(gl_FragCoord.x, upright ? size.y - gl_FragCoord.y : gl_FragCoord.y);
  vec2 far = max(box.xy - p, p - box.zw);
  vec3 ground = vec3(0.09) - 0.03 * exp(-max(max(far.x, far.y), 0.0) / 12.0);
  color = vec4(ground, 1.0);
  if (max(far.x, far.y) >= 0.0) return;
  vec2 q = p * back.x + back.yz;
  if (remembers && all(greaterThan(q, vec2(0.0))) && all(lessThan(q, size))) color.rgb = texture(past, q / size).rgb;
  vec4 some = texture(coarse, p / (stride * vec2(textureSize(coarse, 0))));
  if (some.a > 0.0) color.rgb = mix(color.rgb, some.rgb / some.a, min(1.0, some.a * 2.0));
  vec4 known = texelFetch(fine, ivec2(p), 0);
  if (known.a > 0.0) color.rgb = known.rgb;
}
