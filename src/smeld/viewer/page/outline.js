/* The outline of a brush stroke: the zero line of the distance to it, by marching squares. */
"use strict";
(() => {
  const smeld = window.smeld;

  const away = (x, y, points) => {
    let best = Infinity;
    for (let i = 0; i < points.length; i++) {
      const [ax, ay] = points[Math.max(0, i - 1)], [bx, by] = points[i];
      const dx = bx - ax, dy = by - ay, whole = dx * dx + dy * dy;
      const t = whole ? smeld.clamp(((x - ax) * dx + (y - ay) * dy) / whole, 0, 1) : 0;
      best = Math.min(best, (x - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2);
    }
    return Math.sqrt(best);
  };

  /** Rings (outer and holes, for the even-odd rule) around all that lies within `radius` of a line. */
  smeld.strokeOutline = (points, radius) => {
    const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
    const x0 = Math.min(...xs) - radius, y0 = Math.min(...ys) - radius;
    const wide = Math.max(...xs) + radius - x0, high = Math.max(...ys) + radius - y0, step = Math.max(radius / 5, wide / 240, high / 240);
    const nx = Math.ceil(wide / step) + 3, ny = Math.ceil(high / step) + 3;
    const field = Array.from({ length: ny }, (_, r) => Array.from({ length: nx }, (_, c) => radius - away(x0 + (c - 1) * step, y0 + (r - 1) * step, points)));
    return joined(segments(field, nx, ny)).map((ring) => ring.map(([x, y]) => [x0 + (x - 1) * step, y0 + (y - 1) * step]));
  };

  /** Pieces of the zero line as [key of one end, key of the other]; a key names an edge of the grid. */
  const segments = (field, nx, ny) => {
    const found = [], ends = new Map();
    const cut = (r, c, down) => {
      const a = field[r][c], b = down ? field[r + 1][c] : field[r][c + 1], t = a / (a - b), key = `${r},${c},${down}`;
      ends.set(key, down ? [c, r + t] : [c + t, r]);
      return key;
    };
    for (let r = 0; r + 1 < ny; r++) for (let c = 0; c + 1 < nx; c++) {
      const corner = [field[r][c] > 0, field[r][c + 1] > 0, field[r + 1][c + 1] > 0, field[r + 1][c] > 0];
      const crossed = [[0, 1, () => cut(r, c, 0)], [1, 2, () => cut(r, c + 1, 1)], [3, 2, () => cut(r + 1, c, 0)], [0, 3, () => cut(r, c, 1)]]
        .filter(([i, j]) => corner[i] !== corner[j]).map(([, , f]) => f());
      if (crossed.length === 2) found.push(crossed);
      if (crossed.length === 4) { // a saddle: top, right, bottom, left; the inside corners stay apart
        const [t, e, b, w] = crossed;
        found.push(...(corner[0] ? [[t, w], [e, b]] : [[t, e], [b, w]]));
      }
    }
    return { found, ends };
  };

  const joined = ({ found, ends }) => {
    const next = new Map(), rings = [];
    for (const [a, b] of found) {
      next.set(a, [...(next.get(a) || []), b]);
      next.set(b, [...(next.get(b) || []), a]);
    }
    while (next.size) {
      const ring = [];
      let at = next.keys().next().value;
      while (at !== undefined) {
        const to = next.get(at) || [];
        next.delete(at);
        ring.push(ends.get(at));
        at = to.find((k) => next.has(k));
      }
      if (ring.length > 2) rings.push(ring);
    }
    return rings;
  };
})();
