/* The worker: holds the points, draws them into pixels, and finds what lies inside a shape.

   A cloud is a set of points (a section in micrometres, or an embedding) sorted into the cells of a grid, row by row,
   so that what is in view is one run of points a grid row. A pane is a canvas that shows a cloud.
   A point's paint is a number: 0 is not drawn, else an entry of the section's table of colours. HIGH marks the selected,
   KNOWN those that have a category: both lie above the others. */
"use strict";

const HIGH = 0x8000, KNOWN = 0x4000;
const sections = new Map(); // id -> {n, paint, lut, order, version, mask}
const clouds = new Map(); // id -> {section, xs, ys, rows, start, cells, ...}
const panes = new Map(); // id -> what is shown where
const now = () => performance.now();
/** The rim of discs over tissue: white, all but opaque; drawn for so many discs at most. */
const RIM = 0xd9ffffff, MOST_RIMS = 60000;

/* ---------------------------------------------------------------- points in a grid */

function extent(xy) {
  let x0 = Infinity, y0 = Infinity, x1 = -Infinity, y1 = -Infinity;
  for (let i = 0; i < xy.length; i += 2) {
    const x = xy[i], y = xy[i + 1];
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
  }
  return x0 <= x1 && y0 <= y1 ? [x0, y0, x1, y1] : [0, 0, 1, 1];
}

function makeCloud(id, section, xy) {
  const n = xy.length / 2;
  const [x0, y0, x1, y1] = extent(xy);
  const side = Math.max(x1 - x0, y1 - y0, 1e-9) / Math.min(512, Math.max(1, Math.round(Math.sqrt(n / 8))));
  const nx = Math.floor((x1 - x0) / side) + 1, ny = Math.floor((y1 - y0) / side) + 1;
  const cell = new Uint32Array(n), start = new Uint32Array(nx * ny + 2);
  let placed = 0;
  for (let i = 0; i < n; i++) {
    const x = xy[2 * i], y = xy[2 * i + 1];
    const at = x - x === 0 && y - y === 0 ? Math.floor((y - y0) / side) * nx + Math.floor((x - x0) / side) : nx * ny;
    cell[i] = at;
    if (at < nx * ny) placed++;
    start[at + 1]++;
  }
  for (let c = 0; c <= nx * ny; c++) start[c + 1] += start[c];
  const next = start.slice(), rows = new Uint32Array(n), xs = new Float32Array(n), ys = new Float32Array(n);
  for (let i = 0; i < n; i++) {
    const j = next[cell[i]]++;
    rows[j] = i;
    xs[j] = xy[2 * i];
    ys[j] = xy[2 * i + 1];
  }
  const cloud = { id, section, n, placed, xs, ys, rows, start, nx, ny, x0, y0, x1, y1, side, paint: new Uint16Array(n), version: -1 };
  clouds.set(id, cloud);
  return cloud;
}

/** Calls f(a, b) for every run of points whose cells touch the box; a run is one row of the grid. */
function runs(cloud, bx0, by0, bx1, by1, f) {
  const { nx, ny, side, x0, y0, start } = cloud;
  const cx0 = Math.max(0, Math.floor((bx0 - x0) / side)), cx1 = Math.min(nx - 1, Math.floor((bx1 - x0) / side));
  const cy0 = Math.max(0, Math.floor((by0 - y0) / side)), cy1 = Math.min(ny - 1, Math.floor((by1 - y0) / side));
  if (cx0 > cx1) return;
  for (let cy = cy0; cy <= cy1; cy++) {
    const a = start[cy * nx + cx0], b = start[cy * nx + cx1 + 1];
    if (a < b) f(a, b);
  }
}

/* ---------------------------------------------------------------- paint */

function paintSection(s, m) {
  const { n, paint } = s, values = m.values, hidden = m.hidden;
  s.order = m.kind === "number" ? 0xffff : HIGH | KNOWN; // which bits decide what lies on top
  if (m.kind === "number") {
    const lo = m.lo, scale = 255.999 / Math.max(m.hi - m.lo, 1e-30);
    for (let i = 0; i < n; i++) {
      const t = (values[i] - lo) * scale;
      paint[i] = t !== t ? 1 : m.hideLow && t <= 0 ? 0 : 2 + (t <= 0 ? 0 : t >= 255 ? 255 : t | 0);
    }
  } else {
    const none = values.BYTES_PER_ELEMENT === 1 ? 255 : 65535;
    for (let i = 0; i < n; i++) {
      const v = values[i];
      paint[i] = v === none ? (m.hideMissing ? 0 : 1) : hidden[v] ? 0 : (2 + v) | KNOWN;
    }
  }
  s.colours = m.colours; // Uint32: [0, missing, first, second, ...]
  tint(s);
}

/** The table of colours: with a selection, what is not selected is faint. */
function tint(s) {
  const lut = s.lut, k = s.colours.length, faint = s.mask ? 0x2e000000 : 0;
  for (let c = 1; c < k; c++) {
    lut[c] = faint ? (s.colours[c] & 0xffffff) | faint : s.colours[c];
    lut[c | HIGH] = s.colours[c];
    if (s.order !== 0xffff) {
      lut[c | KNOWN] = lut[c];
      lut[c | KNOWN | HIGH] = s.colours[c];
    }
  }
  s.version++;
}

function gather(cloud, s) {
  if (cloud.version === s.version) return;
  const { paint, rows, n } = cloud, from = s.paint, mask = s.mask;
  if (mask) for (let j = 0; j < n; j++) {
    const i = rows[j], v = from[i];
    paint[j] = v && mask[i] ? v | HIGH : v;
  } else for (let j = 0; j < n; j++) paint[j] = from[rows[j]];
  cloud.version = s.version;
}

/* ---------------------------------------------------------------- drawing */

function resize(p, width, height) {
  p.width = width;
  p.height = height;
  p.index = new Uint16Array(width * height);
  p.pixels = new Uint32Array(width * height);
  p.image = new ImageData(new Uint8ClampedArray(p.pixels.buffer), width, height);
  p.shown = null;
  if (p.canvas) {
    p.canvas.width = width;
    p.canvas.height = height;
  }
}

/** Draws the points of a pane inside the rectangle [x0, x1) x [y0, y1) of pixels; every `stride`-th point. */
function raster(p, x0, y0, x1, y1, stride) {
  const d = Math.max(1, Math.round(2 * p.radius)), visible = count(p, x0, y0, x1, y1);
  if (d > 3 && visible * d * d < 8e6) smooth(p, x0, y0, x1, y1, p.cloud.n > MOST_RIMS ? 0 : p.rim || 0);
  else {
    for (let y = y0; y < y1; y++) p.index.fill(0, y * p.width + x0, y * p.width + x1);
    if (d === 1) dots(p, x0, y0, x1, y1, stride);
    else blocks(p, x0, y0, x1, y1, stride, d);
    const { width, index, pixels } = p, lut = sections.get(p.cloud.section).lut;
    for (let y = y0; y < y1; y++) for (let q = y * width + x0, e = y * width + x1; q < e; q++) pixels[q] = lut[index[q]];
  }
}

const boxOf = (p, x0, y0, x1, y1, margin) => [
  (x0 - margin - p.x) / p.scale, (y0 - margin - p.y) / p.scale, (x1 + margin - p.x) / p.scale, (y1 + margin - p.y) / p.scale,
];

function count(p, x0, y0, x1, y1) {
  let total = 0;
  runs(p.cloud, ...boxOf(p, x0, y0, x1, y1, p.radius + (p.rim || 0) + 1), (a, b) => { total += b - a; });
  return total;
}

function dots(p, x0, y0, x1, y1, stride) {
  const { xs, ys, paint } = p.cloud, { scale, x, y, index, width } = p, top = sections.get(p.cloud.section).order;
  runs(p.cloud, ...boxOf(p, x0, y0, x1, y1, 1), (a, b) => {
    for (let j = a; j < b; j += stride) {
      const px = xs[j] * scale + x, py = ys[j] * scale + y;
      if (px < x0 || px >= x1 || py < y0 || py >= y1) continue;
      const q = (py | 0) * width + (px | 0), v = paint[j];
      if ((index[q] & top) <= (v & top) && v) index[q] = v;
    }
  });
}

/** The pixels of a disc of `d` pixels, as [column, row] from the upper left of its square. */
function disc(d) {
  const found = [];
  for (let r = 0; r < d; r++) for (let c = 0; c < d; c++) {
    if (d < 4 || Math.hypot(c + 0.5 - d / 2, r + 0.5 - d / 2) <= d / 2) found.push([c, r]);
  }
  return found;
}

function blocks(p, x0, y0, x1, y1, stride, d) {
  const { xs, ys, paint } = p.cloud, { scale, x, y, index, width } = p, top = sections.get(p.cloud.section).order;
  const part = disc(d), k = part.length, jump = Int32Array.from(part, ([c, r]) => r * width + c);
  const back = 0.5 - d / 2 + 64; // + 64: truncating is then rounding down
  runs(p.cloud, ...boxOf(p, x0, y0, x1, y1, d), (a, b) => {
    for (let j = a; j < b; j += stride) {
      const v = paint[j], w = v & top;
      if (!v) continue;
      const px = ((xs[j] * scale + x + back) | 0) - 64, py = ((ys[j] * scale + y + back) | 0) - 64, at = py * width + px;
      if (px >= x0 && px + d <= x1 && py >= y0 && py + d <= y1) {
        for (let i = 0; i < k; i++) if ((index[at + jump[i]] & top) <= w) index[at + jump[i]] = v;
      } else if (px + d > x0 && px < x1 && py + d > y0 && py < y1) {
        for (const [c, r] of part) {
          const q = at + r * width + c;
          if (px + c >= x0 && px + c < x1 && py + r >= y0 && py + r < y1 && (index[q] & top) <= w) index[q] = v;
        }
      }
    }
  });
}

/** Coverage of a disc whose centre lies some eighths of a pixel into its pixel; the square leaves room for a rim. */
function stamps(radius, rim) {
  const h = Math.ceil(radius + rim + 0.5), size = 2 * h + 1, made = [];
  for (let sub = 0; sub < 64; sub++) {
    const cx = h + ((sub & 7) + 0.5) / 8, cy = h + ((sub >> 3) + 0.5) / 8, cover = new Uint8Array(size * size), rims = rim ? new Uint8Array(size * size) : null;
    for (let r = 0; r < size; r++) for (let c = 0; c < size; c++) {
      const away = Math.hypot(c + 0.5 - cx, r + 0.5 - cy);
      cover[r * size + c] = covered(radius + 0.5 - away);
      if (rim) rims[r * size + c] = covered(radius + rim + 0.5 - away);
    }
    made.push({ cover, rims });
  }
  return { h, size, made, radius, rim };
}
const covered = (t) => Math.round(255 * Math.min(1, Math.max(0, t)));

/** Points that can be seen, those that lie on top last: sorted by counting, paint has few values. */
function drawingOrder(p, x0, y0, x1, y1, top) {
  const { paint } = p.cloud, found = [], start = new Uint32Array(1025), numbers = top === 0xffff;
  const key = (v) => (v >>> 15 << 9) | (numbers ? v & 511 : (v >>> 14) & 1);
  runs(p.cloud, ...boxOf(p, x0, y0, x1, y1, p.radius + (p.rim || 0) + 2), (a, b) => {
    for (let j = a; j < b; j++) if (paint[j]) {
      found.push(j);
      start[key(paint[j]) + 1]++;
    }
  });
  for (let k = 0; k < 1024; k++) start[k + 1] += start[k];
  const sorted = new Uint32Array(found.length);
  for (const j of found) sorted[start[key(paint[j])]++] = j;
  return sorted;
}

function smooth(p, x0, y0, x1, y1, rim) {
  const { xs, ys, paint } = p.cloud, { scale, x, y, pixels, width } = p, s = sections.get(p.cloud.section);
  for (let r = y0; r < y1; r++) pixels.fill(0, r * width + x0, r * width + x1);
  if (!p.stamps || p.stamps.radius !== p.radius || p.stamps.rim !== rim) p.stamps = stamps(p.radius, rim);
  const { h, size, made } = p.stamps;
  for (const j of drawingOrder(p, x0, y0, x1, y1, s.order)) {
    const fx = xs[j] * scale + x, fy = ys[j] * scale + y, ix = Math.floor(fx), iy = Math.floor(fy);
    const { cover, rims } = made[((fx - ix) * 8) | (((fy - iy) * 8) << 3)], colour = s.lut[paint[j]];
    const edge = rims && (((((RIM >>> 24) * (colour >>> 24)) / 255) << 24) | (RIM & 0xffffff)) >>> 0; // faint where the disc is
    const left = ix - h, up = iy - h, c0 = Math.max(0, x0 - left), c1 = Math.min(size, x1 - left);
    for (let r = Math.max(0, y0 - up), e = Math.min(size, y1 - up); r < e; r++) {
      for (let c = c0, q = (up + r) * width + left + c0; c < c1; c++, q++) {
        const part = cover[r * size + c];
        if (rims && part < 255 && rims[r * size + c]) pixels[q] = over(edge, rims[r * size + c], pixels[q]);
        if (part) pixels[q] = part === 255 && colour >>> 24 === 255 ? colour : over(colour, part, pixels[q]);
      }
    }
  }
}

/** A colour laid over another, covering `part` of 255; colours are ABGR, not premultiplied. */
function over(colour, part, below) {
  const a = ((colour >>> 24) * part) / 255;
  if (!below) return ((Math.round(a) << 24) | (colour & 0xffffff)) >>> 0;
  const rest = ((below >>> 24) * (255 - a)) / 255, all = a + rest;
  if (all < 0.5) return below;
  const mix = (shift) => Math.round((((colour >>> shift) & 255) * a + ((below >>> shift) & 255) * rest) / all) << shift;
  return ((Math.round(all) << 24) | mix(16) | mix(8) | mix(0)) >>> 0;
}

/* ---------------------------------------------------------------- frames */

let due = false;
function schedule() {
  if (due) return;
  due = true;
  (self.requestAnimationFrame || ((f) => setTimeout(f, 8)))(() => {
    due = false;
    for (const p of panes.values()) if (p.wanted) draw(p);
  });
}

function draw(p) {
  const s = p.cloud && sections.get(p.cloud.section);
  if (!s || !p.image || !s.colours) return;
  const started = now(), view = p.wanted, was = p.shown;
  p.wanted = null;
  gather(p.cloud, s);
  const same = was && was.scale === view.scale && was.radius === view.radius && was.rim === view.rim && was.version === s.version && was.cloud === p.cloud;
  let dx = 0, dy = 0;
  if (same) {
    dx = Math.round(view.x - was.x);
    dy = Math.round(view.y - was.y);
  }
  const shift = same && (was.stride === 1 || view.moving) && Math.abs(dx) < p.width && Math.abs(dy) < p.height;
  Object.assign(p, view);
  if (shift) {
    p.x = was.x + dx;
    p.y = was.y + dy;
    scroll(p, dx, dy, was.stride);
  }
  const stride = shift ? was.stride : view.moving ? strideFor(p) : 1;
  if (!shift) raster(p, 0, 0, p.width, p.height, stride);
  p.context.putImageData(p.image, 0, 0);
  const ms = now() - started;
  if (!shift) p.rate = ms / Math.max(1, count(p, 0, 0, p.width, p.height) / stride);
  p.shown = { scale: p.scale, radius: p.radius, rim: p.rim, x: p.x, y: p.y, version: s.version, cloud: p.cloud, stride };
  postMessage({ what: "drawn", pane: p.id, ms, kind: shift ? "pan" : stride > 1 ? "rough" : "full", asked: view.asked });
  clearTimeout(p.idle);
  if (stride > 1) p.idle = setTimeout(() => refine(p), 120);
}

function refine(p) {
  p.wanted = p.wanted || { ...viewOf(p), moving: false };
  p.wanted.moving = false;
  schedule();
}

const viewOf = (p) => ({ scale: p.scale, radius: p.radius, rim: p.rim, x: p.x, y: p.y, moving: false, asked: 0 });

/** While moving, only as many points as can be drawn in 12 ms at the speed of the last frame. */
function strideFor(p) {
  const visible = count(p, 0, 0, p.width, p.height);
  return Math.max(1, Math.ceil((visible * (p.rate || 2e-5)) / 12));
}

/** The last frame moved by whole pixels; only what comes into view is drawn. */
function scroll(p, dx, dy, stride) {
  if (!dx && !dy) return;
  const { width, height, pixels } = p, by = dy * width + dx;
  if (by > 0) pixels.copyWithin(by, 0, pixels.length - by);
  else pixels.copyWithin(0, -by);
  if (dy > 0) raster(p, 0, 0, width, dy, stride);
  if (dy < 0) raster(p, 0, height + dy, width, height, stride);
  if (dx > 0) raster(p, 0, 0, dx, height, stride);
  if (dx < 0) raster(p, width + dx, 0, width, height, stride);
}

/* ---------------------------------------------------------------- what lies inside a shape */

/** Points inside rings by the even-odd rule, as a mask over rows of the section.

    Grid row by grid row, with a ray to the right. Edges that run through the whole row are sorted by where they do:
    those right of a cell flip the parity of all its points, those left of it count nothing, and only the ones that
    meet the cell, and edges that end in the row, are tested point by point. */
function inside(cloud, rings) {
  const mask = new Uint8Array(cloud.n), edges = edgesOf(rings), { nx, ny, side, x0, y0, start, xs, ys, rows } = cloud;
  const tested = new Float64Array(edges.length * 4), slack = 1e-6 * side;
  for (let cy = 0; cy < ny; cy++) {
    const { through, ending } = edgesInRow(edges, y0 + cy * side - slack, y0 + (cy + 1) * side + slack, slack);
    if (!through.length && !ending.length) continue;
    const most = [...through, ...ending].reduce((far, e) => Math.max(far, e.right), -Infinity);
    let first = 0, after = 0; // through[first..after) may meet the cell
    for (let cx = 0; cx < nx; cx++) {
      const a = start[cy * nx + cx], b = start[cy * nx + cx + 1], left = x0 + cx * side - slack, right = left + side + 2 * slack;
      if (left > most) break;
      while (first < through.length && through[first].right < left) first++;
      while (after < through.length && through[after].left <= right) after++;
      if (a === b) continue;
      const parity = (through.length - Math.max(after, first)) & 1;
      let k = 0;
      for (let i = first; i < after; i++) if (through[i].right >= left) k = put(tested, k, through[i]);
      for (const e of ending) if (e.right >= left) k = put(tested, k, e);
      if (!k && !parity) continue;
      for (let j = a; j < b; j++) {
        const x = xs[j], y = ys[j];
        let odd = parity;
        for (let e = 0; e < k; e += 4) {
          if (tested[e + 1] <= y && y < tested[e + 2] && x < tested[e] + (y - tested[e + 1]) * tested[e + 3]) odd ^= 1;
        }
        if (odd) mask[rows[j]] = 1;
      }
    }
  }
  return mask;
}

function put(tested, k, e) {
  tested[k] = e.x;
  tested[k + 1] = e.low;
  tested[k + 2] = e.high;
  tested[k + 3] = e.slope;
  return k + 4;
}

/** Edges that touch a row of the grid, with the x between which they run there. */
function edgesInRow(edges, low, high, slack) {
  const through = [], ending = [];
  for (const e of edges) {
    if (e.low > high || e.high < low) continue;
    const a = e.x + (Math.max(low, e.low) - e.low) * e.slope, b = e.x + (Math.min(high, e.high) - e.low) * e.slope;
    const part = { x: e.x, low: e.low, high: e.high, slope: e.slope, left: Math.min(a, b) - slack, right: Math.max(a, b) + slack };
    (e.low <= low && e.high > high ? through : ending).push(part);
  }
  through.sort((p, q) => p.left - q.left);
  return { through, ending };
}

/** Edges from their lower end upwards; level ones never meet a level ray. */
function edgesOf(rings) {
  const found = [];
  for (const ring of rings) for (let i = 0; i < ring.length; i++) {
    let [ax, ay] = ring[i], [bx, by] = ring[(i + 1) % ring.length];
    if (ay === by) continue;
    if (ay > by) [ax, ay, bx, by] = [bx, by, ax, ay];
    found.push({ x: ax, low: ay, high: by, slope: (bx - ax) / (by - ay) });
  }
  return found;
}

/** The row of the drawn point nearest to (x, y), no farther than `reach`; -1: none. */
function nearest(cloud, x, y, reach) {
  const s = sections.get(cloud.section);
  let best = reach * reach, found = -1;
  runs(cloud, x - reach, y - reach, x + reach, y + reach, (a, b) => {
    for (let j = a; j < b; j++) {
      const dx = cloud.xs[j] - x, dy = cloud.ys[j] - y, d = dx * dx + dy * dy;
      if (d <= best && s.paint[cloud.rows[j]]) {
        best = d;
        found = cloud.rows[j];
      }
    }
  });
  return found;
}

/* ---------------------------------------------------------------- messages */

function redraw(section) {
  for (const p of panes.values()) if (p.cloud && p.cloud.section === section && p.scale) {
    p.wanted = p.wanted || viewOf(p);
  }
  schedule();
}

const answers = {
  section(m) {
    sections.set(m.section, { n: m.n, paint: new Uint16Array(m.n), lut: new Uint32Array(65536), version: 0, mask: null, order: HIGH | KNOWN });
  },
  cloud(m) {
    const c = makeCloud(m.cloud, m.section, m.xy);
    return { bounds: [c.x0, c.y0, c.x1, c.y1], placed: c.placed };
  },
  pane(m) {
    const p = { id: m.pane, canvas: m.canvas, context: m.canvas.getContext("2d"), cloud: null, radius: 1 };
    panes.set(m.pane, p);
    resize(p, m.canvas.width, m.canvas.height);
  },
  size(m) {
    resize(panes.get(m.pane), m.width, m.height);
  },
  view(m) {
    const p = panes.get(m.pane);
    if (!p) return;
    if (m.cloud) p.cloud = clouds.get(m.cloud);
    p.wanted = m.view;
    schedule();
  },
  paint(m) {
    paintSection(sections.get(m.section), m);
    redraw(m.section);
  },
  select(m) {
    const s = sections.get(m.section);
    s.mask = m.mask;
    if (s.colours) tint(s);
    redraw(m.section);
  },
  shape(m) {
    const started = now(), mask = inside(clouds.get(m.cloud), m.rings);
    const { paint } = sections.get(clouds.get(m.cloud).section);
    let total = 0;
    for (let i = 0; i < mask.length; i++) {
      if (m.shown && !paint[i]) mask[i] = 0; // what the legend has taken off the map
      total += mask[i];
    }
    return { mask, total, ms: now() - started };
  },
  hover(m) {
    return { row: nearest(clouds.get(m.cloud), m.x, m.y, m.reach) };
  },
  /** The points as a picture of another size: for screenshots and other renderers. */
  picture(m) {
    const p = { id: "", cloud: clouds.get(m.cloud), ...m.view };
    resize(p, m.width, m.height);
    gather(p.cloud, sections.get(p.cloud.section));
    raster(p, 0, 0, m.width, m.height, 1);
    return { pixels: p.pixels };
  },
  /** What is needed to draw a cloud elsewhere: positions and paint in the grid's order. */
  points(m) {
    const c = clouds.get(m.cloud), s = sections.get(c.section);
    gather(c, s);
    return { xs: c.xs.slice(), ys: c.ys.slice(), paint: c.paint.slice(), rows: m.rows ? c.rows.slice() : null, lut: s.lut.slice(), order: s.order };
  },
  forget(m) {
    if (m.pane) panes.delete(m.pane);
    if (m.section !== undefined) {
      sections.delete(m.section);
      for (const [id, c] of clouds) if (c.section === m.section) clouds.delete(id);
    }
  },
};

self.onmessage = (event) => {
  const m = event.data, answer = answers[m.what](m);
  if (m.ask) postMessage({ what: "answer", ask: m.ask, ...answer });
};
