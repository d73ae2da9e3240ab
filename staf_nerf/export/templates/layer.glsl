// One layer of the network. A fragment computes 4 neurons of 4 rows; a row is a point, or, where SLOPES is defined, the
// first of four rows is a point and the others are the derivatives along three directions, carried through the layers.
// Activations are the bits of floats in RGBA32UI, which WebGL 2 can draw to without any extension.
precision highp float;
precision highp int;
precision highp usampler2D;
precision highp sampler2D;
uniform usampler2D row0, row1, row2, row3;  // (inputs / 4, rows / 4)
uniform sampler2D weight;      // (inputs, outputs / 4): 4 outputs' weights of one input
uniform sampler2D parameters;  // (outputs / 4, 2 + 3 τ): bias, s, then C, Ω and Φ of each sinusoid
uniform int inputs;            // in texels of 4
uniform int terms;             // τ
uniform float scale;
layout(location = 0) out uvec4 out0;
layout(location = 1) out uvec4 out1;
layout(location = 2) out uvec4 out2;
layout(location = 3) out uvec4 out3;

//{{sine.glsl}}

vec4 parameter(int row) { return texelFetch(parameters, ivec2(int(gl_FragCoord.x), row), 0); }

vec4 times(mat4 w, uvec4 bits) { return w * uintBitsToFloat(bits); }

// σ(z), and where it is asked for its derivative.
vec4 sigma(vec4 z, vec4 s, out vec4 slope) {
  vec4 y = s * z;
  slope = s;
#if defined(FOURIER)
  for (int i = 0; i < terms; ++i) {
    vec4 c = parameter(2 + 3 * i), w = parameter(3 + 3 * i), t = w * z + parameter(4 + 3 * i);
    y += c * sine(t);
#ifdef SLOPES
    slope += c * w * cosine(t);
#endif
  }
#elif defined(FINER)
  vec4 t = scale * (abs(z) + 1.0) * z;
  y += sine(t);
  slope += scale * (2.0 * abs(z) + 1.0) * cosine(t);
#elif defined(GAUSSIAN)
  vec4 u = scale * z, e = exp(-0.5 * u * u);
  y += e;
  slope -= scale * u * e;
#elif defined(SINC)
  vec4 t = scale * z, near = vec4(lessThan(abs(t), vec4(1e-3))), u = mix(t, vec4(1.0), near), q = sine(u) / u;
  y += mix(q, 1.0 - t * t / 6.0, near);
  slope += scale * mix((cosine(u) - q) / u, -t / 3.0, near);
#elif defined(RELU)
  y += max(z, 0.0);
  slope += vec4(greaterThan(z, vec4(0.0)));
#endif
  return y;
}

void main() {
  int j = int(gl_FragCoord.x), i = int(gl_FragCoord.y);
  vec4 bias = parameter(0), s = parameter(1), slope, unused;
  vec4 z0 = vec4(0.0), z1 = z0, z2 = z0, z3 = z0;
  for (int k = 0; k < inputs; ++k) {
    mat4 w = mat4(texelFetch(weight, ivec2(4 * k, j), 0), texelFetch(weight, ivec2(4 * k + 1, j), 0),
                  texelFetch(weight, ivec2(4 * k + 2, j), 0), texelFetch(weight, ivec2(4 * k + 3, j), 0));
    z0 += times(w, texelFetch(row0, ivec2(k, i), 0));
    z1 += times(w, texelFetch(row1, ivec2(k, i), 0));
    z2 += times(w, texelFetch(row2, ivec2(k, i), 0));
    z3 += times(w, texelFetch(row3, ivec2(k, i), 0));
  }
  out0 = floatBitsToUint(sigma(z0 + bias, s, slope));
#ifdef SLOPES
  out1 = floatBitsToUint(slope * z1);
  out2 = floatBitsToUint(slope * z2);
  out3 = floatBitsToUint(slope * z3);
#else
  out1 = floatBitsToUint(sigma(z1 + bias, s, unused));
  out2 = floatBitsToUint(sigma(z2 + bias, s, unused));
  out3 = floatBitsToUint(sigma(z3 + bias, s, unused));
#endif
}
