#version 300 es
// The surface in a studio: a warm key light with a soft shadow, a cool sky, bounced light, and occlusion. Where `exact`,
// normal and distance of each pixel come from the network; else from the grid, which always answers for shadows.
precision highp float;
precision highp sampler3D;
uniform sampler3D grid;
uniform sampler2D surface;
uniform vec3 right, up, back, eye, low, high, skyward;
uniform vec2 size, origin, jitter;
uniform float scale, spread, ground, cells, bound;
uniform bool exact, plain;
out vec4 color;

const vec3 CLAY = vec3(0.52, 0.40, 0.31);
const vec3 KEY = vec3(2.25, 2.05, 1.80);
const vec3 SKY = vec3(0.34, 0.42, 0.55);
const vec3 BOUNCE = vec3(0.22, 0.18, 0.15);

float field(vec3 x) {
  vec3 held = clamp(x, -1.0, 1.0);
  float inside = texture(grid, ((held * 0.5 + 0.5) * cells + 0.5) / (cells + 1.0)).r;
  return inside + length(x - held);
}

vec3 slope(vec3 x) {
  float h = 1.2 / cells;
  vec2 e = vec2(h, -h);
  return normalize(e.xyy * field(x + e.xyy) + e.yyx * field(x + e.yyx) + e.yxy * field(x + e.yxy) + e.xxx * field(x + e.xxx));
}

bool enters(vec3 from, vec3 along, out float first, out float last) {
  vec3 a = (low - from) / along, b = (high - from) / along, near = min(a, b), far = max(a, b);
  first = max(max(near.x, near.y), max(near.z, 1e-4));
  last = min(far.x, min(far.y, far.z));
  return first < last;
}

float travel(vec3 from, vec3 along) {
  float t, last;
  if (!enters(from, along, t, last)) return -1.0;
  for (int i = 0; i < 96; ++i) {
    float d = field(from + t * along);
    if (d < 0.0006 * t) return t;
    t += max(d / bound, 0.002);
    if (t > last) return -1.0;
  }
  return -1.0;
}

float shadow(vec3 x, vec3 light) {
  float open = 1.0, t, last, start = 2.5 / cells;
  if (!enters(x, light, t, last)) return 1.0;
  t = max(t, start);
  for (int i = 0; i < 72; ++i) {
    if (t > last) break;
    float d = field(x + t * light);
    open = min(open, 9.0 * d / t);
    t += clamp(d / bound, 0.006 + 0.015 * t, 0.1);
    if (open < -0.5) break;
  }
  open = clamp(open * 0.5 + 0.5, 0.0, 1.0);
  return open * open * (3.0 - 2.0 * open);
}

float openness(vec3 x, vec3 n) {
  float closed = 0.0, weight = 1.0;
  for (int i = 1; i <= 5; ++i) {
    float h = 0.035 * float(i * i) / 3.0 + 0.5 / cells;
    closed += weight * max(h - field(x + h * n), 0.0) / h;
    weight *= 0.72;
  }
  return clamp(1.0 - 0.42 * closed, 0.2, 1.0);
}

vec3 backdrop(vec3 along) {
  float h = 0.5 + 0.5 * dot(along, skyward);
  return mix(vec3(0.40, 0.41, 0.43), vec3(0.72, 0.74, 0.78), smoothstep(0.28, 0.85, h));
}

vec3 film(vec3 c) {  // ACES, as fitted by Narkowicz; then sRGB's curve
  c = clamp(c * (2.51 * c + 0.03) / (c * (2.43 * c + 0.59) + 0.14), 0.0, 1.0);
  return mix(12.92 * c, 1.055 * pow(c, vec3(1.0 / 2.4)) - 0.055, vec3(greaterThan(c, vec3(0.0031308))));
}

vec3 lit(vec3 x, vec3 n, vec3 along, vec3 light) {
  float sun = max(dot(n, light), 0.0), facing = max(-dot(n, along), 0.0), rim = pow(1.0 - facing, 3.0);
  float shade = sun > 0.0 ? shadow(x + n * 1.2 / cells, light) : 0.0, open = openness(x, n), high = 0.5 + 0.5 * dot(n, skyward);
  vec3 ambient = open * (SKY * high * high + BOUNCE * (1.0 - high) + 0.06);
  vec3 half_way = normalize(light - along);
  float glint = pow(max(dot(n, half_way), 0.0), 42.0) * 0.32 * shade;
  return CLAY * (KEY * sun * shade + ambient) + glint * KEY + rim * open * SKY * (0.15 + 0.35 * high);
}

void main() {
  vec2 cell = gl_FragCoord.xy - 0.5;
  vec2 p = exact ? cell + jitter : (cell + jitter) * scale;
  vec2 q = (p - 0.5 * size) * 2.0 * spread / min(size.x, size.y);
  vec3 along = normalize(q.x * right - q.y * up - back);
  vec3 light = normalize(0.85 * right + 0.60 * back + 1.0 * skyward);
  vec4 known = exact ? texelFetch(surface, ivec2(cell - origin), 0) : vec4(0.0);
  float t = exact ? known.w : travel(eye, along);
  vec3 n = exact ? known.xyz : vec3(0.0);
  if (t > 0.0 && !exact) n = slope(eye + t * along);
  if (plain) {
    color = vec4(t > 0.0 ? 0.5 + 0.5 * n : vec3(0.0), 1.0);
    return;
  }
  vec3 c = backdrop(along);
  if (t > 0.0) {
    c = lit(eye + t * along, n, along, light);
  } else if (dot(along, skyward) < -1e-4) {
    float down = (ground - dot(eye, skyward)) / dot(along, skyward);
    vec3 x = eye + down * along, middle = 0.5 * (low + high);
    vec3 off = x - middle;
    float far = length(off - dot(off, skyward) * skyward) / length(high - low);
    if (down > 0.0) {
      float reach = exp(-1.6 * far * far), dark = shadow(x + 0.004 * skyward, light), open = openness(x, skyward);
      c *= mix(1.0, (0.42 + 0.58 * dark) * (0.45 + 0.55 * open), reach);
    }
  }
  float corner = dot(p / size - 0.5, p / size - 0.5);
  color = vec4(film(c * 0.92) * (1.0 - 0.22 * corner), 1.0);
}
