// Starts the page: unpacks the network, checks this device's arithmetic against the values that were exported with it,
// and shows it; starts again where the device has lost what it held.

async function unpack(about) {
  const text = document.getElementById('network').textContent.trim();
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const {half, full, others} = about.numbers, cuts = [2 * half, 2 * half + 4 * full];
  if (bytes.length !== cuts[1] + 4 * others) throw new Error('the numbers in this page are incomplete');
  const part = (from, to, size) => unshuffle(bytes.subarray(from, to), size).buffer;
  const matrices = [new Float32Array(part(cuts[0], cuts[1], 4)), Float32Array.from(new Uint16Array(part(0, cuts[0], 2)), fromHalf)];
  const rest = new Float32Array(part(cuts[1], bytes.length, 4)), used = [0, 0];
  let r = 0;
  const take = (count) => rest.subarray(r, (r += count));
  const matrix = (kind, count) => matrices[kind].subarray(used[kind], (used[kind] += count));
  const layers = about.layers.map((layer) => ({
    ...layer, weight: matrix(layer.half ? 1 : 0, layer.inputs * layer.outputs), bias: take(layer.outputs),
    sinusoids: take(3 * layer.terms * (layer.shared ? 1 : layer.outputs)),
  }));
  return {layers, sphere: about.sphere};
}

// The first bytes of all numbers come first, then the second: so they compress.
function unshuffle(bytes, size) {
  const count = bytes.length / size, found = new Uint8Array(bytes.length);
  for (let b = 0; b < size; ++b) for (let i = 0; i < count; ++i) found[size * i + b] = bytes[b * count + i];
  return found;
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, power = (bits >> 10) & 31, part = bits & 1023;
  if (!power) return sign * part * 2 ** -24;
  return power === 31 ? (part ? NaN : sign * Infinity) : sign * (1 + part / 1024) * 2 ** (power - 15);
}

class Page {
  constructor(about, network) {
    Object.assign(this, {about, network, canvas: document.getElementById('canvas'), dirty: false});
    this.canvas.addEventListener('webglcontextlost', (event) => { event.preventDefault(); this.lost(); });
    this.canvas.addEventListener('webglcontextrestored', () => this.start());
    const pass = (name) => (...values) => this.view?.view && this.touched(this.view[name](...values), name);
    this.gestures = new Gestures(this.canvas, Object.fromEntries(
      ['drag', 'slide', 'zoom', 'pick', 'key', 'hover', 'hold'].map((name) => [name, pass(name)])));
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    window.addEventListener('resize', () => this.resize());  // the device's pixels, when a window changes screens
    document.getElementById('help').addEventListener('click', () => this.toggle());
    document.getElementById('about').addEventListener('click', () => this.toggle());
    window.addEventListener('keydown', (event) => event.key === '?' && this.toggle());
  }

  toggle() { document.body.classList.toggle('told'); }

  touched(result, name) {
    if (name !== 'hover' && name !== 'hold') this.view.touched = true;
    if (name !== 'hover') this.evaluator.patience = 8;  // milliseconds a batch, while a hand is at work
    clearTimeout(this.calm);
    this.calm = setTimeout(() => { if (this.evaluator) this.evaluator.patience = 16; }, 400);
    return result;
  }

  async start() {
    this.fit();
    const gl = this.canvas.getContext('webgl2', {alpha: false, antialias: false, depth: false, powerPreference: 'high-performance'});
    if (!gl) throw new Error('this browser has no WebGL 2, with which the network is evaluated');
    this.gl = gl;
    try {
      this.evaluator = new Evaluator(gl, this.network);
      await this.check();
      const kind = this.about.kind === 'image' ? ImageView : ShapeView, {evaluator} = this;
      const view = new kind(gl, evaluator, this.about, () => this.show());
      evaluator.wake = () => view.pump();
      view.onSettled = () => this.show();
      if (this.kept && this.about.kind === 'image') view.look(this.kept);
      else if (this.kept) Object.assign(view, {view: this.kept, touched: true});
      this.view = view;
      this.say('');
      this.show();
    } catch (error) {
      if (!(error instanceof LostContext) && !gl.isContextLost()) throw error;
    }
  }

  lost() {
    this.kept = this.view?.view ?? this.kept;
    this.view = this.evaluator = null;
    this.say('The graphics processor was reset. Waiting for it …');
  }

  // Values on this device against those of torch, which came with the page.
  async check() {
    const {points, values, channels, tolerance} = this.about.check;
    const found = await this.evaluator.evaluate(Float32Array.from(points));
    let worst = 0;
    values.forEach((value, i) => {
      worst = Math.max(worst, Math.abs(value - found[4 * Math.floor(i / channels) + (i % channels)]));
    });
    this.difference = worst;
    document.getElementById('difference').textContent =
      `This device differs from torch by at most ${worst.toExponential(1)} at ${values.length / channels} points.`;
    if (!(worst <= tolerance)) {
      document.getElementById('warning').textContent =
        `This device computes other values than torch: ${worst.toExponential(1)} off, where ${tolerance} was expected.`;
    }
  }

  fit() {
    const ratio = window.devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    const changed = this.canvas.width !== width || this.canvas.height !== height;
    if (changed) Object.assign(this.canvas, {width, height});
    return changed;
  }

  resize() {
    if (!this.view || this.gl.isContextLost()) return;
    if (this.fit()) this.view.resize(this.view.view);
  }

  show() {
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => {
      this.dirty = false;
      if (!this.view || this.gl.isContextLost()) return;
      this.view.draw();
      this.tell();
    });
  }

  tell() {
    document.getElementById('readout').textContent = this.view.readout().join('  ·  ');
    const part = this.view.progress(), bar = document.getElementById('bar');
    bar.style.transform = `scaleX(${part})`;
    bar.style.opacity = part < 1 ? 1 : 0;
  }

  say(text) { document.getElementById('message').textContent = text; }

  // For scripts: resolves when all that the view needs has been computed.
  async settled() {
    while (!this.view || this.view.finished === null || this.view.finished === undefined || this.dirty)
      await new Promise((go) => setTimeout(go, 20));
    return true;
  }
}

(async () => {
  const about = JSON.parse(document.getElementById('facts').textContent);
  document.body.className = about.kind;
  try {
    window.staf = new Page(about, await unpack(about));
    await window.staf.start();
  } catch (error) {
    document.getElementById('message').textContent = `This cannot be shown: ${error.message}.`;
    throw error;
  }
})();
