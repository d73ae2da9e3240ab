// sin and cos of arguments as large as float32 holds them, to 2e-7: a GPU's own are only good near 0. The argument is
// taken modulo π in three parts (Cody and Waite; the first has 8 bits, so that its products are exact), then comes a
// minimax polynomial on [-π/2, π/2].
vec4 turned(vec4 t, out vec4 odd) {
  vec4 k = floor(t * 0.318309886183790672 + 0.5);
  odd = 1.0 - 2.0 * (k - 2.0 * floor(0.5 * k));
  return ((t - k * 3.140625) - k * 9.67502593994140625e-4) - k * 1.509957990978376432e-7;
}

vec4 sine(vec4 t) {
  vec4 odd, r = turned(t, odd), s = r * r;
  vec4 p = ((2.6157176764e-6 * s - 1.9815540817e-4) * s + 8.3331797087e-3) * s - 1.6666666488e-1;
  return odd * (r + r * s * p);
}

vec4 cosine(vec4 t) {
  vec4 odd, r = turned(t, odd), s = r * r;
  vec4 p = (((-2.6196803733e-7 * s + 2.4769314813e-5) * s - 1.3888564544e-3) * s + 4.1666655061e-2) * s - 0.5;
  return odd * (1.0 + s * p);
}
