// What both pages share: the canvas, gestures, tiles from the middle outwards, and the loop that never holds up a frame.

// Hands out the pixels of a rectangle in square tiles, those nearest to a point first.
class Tiles {
  constructor(left, top, right, bottom, side, x, y) {
    this.list = [];
    for (let v = top; v < bottom; v += side)
      for (let u = left; u < right; u += side) {
        const width = Math.min(side, right - u), height = Math.min(side, bottom - v);
        this.list.push({x: u, y: v, width, height, count: width * height, left: width * height});
      }
    const far = (tile) => Math.hypot(tile.x + tile.width / 2 - x, tile.y + tile.height / 2 - y);
    this.list.sort((a, b) => far(a) - far(b));
    this.total = this.list.reduce((sum, tile) => sum + tile.count, 0);
    this.given = this.tile = this.within = 0;
  }

  get done() { return this.tile >= this.list.length; }

  // The next pixel, as its tile and its number in it.
  next() {
    const tile = this.list[this.tile], number = this.within++;
    this.given++;
    if (this.within === tile.count) { this.tile++; this.within = 0; }
    return [tile, tile.x + (number % tile.width), tile.y + Math.floor(number / tile.width)];
  }
}

// Mouse, wheel, touch and keyboard as four wishes: drag, slide (the other button, two fingers), zoom, and a key.
class Gestures {
  constructor(canvas, wishes) {
    this.canvas = canvas;
    this.wishes = wishes;
    this.pointers = new Map();
    canvas.addEventListener('pointerdown', (event) => this.down(event));
    canvas.addEventListener('pointermove', (event) => this.move(event));
    for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, (event) => this.up(event));
    canvas.addEventListener('wheel', (event) => this.wheel(event), {passive: false});
    canvas.addEventListener('contextmenu', (event) => event.preventDefault());
    canvas.addEventListener('dblclick', (event) => wishes.pick(...this.place(event)));
    window.addEventListener('keydown', (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (wishes.key(event.key, event.shiftKey)) event.preventDefault();
    });
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * this.canvas.width) / box.width,
            ((event.clientY - box.top) * this.canvas.height) / box.height];
  }

  down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, this.place(event));
    this.canvas.focus({preventScroll: true});
    this.wishes.hold(true);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.wishes.hold(false);
  }

  move(event) {
    const now = this.place(event), before = this.pointers.get(event.pointerId);
    this.wishes.hover(...now);
    if (!before) return;
    if (this.pointers.size === 1) {
      const wish = event.buttons & 6 || event.shiftKey ? 'slide' : 'drag';
      this.wishes[wish](now[0] - before[0], now[1] - before[1]);
    } else if (this.pointers.size === 2) {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      const apart = (at) => Math.max(1, Math.hypot(at[0] - other[0], at[1] - other[1]));
      this.wishes.slide((now[0] - before[0]) / 2, (now[1] - before[1]) / 2);
      this.wishes.zoom(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    }
    this.pointers.set(event.pointerId, now);
  }

  wheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * [1, 16, 400][event.deltaMode];
    const factor = Math.exp(-Math.max(-240, Math.min(240, pixels)) * (event.ctrlKey ? 0.01 : 0.0022));
    this.wishes.zoom(factor, ...this.place(event));
  }
}

// An RGBA8 picture that can be drawn to and shown.
class Picture {
  constructor(gl, width, height, filter) {
    this.gl = gl;
    this.width = width;
    this.height = height;
    this.texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, filter);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, width, height);
    this.frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, this.texture, 0);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  clear() {
    const gl = this.gl;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.frame);
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  // Takes a rectangle out of `data`, which has the whole picture's size.
  put(data, x, y, width, height) {
    const gl = this.gl;
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, this.width);
    gl.pixelStorei(gl.UNPACK_SKIP_PIXELS, x);
    gl.pixelStorei(gl.UNPACK_SKIP_ROWS, y);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, x, y, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
    for (const name of [gl.UNPACK_ROW_LENGTH, gl.UNPACK_SKIP_PIXELS, gl.UNPACK_SKIP_ROWS]) gl.pixelStorei(name, 0);
  }

  free() {
    this.gl.deleteTexture(this.texture);
    this.gl.deleteFramebuffer(this.frame);
  }
}
