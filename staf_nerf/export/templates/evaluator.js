// The network on the graphics processor: points in, values or values and gradients out, a batch at a time.
//
// A layer is one pass over (neurons / 4) x (points / 4) fragments. Weights lie in float textures; a batch is as large as
// the device computes in a few milliseconds, measured all the time, so that nothing else on the screen has to wait.

const MOST_TEXELS = 1 << 19;  // of a texture of activations: 8 MiB, eight of which are in use
const MOST_ROWS = 4096;       // of 4 points each
const BATCHES = 2;            // on their way at a time

class LostContext extends Error {}

class Evaluator {
  constructor(gl, network) {
    this.gl = gl;
    this.network = network;
    this.widest = Math.max(...network.layers.map((layer) => Math.ceil(layer.outputs / 4)));
    const limit = Math.min(MOST_ROWS, gl.getParameter(gl.MAX_TEXTURE_SIZE));
    this.rows = Math.max(1, Math.min(limit, Math.floor(MOST_TEXELS / this.widest)));
    this.programs = new Map();
    this.layers = network.layers.map((layer) => this.upload(layer));
    this.activations = [0, 1].map(() => this.target(this.widest, this.rows));
    this.slots = Array.from({length: BATCHES}, () => this.slot());
    this.flying = [];
    this.speed = 5;          // points a millisecond, until it has been measured
    this.patience = 12;      // milliseconds that a batch may take
    this.lastDone = 0;
    this.evaluated = 0;
    this.wake = () => {};
    this.channel = new MessageChannel();
    this.channel.port1.onmessage = () => this.poll();
  }

  // --- resources

  texture(internal, width, height, format, type, data) {
    const gl = this.gl, texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
    gl.texImage2D(gl.TEXTURE_2D, 0, internal, width, height, 0, format, type, data);
    return texture;
  }

  bits(width, height) {
    const gl = this.gl;
    return this.texture(gl.RGBA32UI, width, height, gl.RGBA_INTEGER, gl.UNSIGNED_INT, null);
  }

  // Four textures and the framebuffer that draws to them.
  target(width, height) {
    const gl = this.gl, textures = [0, 1, 2, 3].map(() => this.bits(width, height)), frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    textures.forEach((texture, n) =>
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0 + n, gl.TEXTURE_2D, texture, 0));
    gl.drawBuffers(textures.map((_, n) => gl.COLOR_ATTACHMENT0 + n));
    if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) {
      if (gl.isContextLost()) throw new LostContext('the context was lost');
      throw new Error('this browser cannot draw to four integer textures at once');
    }
    return {textures, frame};
  }

  slot() {
    const gl = this.gl, buffer = gl.createBuffer();
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, buffer);
    gl.bufferData(gl.PIXEL_PACK_BUFFER, 64 * this.rows, gl.STREAM_READ);
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
    return {buffer, points: [0, 1, 2, 3].map(() => this.bits(1, this.rows))};
  }

  upload(layer) {
    const gl = this.gl, {inputs, outputs, weight, bias, sinusoids, terms} = layer;
    const texels = Math.ceil(inputs / 4), blocks = Math.ceil(outputs / 4), tall = 2 + 3 * terms;
    const matrix = new Float32Array(16 * texels * blocks), rest = new Float32Array(4 * blocks * tall);
    for (let o = 0; o < outputs; ++o) {
      const block = o >> 2, part = o & 3;
      for (let i = 0; i < inputs; ++i) matrix[4 * (4 * texels * block + i) + part] = weight[o * inputs + i];
      rest[o] = bias[o];
      rest[4 * blocks + o] = o < layer.straight ? 1 : 0;
      const across = terms ? sinusoids.length / (3 * terms) : 0;  // 1 where the neurons share them
      for (let t = 0; t < terms; ++t)
        for (let kind = 0; kind < 3; ++kind)
          rest[4 * blocks * (2 + 3 * t + kind) + o] = sinusoids[(kind * terms + t) * across + (across > 1 ? o : 0)];
    }
    return {
      texels, blocks, terms, scale: layer.scale, kind: layer.kind,
      weight: this.texture(gl.RGBA32F, 4 * texels, blocks, gl.RGBA, gl.FLOAT, matrix),
      parameters: this.texture(gl.RGBA32F, blocks, tall, gl.RGBA, gl.FLOAT, rest),
    };
  }

  program(kind, slopes) {
    const key = kind + slopes;
    if (!this.programs.has(key)) {
      const defines = `#define ${kind.toUpperCase()}\n${slopes ? '#define SLOPES\n' : ''}`;
      const made = makeProgram(this.gl, FULL_SCREEN, `#version 300 es\n${defines}${LAYER_SHADER}`);
      this.gl.useProgram(made.program);
      ['row0', 'row1', 'row2', 'row3', 'weight', 'parameters'].forEach((name, n) =>
        this.gl.uniform1i(made.at(name), n));
      this.programs.set(key, made);
    }
    return this.programs.get(key);
  }

  // --- work

  // How many points one batch should hold; with slopes each counts for four.
  size(slopes) {
    const rows = Math.max(8, Math.min(this.rows, Math.round((this.speed * this.patience) / 4)));
    return slopes ? rows : 4 * rows;
  }

  get free() { return this.flying.length < BATCHES; }

  // Starts a batch: `points` holds `count` points of `inputs` coordinates; `done` receives 4 numbers a point (the values,
  // of which a network has 1 to 4), or with slopes 16: the values, then their derivatives along x, y and z.
  submit(points, count, slopes, done) {
    const gl = this.gl, rows = slopes ? count : Math.ceil(count / 4), inputs = this.network.layers[0].inputs;
    const slot = this.slots.find((s) => !this.flying.some((batch) => batch.slot === s));
    this.fill(slot, points, count, rows, inputs, slopes);
    gl.disable(gl.BLEND);
    gl.disable(gl.SCISSOR_TEST);
    let before = slot.points, target;
    this.layers.forEach((layer, n) => {
      target = this.activations[n % 2];
      this.pass(layer, before, target, rows, slopes);
      before = target.textures;
    });
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, slot.buffer);
    for (let n = 0; n < 4; ++n) {
      gl.readBuffer(gl.COLOR_ATTACHMENT0 + n);
      gl.readPixels(0, 0, 1, rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT, 16 * rows * n);
    }
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    this.flying.push({slot, rows, count, slopes, done, fence, points, work: 4 * rows, started: performance.now()});
    if (this.flying.length === 1) this.channel.port2.postMessage(0);
  }

  fill(slot, points, count, rows, inputs, slopes) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE0);
    for (let n = 0; n < 4; ++n) {
      const texels = new Float32Array(4 * rows);
      for (let i = 0; i < rows; ++i) {
        const p = slopes ? i : 4 * i + n;
        if (slopes && n) texels[4 * i + n - 1] = n <= inputs ? 1 : 0;
        else if (p < count) for (let d = 0; d < inputs; ++d) texels[4 * i + d] = points[inputs * p + d];
      }
      gl.bindTexture(gl.TEXTURE_2D, slot.points[n]);
      gl.texSubImage2D(
        gl.TEXTURE_2D, 0, 0, 0, 1, rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT, new Uint32Array(texels.buffer));
    }
  }

  pass(layer, before, target, rows, slopes) {
    const gl = this.gl, {program, at} = this.program(layer.kind, slopes);
    gl.useProgram(program);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.viewport(0, 0, layer.blocks, rows);
    [...before, layer.weight, layer.parameters].forEach((texture, n) => {
      gl.activeTexture(gl.TEXTURE0 + n);
      gl.bindTexture(gl.TEXTURE_2D, texture);
    });
    gl.uniform1i(at('inputs'), layer.texels);
    gl.uniform1i(at('terms'), layer.terms);
    gl.uniform1f(at('scale'), layer.scale);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Hands out what is done; never waits.
  poll() {
    const gl = this.gl;
    if (gl.isContextLost()) return;
    let some = false;
    while (this.flying.length && gl.getSyncParameter(this.flying[0].fence, gl.SYNC_STATUS) === gl.SIGNALED) {
      this.finish(this.flying.shift());
      some = true;
    }
    if (some) this.wake();
    if (this.flying.length) {
      if (some) this.channel.port2.postMessage(0);
      else setTimeout(() => this.poll(), 1);
    }
  }

  finish({slot, rows, count, slopes, done, fence, points, work, started}) {
    const gl = this.gl, raw = new Float32Array(16 * rows);
    gl.deleteSync(fence);
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, slot.buffer);
    gl.getBufferSubData(gl.PIXEL_PACK_BUFFER, 0, raw);
    gl.bindBuffer(gl.PIXEL_PACK_BUFFER, null);
    const now = performance.now(), took = Math.max(0.25, now - Math.max(started, this.lastDone));
    this.lastDone = now;
    this.evaluated += work;
    // Never more than twice as large at once: a first guess that is wrong must not hold up the screen.
    this.speed = Math.min(2 * this.speed, 0.5 * this.speed + 0.5 * (work / took));
    const values = new Float32Array(16 * rows);  // row by row, its four parts one after the other
    for (let n = 0; n < 4; ++n)
      for (let i = 0; i < rows; ++i)
        for (let c = 0; c < 4; ++c) values[16 * i + 4 * n + c] = raw[4 * (rows * n + i) + c];
    if (this.network.sphere) this.addSphere(points, values, count, slopes);
    done(values.subarray(0, (slopes ? 16 : 4) * count));
  }

  // What a signed distance has beside its network: sign · (√(|x - c|² + r²/4) - √(r² + r²/4)).
  addSphere(points, values, count, slopes) {
    const {center, radius, sign} = this.network.sphere, rounding = radius * radius / 4, each = slopes ? 16 : 4;
    for (let p = 0; p < count; ++p) {
      const away = center.map((c, d) => points[3 * p + d] - c);
      const length = Math.sqrt(away[0] ** 2 + away[1] ** 2 + away[2] ** 2 + rounding);
      values[each * p] += sign * (length - Math.sqrt(radius * radius + rounding));
      if (slopes) for (let d = 0; d < 3; ++d) values[16 * p + 4 * (d + 1)] += (sign * away[d]) / length;
    }
  }

  // All values of many points at once, (4 or 16) numbers each as in `submit`; points is a Float32Array.
  async evaluate(points, slopes = false) {
    const inputs = this.network.layers[0].inputs, total = points.length / inputs, each = slopes ? 16 : 4;
    const found = new Float32Array(each * total), waiting = [];
    for (let start = 0; start < total;) {
      while (!this.free) await new Promise((go) => setTimeout(go, 1));
      const count = Math.min(this.size(slopes), total - start), from = start;
      const part = points.subarray(inputs * from, inputs * (from + count));
      waiting.push(new Promise((go) => this.submit(part, count, slopes, (values) => {
        found.set(values, each * from);
        go();
      })));
      start += count;
    }
    await Promise.all(waiting);
    return found;
  }
}

const FULL_SCREEN = `#version 300 es
void main() { gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0.0, 1.0); }`;

function makeProgram(gl, vertex, fragment) {
  const program = gl.createProgram();
  for (const [type, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost())
      throw new Error(`a shader does not compile: ${gl.getShaderInfoLog(shader)}`);
  }
  gl.linkProgram(program);
  if (gl.isContextLost()) throw new LostContext('the context was lost');
  if (!gl.getProgramParameter(program, gl.LINK_STATUS))
    throw new Error(`a shader does not link: ${gl.getProgramInfoLog(program)}`);
  const places = new Map();
  const at = (name) => {
    if (!places.has(name)) places.set(name, gl.getUniformLocation(program, name));
    return places.get(name);
  };
  return {program, at};
}
