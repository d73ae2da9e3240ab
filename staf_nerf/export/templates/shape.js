// A signed distance that is a network: its surface found by sphere tracing, pixel by pixel, with an orbiting camera.
//
// First the field is asked on a coarse grid, and on finer ones near the surface. The grid is what moves with the camera,
// and tells how far a ray may go without asking; what stands still is then traced through the network itself, tile by
// tile, with normals from its derivative, and once more for smooth edges. `bound` is the steepest slope of the field: a
// value f says that there is no surface within f / bound.

const FIRST_GRID = 17;
const FINEST_GRID = 129;
const PATIENT = 4000;       // milliseconds that a finer grid may take
const NEAR = 1.3;           // cells from the surface within which a finer grid asks
const UNSURE = Math.sqrt(3) / 2 / NEAR;  // by what part of itself a value that was not asked for can be wrong
const SHAPE_TILE = 32;
const POOL = 1 << 14;       // rays on their way
const SLICE = 6;            // milliseconds of rays at a time
const STILL = 140;          // milliseconds without a movement before tracing starts
const MOST_ASKED = 96;      // values along one ray
const JITTER = [[0.5, 0.5], [0.125, 0.375], [0.625, 0.125], [0.875, 0.625], [0.375, 0.875]];  // of a pixel
const SPREAD = Math.tan(0.3);  // half the view's shorter side, one unit away

// The field on n³ points of [-1, 1]³, x first: exact near the surface, interpolated from a coarser grid elsewhere.
class Grid {
  constructor(size, values, bound) {
    Object.assign(this, {size, values, bound, cell: 2 / (size - 1)});
    this.slack = bound * this.cell * Math.sqrt(3) / 2;  // by how much interpolation can be wrong
  }

  static async first(evaluator, bound) {
    const n = FIRST_GRID, points = new Float32Array(3 * n ** 3), at = (i) => -1 + (2 * i) / (n - 1);
    for (let i = 0; i < n ** 3; ++i) points.set([at(i % n), at(Math.floor(i / n) % n), at(Math.floor(i / n / n))], 3 * i);
    const found = await evaluator.evaluate(points);
    return new Grid(n, Float32Array.from({length: n ** 3}, (_, i) => found[4 * i]), bound);
  }

  // The points of a grid twice as fine, and which of them have to be asked for; other work goes on meanwhile.
  async finer() {
    const n = 2 * this.size - 1, values = new Float32Array(n ** 3), near = NEAR * this.cell * this.bound, asked = [];
    const at = (i) => -1 + (2 * i) / (n - 1);
    let i = 0;
    for (let z = 0; z < n; ++z) {
      if (z % 8 === 7) await new Promise((go) => setTimeout(go, 0));
      for (let y = 0; y < n; ++y)
        for (let x = 0; x < n; ++x, ++i) {
          values[i] = this.at(at(x), at(y), at(z));
          if ((x | y | z) & 1 && Math.abs(values[i]) < near) asked.push(i);
        }
    }
    return {n, values, asked};
  }

  async refined(evaluator, {n, values, asked}) {
    const points = new Float32Array(3 * asked.length), at = (i) => -1 + (2 * i) / (n - 1);
    asked.forEach((i, k) => points.set([at(i % n), at(Math.floor(i / n) % n), at(Math.floor(i / n / n))], 3 * k));
    const found = await evaluator.evaluate(points);
    asked.forEach((i, k) => { values[i] = found[4 * k]; });
    return new Grid(n, values, this.bound);
  }

  at(x, y, z) {
    const n = this.size, v = this.values, top = n - 1;
    const a = Math.min(Math.max((x + 1) / this.cell, 0), top), b = Math.min(Math.max((y + 1) / this.cell, 0), top);
    const c = Math.min(Math.max((z + 1) / this.cell, 0), top);
    const i = Math.min(a | 0, top - 1), j = Math.min(b | 0, top - 1), k = Math.min(c | 0, top - 1);
    const fa = a - i, fb = b - j, fc = c - k, p = (k * n + j) * n + i, q = p + n * n;
    const low = (v[p] * (1 - fa) + v[p + 1] * fa) * (1 - fb) + (v[p + n] * (1 - fa) + v[p + n + 1] * fa) * fb;
    const high = (v[q] * (1 - fa) + v[q + 1] * fa) * (1 - fb) + (v[q + n] * (1 - fa) + v[q + n + 1] * fa) * fb;
    return low * (1 - fc) + high * fc;
  }

  // The box of what lies below a level, a cell wider; null where nothing does.
  box(level) {
    const n = this.size, low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
    this.values.forEach((value, i) => {
      if (value > level) return;
      [i % n, Math.floor(i / n) % n, Math.floor(i / n / n)].forEach((at, d) => {
        low[d] = Math.min(low[d], -1 + at * this.cell);
        high[d] = Math.max(high[d], -1 + at * this.cell);
      });
    });
    if (low[0] > high[0]) return null;
    return {low: low.map((v) => Math.max(-1, v - this.cell)), high: high.map((v) => Math.min(1, v + this.cell))};
  }

  // Where the surface ends downwards, along an axis.
  bottom(axis) {
    const n = this.size, step = [1, n, n * n][axis];
    let least = Infinity;
    this.values.forEach((value, i) => {
      const at = Math.floor(i / step) % n;
      if (value >= 0 || at === 0) return;
      const below = this.values[i - step];
      if (below >= 0) least = Math.min(least, -1 + (at - value / (value - below)) * this.cell);
      else if (at === 1) least = -1;
    });
    return least;
  }
}

class ShapeView {
  constructor(gl, evaluator, about, show) {
    Object.assign(this, {gl, evaluator, about, show});
    this.shading = makeProgram(gl, FULL_SCREEN, SHAPE_SHADER);
    this.copying = makeProgram(gl, FULL_SCREEN, COPY_SHADER);
    this.normals = false;
    this.turning = false;
    this.version = 0;
    this.roughness = 2;  // device pixels a pixel while moving, until it has been measured
    this.volume = gl.createTexture();
    this.surface = evaluator.texture(gl.RGBA32F, SHAPE_TILE, SHAPE_TILE, gl.RGBA, gl.FLOAT, null);
    this.resize();
    this.learn();
  }

  // Asks for the grids, one after the other.
  async learn() {
    try {
      this.setGrid(await Grid.first(this.evaluator, this.about.shape.bound));
      while (this.grid.size < FINEST_GRID) {
        const plan = await this.grid.finer();
        if (this.grid.size > 33 && plan.asked.length / this.evaluator.speed > PATIENT) break;
        this.setGrid(await this.grid.refined(this.evaluator, plan));
      }
      this.learned = true;
      this.moved();
    } catch (error) {
      if (!this.gl.isContextLost()) throw error;
    }
  }

  setGrid(grid) {
    const gl = this.gl, n = grid.size, up = this.about.shape.up === 'z' ? 2 : 1;
    this.grid = grid;
    this.box = grid.box(grid.slack);
    this.inside = grid.box(0) ?? this.box;
    if (!this.box) throw new Error('the field has no surface in the cube [-1, 1]³');
    this.ground = grid.bottom(up);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_3D, this.volume);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_3D, name, gl.LINEAR);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R])
      gl.texParameteri(gl.TEXTURE_3D, name, gl.CLAMP_TO_EDGE);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R16F, n, n, n, 0, gl.RED, gl.FLOAT, grid.values);
    if (!this.view || !this.touched) this.home();  // better known with each grid, as long as nobody has moved
    else this.moved();
  }

  // --- view

  resize(keep) {
    const {width, height} = this.gl.canvas;
    this.picture?.free();
    this.picture = new Picture(this.gl, width, height, this.gl.LINEAR);
    this.found = new Float32Array(4 * width * height);
    if (keep) this.view = keep;
    if (this.view && this.grid) this.moved();
  }

  home() {
    const {low, high} = this.inside, middle = low.map((v, d) => (v + high[d]) / 2);
    const across = Math.hypot(...low.map((v, d) => high[d] - v));
    this.look({azimuth: 0.5, elevation: 0.26, distance: (0.5 * across) / SPREAD, target: middle});
  }

  // Moves the camera: angles in radians, distance from the target, all in the network's units.
  look(view) {
    const distance = Math.min(Math.max(view.distance, 1e-3), 50), elevation = Math.min(Math.max(view.elevation, -1.55), 1.55);
    this.view = {...view, distance, elevation};
    this.moved();
  }

  axes() {
    const {azimuth, elevation, distance, target} = this.view;
    const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
    const place = ([x, y, z]) => (this.about.shape.up === 'z' ? [x, -z, y] : [x, y, z]);
    const [right, up, back] = [[ca, 0, -sa], [-sa * se, ce, -ca * se], [ce * sa, se, ce * ca]].map(place);
    return {right, up, back, eye: target.map((v, d) => v + distance * back[d])};
  }

  drag(dx, dy) {
    const per = 2.6 / Math.min(this.gl.canvas.width, this.gl.canvas.height);
    this.look({...this.view, azimuth: this.view.azimuth - dx * per, elevation: this.view.elevation + dy * per});
  }

  slide(dx, dy) {
    const {right, up} = this.axes(), per = (2 * SPREAD * this.view.distance) / Math.min(this.gl.canvas.width, this.gl.canvas.height);
    this.look({...this.view, target: this.view.target.map((v, d) => v - per * (dx * right[d] - dy * up[d]))});
  }

  zoom(factor) { this.look({...this.view, distance: this.view.distance / factor}); }

  // What was double-clicked becomes what the camera turns about.
  pick(px, py) {
    const t = this.found[4 * (this.gl.canvas.width * Math.floor(py) + Math.floor(px)) + 3];
    if (!(t > 0)) return;
    const {eye, direction} = this.ray(Math.floor(px) + 0.5, Math.floor(py) + 0.5, this.axes());
    const distance = Math.min(this.view.distance, 0.75 * t);
    this.look({...this.view, target: eye.map((v, d) => v + t * direction[d]), distance});
  }

  key(name, shift) {
    const angle = shift ? Math.PI / 4 : Math.PI / 24, {view} = this;
    if (!view) return false;
    if (name === 'ArrowLeft') this.look({...view, azimuth: view.azimuth - angle});
    else if (name === 'ArrowRight') this.look({...view, azimuth: view.azimuth + angle});
    else if (name === 'ArrowUp') this.look({...view, elevation: view.elevation + angle});
    else if (name === 'ArrowDown') this.look({...view, elevation: view.elevation - angle});
    else if (name === '+' || name === '=') this.zoom(1.2);
    else if (name === '-' || name === '_') this.zoom(1 / 1.2);
    else if (name === '0' || name === 'Home') this.home();
    else if (name === 'n') { this.normals = !this.normals; this.moved(); }
    else if (name === ' ') { this.turning = !this.turning; this.moved(); }
    else return false;
    return true;
  }

  hover() {}

  hold(held) {
    this.held = held;
    if (!held && this.moving) this.moved();
  }

  // --- work

  moved() {
    this.version++;
    this.tiles = null;
    this.moving = true;
    this.finished = null;
    this.sharp = 0;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.trace(), STILL);
    this.show();
  }

  // The camera stands still: the network itself is asked.
  trace() {
    if (!this.learned || this.turning || this.held || this.gl.isContextLost()) return;
    this.moving = false;
    this.copy(this.preview(), this.picture);
    this.frame = this.axes();
    this.started = performance.now();
    this.asked = this.evaluator.evaluated;
    this.round = 0;
    this.begin();
    this.pump();
  }

  begin() {
    const {width, height} = this.gl.canvas;
    this.tiles = new Tiles(0, 0, width, height, SHAPE_TILE, width / 2, height / 2);
    this.pool = [];
    this.hits = [];
    this.missing = this.tiles.list.length;
    this.show();
  }

  pump() {
    if (!this.tiles || this.gl.isContextLost()) return;
    const version = this.version, until = performance.now() + SLICE;
    while (this.tiles && this.evaluator.free && version === this.version) {
      this.fill(until);
      if (!this.tiles) return;
      const {pool, hits} = this, more = !this.tiles.done;
      if (hits.length && (hits.length >= this.evaluator.size(true) || !(pool.length || more))) this.askSlopes();
      else if (pool.length && (pool.length >= this.evaluator.size(false) || !more || performance.now() > until)) this.askValues();
      else if (more && performance.now() > until) return this.later();
      else if (!more) break;
    }
  }

  // Goes on after whatever else the browser has to do.
  later() {
    if (this.scheduled) return;
    this.scheduled = true;
    setTimeout(() => { this.scheduled = false; this.pump(); }, 0);
  }

  // New rays, as far as the grid lets them go.
  fill(until) {
    const want = Math.min(POOL, this.evaluator.size(false)), {tiles} = this;
    for (let n = 0; tiles === this.tiles && this.pool.length < want && !tiles.done; ++n) {
      if (n % 64 === 63 && performance.now() > until) return;
      const [tile, u, v] = tiles.next(), [jx, jy] = JITTER[this.round];
      const ray = this.ray(u + jx, v + jy, this.frame);
      Object.assign(ray, {tile, at: 4 * (this.gl.canvas.width * v + u), a: null, b: null, asked: 0});
      if (this.enter(ray) && this.skip(ray)) this.pool.push(ray);
      else this.record(ray, 0, 0, 0, -1);
    }
  }

  ray(px, py, {right, up, back, eye}) {
    const {width, height} = this.gl.canvas, per = (2 * SPREAD) / Math.min(width, height);
    const x = (px - width / 2) * per, y = (height / 2 - py) * per;
    const direction = right.map((r, d) => x * r + y * up[d] - back[d]), length = Math.hypot(...direction);
    return {eye, direction: direction.map((v) => v / length), t: 0, end: 0, grain: per / length};
  }

  // Where a ray enters the box of the surface and leaves it.
  enter(ray) {
    let first = 1e-4, last = Infinity;
    for (let d = 0; d < 3; ++d) {
      const one = (this.box.low[d] - ray.eye[d]) / ray.direction[d], two = (this.box.high[d] - ray.eye[d]) / ray.direction[d];
      first = Math.max(first, Math.min(one, two));
      last = Math.min(last, Math.max(one, two));
    }
    ray.t = first;
    ray.end = last;
    return first < last;
  }

  // Goes on while the grid says that there is nothing; false where the ray leaves the box.
  skip(ray) {
    const {grid, about} = this, [x, y, z] = ray.eye, [dx, dy, dz] = ray.direction;
    for (let n = 0; n < 256 && ray.t < ray.end; ++n) {
      const value = grid.at(x + ray.t * dx, y + ray.t * dy, z + ray.t * dz);
      const safe = value - Math.max(grid.slack, UNSURE * value);
      if (safe < 0.25 * grid.cell) return true;
      ray.t += safe / about.shape.bound;
    }
    return ray.t < ray.end;
  }

  askValues() {
    const rays = this.pool.splice(0, this.evaluator.size(false)), version = this.version;
    this.evaluator.submit(this.places(rays), rays.length, false, (values) => {
      if (version !== this.version) return;
      rays.forEach((ray, n) => this.step(ray, values[4 * n]));
    });
  }

  askSlopes() {
    const rays = this.hits.splice(0, this.evaluator.size(true)), version = this.version;
    this.evaluator.submit(this.places(rays), rays.length, true, (values) => {
      if (version !== this.version) return;
      rays.forEach((ray, n) => {
        const slope = [4, 8, 12].map((k) => values[16 * n + k]), length = Math.hypot(...slope) || 1;
        this.record(ray, ...slope.map((v) => v / length), ray.t + this.rest(ray, values[16 * n], slope));
      });
    });
  }

  // The last bit of a ray's way, by the derivative along it; none where it only grazes the surface.
  rest(ray, value, slope) {
    const along = slope.reduce((sum, v, d) => sum + v * ray.direction[d], 0), most = 4 * Math.abs(value);
    return along < 0 ? Math.min(Math.max(-value / along, -most), most) : 0;
  }

  places(rays) {
    const points = new Float32Array(3 * rays.length);
    rays.forEach(({eye, direction, t}, n) => {
      for (let d = 0; d < 3; ++d) points[3 * n + d] = eye[d] + t * direction[d];
    });
    return points;
  }

  // What the value at a ray's place says: it has arrived, or where to ask next.
  step(ray, value) {
    const enough = Math.max(0.1 * ray.grain * ray.t, 2e-5), {bound} = this.about.shape;
    if (Math.abs(value) < enough || (value < 0 && !ray.a)) return void this.hits.push(ray);
    const last = ray.a;
    if (value > 0) ray.a = [ray.t, value];
    else ray.b = [ray.t, value];
    if (++ray.asked > MOST_ASKED) return void (value < 8 * enough ? this.hits.push(ray) : this.record(ray, 0, 0, 0, -1));
    if (ray.b) return this.between(ray, enough);
    let step = value / bound;
    if (last && value < 0.02 && last[1] > value)  // close by, the last two values tell the slope along the ray
      step = Math.min(Math.max(step, (1.02 * value * (ray.t - last[0])) / (last[1] - value)), 4 * step);
    ray.t += step;
    if (this.skip(ray)) this.pool.push(ray);
    else this.record(ray, 0, 0, 0, -1);
  }

  // The surface lies between two places: a straight line through their values, and halving now and then.
  between(ray, enough) {
    const [[a, fa], [b, fb]] = [ray.a, ray.b];
    const part = ray.asked % 3 === 2 ? 0.5 : Math.min(Math.max(fa / (fa - fb), 0.02), 0.98);
    ray.t = a + part * (b - a);
    if (b - a < 0.5 * enough) this.hits.push(ray);
    else this.pool.push(ray);
  }

  // A pixel is known: normal and distance along the ray, or -1.
  record(ray, x, y, z, t) {
    const {found} = this, {tile, at} = ray;
    found[at] = x; found[at + 1] = y; found[at + 2] = z; found[at + 3] = t;
    if (--tile.left) return;
    this.paint(tile);
    this.show();
    if (--this.missing) return;
    if (!this.round) this.firstRound = performance.now() - this.started;
    this.sharp = this.round + 1;
    if (++this.round < JITTER.length && !this.once) { this.begin(); this.later(); }
    else { this.tiles = null; this.finished = performance.now(); this.onSettled?.(); }
  }

  // --- drawing

  // A tile's pixels are shaded; those of later rounds are mixed with what is there, each with the same weight.
  paint({x, y, width, height}) {
    const gl = this.gl;
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.surface);
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, gl.canvas.width);
    gl.pixelStorei(gl.UNPACK_SKIP_PIXELS, x);
    gl.pixelStorei(gl.UNPACK_SKIP_ROWS, y);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, width, height, gl.RGBA, gl.FLOAT, this.found);
    for (const name of [gl.UNPACK_ROW_LENGTH, gl.UNPACK_SKIP_PIXELS, gl.UNPACK_SKIP_ROWS]) gl.pixelStorei(name, 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.picture.frame);
    gl.viewport(x, y, width, height);
    gl.disable(gl.SCISSOR_TEST);
    if (this.round) {
      gl.enable(gl.BLEND);
      gl.blendColor(0, 0, 0, 1 / (this.round + 1));
      gl.blendFunc(gl.CONSTANT_ALPHA, gl.ONE_MINUS_CONSTANT_ALPHA);
    } else gl.disable(gl.BLEND);
    this.shade(this.frame, {exact: 1, scale: 1, origin: [x, y], jitter: JITTER[this.round]});
    gl.disable(gl.BLEND);
  }

  // The surface of the grid, for a camera that moves; `roughness` device pixels a pixel.
  drawGrid(picture, roughness) {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, picture.frame);
    gl.viewport(0, 0, picture.width, picture.height);
    gl.disable(gl.BLEND);
    gl.disable(gl.SCISSOR_TEST);
    this.shade(this.axes(), {exact: 0, scale: roughness, origin: [0, 0], jitter: [0.5, 0.5]});
  }

  shade({right, up, back, eye}, {exact, scale, origin, jitter}) {
    const gl = this.gl, {program, at} = this.shading, {width, height} = gl.canvas;
    gl.useProgram(program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_3D, this.volume);
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.surface);
    gl.uniform1i(at('grid'), 0);
    gl.uniform1i(at('surface'), 1);
    gl.uniform3fv(at('right'), right);
    gl.uniform3fv(at('up'), up);
    gl.uniform3fv(at('back'), back);
    gl.uniform3fv(at('eye'), eye);
    gl.uniform3fv(at('low'), this.box.low);
    gl.uniform3fv(at('high'), this.box.high);
    gl.uniform3fv(at('skyward'), this.about.shape.up === 'z' ? [0, 0, 1] : [0, 1, 0]);
    gl.uniform2f(at('size'), width, height);
    gl.uniform2f(at('origin'), ...origin);
    gl.uniform2f(at('jitter'), ...jitter);
    gl.uniform1f(at('scale'), scale);
    gl.uniform1f(at('spread'), SPREAD);
    gl.uniform1f(at('ground'), this.ground);
    gl.uniform1f(at('cells'), this.grid.size - 1);
    gl.uniform1f(at('bound'), this.about.shape.bound);
    gl.uniform1i(at('exact'), exact);
    gl.uniform1i(at('plain'), this.normals ? 1 : 0);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  draw() {
    if (!this.grid || !this.view) return;
    if (this.turning) this.view.azimuth += 0.006 * Math.min(4, (performance.now() - (this.lastFrame ?? 0)) / 16);
    this.lastFrame = performance.now();
    this.copy(this.moving || this.turning ? this.preview() : this.picture, null);
    if (this.turning) { this.version++; this.show(); }
  }

  // A picture, enlarged or not, into another one or onto the screen.
  copy(from, to) {
    const gl = this.gl, {program, at} = this.copying, {width, height} = gl.canvas;
    gl.bindFramebuffer(gl.FRAMEBUFFER, to?.frame ?? null);
    gl.viewport(0, 0, width, height);
    gl.disable(gl.BLEND);
    gl.disable(gl.SCISSOR_TEST);
    gl.useProgram(program);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, from.texture);
    gl.uniform1i(at('picture'), 0);
    gl.uniform1i(at('upright'), to ? 0 : 1);
    gl.uniform2f(at('size'), width, height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // The grid's surface, in a picture as small as it has to be to keep up with the hand.
  preview() {
    const gl = this.gl;
    if (this.fence) {
      this.show();
      if (gl.getSyncParameter(this.fence.sync, gl.SYNC_STATUS) !== gl.SIGNALED) return this.small;
      this.keepUp(performance.now() - this.fence.started);
      gl.deleteSync(this.fence.sync);
      this.fence = null;
    }
    if (this.small && this.shown === this.version) return this.small;
    const width = Math.ceil(gl.canvas.width / this.roughness), height = Math.ceil(gl.canvas.height / this.roughness);
    if (!this.small || this.small.width !== width || this.small.height !== height) {
      this.small?.free();
      this.small = new Picture(gl, width, height, gl.LINEAR);
    }
    this.drawGrid(this.small, gl.canvas.width / width);
    this.shown = this.version;
    this.fence = {sync: gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0), started: performance.now()};
    this.show();  // once more, to measure
    return this.small;
  }

  // Fewer pixels where a picture took long, more where it did not.
  keepUp(took) {
    if (took > 70) this.roughness = Math.min(8, this.roughness * Math.sqrt(took / 40));
    else if (took < 25) this.roughness = Math.max(1, this.roughness * 0.8);
  }

  readout() {
    if (!this.grid) return ['asking the network'];
    if (!this.learned) return [`grid of ${this.grid.size}³`];
    const word = this.moving || this.turning ? `grid of ${this.grid.size}³` : 'the network itself';
    return [word, ...(this.sharp > 1 ? [`${this.sharp} samples a pixel`] : [])];
  }

  progress() {
    if (!this.learned) return this.grid ? Math.log2((this.grid.size - 1) / 8) / 5 : 0.05;
    if (this.moving || !this.tiles) return 1;
    return (this.round + this.tiles.given / this.tiles.total) / JITTER.length;
  }
}
