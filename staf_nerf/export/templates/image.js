// An image that is a network: shown at any magnification, every device pixel asked from the network itself.
//
// Coordinates: columns and rows of the image's own pixels, the first pixel's middle at (½, ½). What the screen showed
// before stays, moved along, until a coarse picture (every eighth pixel) and then all pixels replace it.

const STRIDES = [8, 1];
const TILE = 32;
const DEEPEST = 1e9;  // device pixels per image pixel: float32 coordinates have run out long before

class ImageView {
  constructor(gl, evaluator, about, show) {
    Object.assign(this, {gl, evaluator, about, show});
    this.program = makeProgram(gl, FULL_SCREEN, IMAGE_SHADER);
    this.beyond = false;
    this.version = 0;
    this.resize();
  }

  // --- view

  resize(keep) {
    const {width, height} = this.gl.canvas;
    this.levels?.forEach((level) => level.picture.free());
    this.past?.free();
    this.other?.free();
    this.queue = null;
    this.levels = STRIDES.map((step) => {
      const w = Math.ceil(width / step), h = Math.ceil(height / step), filter = step > 1 ? this.gl.LINEAR : this.gl.NEAREST;
      return {step, width: w, height: h, data: new Uint8Array(4 * w * h), picture: new Picture(this.gl, w, h, filter)};
    });
    [this.past, this.other] = [0, 1].map(() => new Picture(this.gl, width, height, this.gl.LINEAR));
    this.past.clear();
    this.pastView = null;
    if (keep) this.look(keep);
    else this.home();
  }

  home() {
    const {width, height} = this.gl.canvas, {image} = this.about;
    const fit = Math.min(width / image.width, height / image.height);
    const zoom = fit >= 1 && fit < 2 ? 1 : 0.96 * fit;
    this.look({x: image.width / 2, y: image.height / 2, zoom});
  }

  // Shows another part: the image's place in the middle of the screen, and device pixels per image pixel.
  look(view) {
    const {image} = this.about, least = 16 / Math.max(image.width, image.height);
    const held = (value, size) => Math.min(Math.max(value, -size), 2 * size);
    const zoom = Math.min(Math.max(view.zoom, least), DEEPEST);
    this.keepPast();
    this.view = {x: held(view.x, image.width), y: held(view.y, image.height), zoom};
    if (zoom === 1) this.align();
    this.restart();
  }

  // At 1:1 a device pixel is a pixel of the image, not a mixture of the places of two.
  align() {
    const {width, height} = this.gl.canvas;
    const snap = (value, size) => Math.round(value - size / 2) + size / 2;
    this.view.x = snap(this.view.x, width);
    this.view.y = snap(this.view.y, height);
  }

  slide(dx, dy) {
    const {x, y, zoom} = this.view;
    this.look({x: x - dx / zoom, y: y - dy / zoom, zoom});
  }

  drag(dx, dy) { this.slide(dx, dy); }

  zoom(factor, px, py) {
    const {x, y, zoom} = this.view, next = Math.min(Math.max(zoom * factor, 1e-3), DEEPEST);
    const move = (1 / zoom - 1 / next);
    this.look({
      x: x + (px - this.gl.canvas.width / 2) * move, y: y + (py - this.gl.canvas.height / 2) * move, zoom: next});
  }

  pick(px, py) { this.zoom(2, px, py); }

  key(name, shift) {
    const {width, height} = this.gl.canvas, step = shift ? 0.5 : 0.125;
    const moves = {ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
    if (name in moves) this.slide(moves[name][0] * step * width, moves[name][1] * step * height);
    else if (name === '+' || name === '=') this.zoom(1.25, width / 2, height / 2);
    else if (name === '-' || name === '_') this.zoom(0.8, width / 2, height / 2);
    else if (name === '1') this.look({...this.view, zoom: 1});
    else if (name === '0' || name === 'Home') this.home();
    else if (name === 'b') { this.beyond = !this.beyond; this.restart(); }
    else return false;
    return true;
  }

  hover(px, py) { this.pointer = this.place(px, py); this.show(); }

  hold() {}

  place(px, py) {
    const {x, y, zoom} = this.view, {width, height} = this.gl.canvas;
    return [x + (px - width / 2) / zoom, y + (py - height / 2) / zoom];
  }

  // --- work

  restart() {
    this.version++;
    this.queue = this.levels.map((level) => this.plan(level));
    this.levels.forEach((level) => { level.data.fill(0); level.picture.clear(); });
    this.waiting = 0;
    this.started = performance.now();
    this.finished = null;
    this.show();
    this.pump();
  }

  // The part of a level that the image covers, or all of it.
  plan(level) {
    const {x, y, zoom} = this.view, {width, height} = this.gl.canvas, {image} = this.about;
    const edge = (at, middle, size) => ((at - middle) * zoom + size / 2) / level.step;
    let [left, top, right, bottom] = [0, 0, level.width, level.height];
    if (!this.beyond) {
      left = Math.max(left, Math.floor(edge(0, x, width)));
      top = Math.max(top, Math.floor(edge(0, y, height)));
      right = Math.min(right, Math.ceil(edge(image.width, x, width)));
      bottom = Math.min(bottom, Math.ceil(edge(image.height, y, height)));
    }
    return new Tiles(left, top, right, bottom, TILE, level.width / 2, level.height / 2);
  }

  pump() {
    if (!this.queue) return;
    while (this.evaluator.free) {
      const number = this.queue.findIndex((tiles) => !tiles.done);
      if (number < 0) break;
      this.batch(this.levels[number], this.queue[number]);
    }
    if (!this.waiting && this.queue.every((tiles) => tiles.done) && this.finished === null) {
      this.finished = performance.now();
      this.show();
      this.onSettled?.();
    }
  }

  batch(level, tiles) {
    const most = Math.min(this.evaluator.size(false), tiles.total - tiles.given);
    const points = new Float32Array(2 * most), pixels = new Int32Array(2 * most), version = this.version;
    let [left, top, right, bottom] = [Infinity, Infinity, 0, 0];
    for (let n = 0; n < most; ++n) {
      const [, u, v] = tiles.next();
      const across = Math.min((u + 0.5) * level.step, this.gl.canvas.width - 0.5);
      const down = Math.min((v + 0.5) * level.step, this.gl.canvas.height - 0.5);
      points.set(this.coordinates(...this.place(across, down)), 2 * n);
      pixels[2 * n] = u;
      pixels[2 * n + 1] = v;
      left = Math.min(left, u); right = Math.max(right, u + 1);
      top = Math.min(top, v); bottom = Math.max(bottom, v + 1);
    }
    this.waiting++;
    this.evaluator.submit(points, most, false, (values) => {
      if (version !== this.version) return;
      this.waiting--;
      this.paint(level, pixels, values);
      level.picture.put(level.data, left, top, right - left, bottom - top);
      this.show();
    });
  }

  coordinates(column, row) {
    const {width, height, corners} = this.about.image;
    const [across, down] = [2 * column - width, 2 * row - height], longest = Math.max(width, height);
    if (corners) return [across / Math.max(width - 1, 1), down / Math.max(height - 1, 1)];
    return [across / longest, down / longest];
  }

  // Bytes as `staf fit` writes and shows them: mapped from the field's range, clipped, rounded.
  paint(level, pixels, values) {
    const {image} = this.about, channels = this.evaluator.network.layers.at(-1).outputs;
    const part = (value) => Math.min(1, Math.max(0, image.scale * value + image.offset));
    const byte = image.gamma === 1 ? (value) => Math.round(255 * part(value)) :
      (value) => Math.round(255 * part(value) ** image.gamma);
    const colors = channels < 3 ? [0, 0, 0] : [0, 1, 2], alpha = channels % 2 ? null : channels - 1;
    for (let n = 0; n < pixels.length / 2; ++n) {
      const at = 4 * (level.width * pixels[2 * n + 1] + pixels[2 * n]);
      for (let c = 0; c < 3; ++c) level.data[at + c] = byte(values[4 * n + colors[c]]);
      // 0 says that nothing is here yet: what is transparent is mixed with the board at once.
      level.data[at + 3] = 255;
      if (alpha !== null) this.mix(level, at, pixels[2 * n], pixels[2 * n + 1], part(values[4 * n + alpha]));
    }
  }

  mix(level, at, u, v, alpha) {
    const board = ((u * level.step >> 3) + (v * level.step >> 3)) & 1 ? 204 : 153;
    for (let c = 0; c < 3; ++c) level.data[at + c] = Math.round(alpha * level.data[at + c] + (1 - alpha) * board);
  }

  // --- drawing

  // What is on the screen becomes the past, if there is more of it than of the past.
  keepPast() {
    const fine = this.queue?.[1];
    if (!this.view || !fine || (this.pastView && fine.given < 0.5 * fine.total)) return;
    this.draw(this.other);
    [this.past, this.other] = [this.other, this.past];
    this.pastView = {...this.view};
  }

  draw(picture = null) {
    const gl = this.gl, {width, height} = gl.canvas, {program, at} = this.program, {image} = this.about;
    gl.bindFramebuffer(gl.FRAMEBUFFER, picture?.frame ?? null);
    gl.viewport(0, 0, width, height);
    gl.disable(gl.BLEND);
    gl.disable(gl.SCISSOR_TEST);
    gl.useProgram(program);
    [this.levels[1].picture, this.levels[0].picture, this.past].forEach((source, n) => {
      gl.activeTexture(gl.TEXTURE0 + n);
      gl.bindTexture(gl.TEXTURE_2D, source.texture);
      gl.uniform1i(at(['fine', 'coarse', 'past'][n]), n);
    });
    const {x, y, zoom} = this.view, was = this.pastView ?? this.view;
    gl.uniform2f(at('size'), width, height);
    gl.uniform1f(at('stride'), STRIDES[0]);
    gl.uniform1i(at('upright'), picture ? 0 : 1);
    // A pixel of the screen in the past's pixels: scale and shift, computed in double precision here.
    gl.uniform3f(at('back'), was.zoom / zoom,
      width / 2 + (x - was.x) * was.zoom - (width / 2) * (was.zoom / zoom),
      height / 2 + (y - was.y) * was.zoom - (height / 2) * (was.zoom / zoom));
    gl.uniform1i(at('remembers'), this.pastView ? 1 : 0);
    const corner = (size, at, middle) => (at - middle) * zoom + size / 2;
    const box = [corner(width, 0, x), corner(height, 0, y), corner(width, image.width, x), corner(height, image.height, y)];
    gl.uniform4f(at('box'), ...(this.beyond ? [-1e9, -1e9, 1e9, 1e9] : box.map((v) => Math.min(Math.max(v, -1e9), 1e9))));
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  readout() {
    const {zoom} = this.view, parts = [];
    const percent = zoom >= 10 ? `${zoom < 1e5 ? Math.round(zoom).toLocaleString('en') : zoom.toExponential(1)}×` :
      `${(100 * zoom).toPrecision(3).replace(/\.0+$/, '')} %`;
    parts.push(percent);
    if (this.pointer) parts.push(`${this.pointer.map((v) => v.toFixed(Math.max(0, Math.ceil(Math.log10(zoom))))).join(', ')}`);
    return parts;
  }

  progress() {
    const fine = this.queue[1];
    return fine.total ? fine.given / fine.total : 1;
  }
}
