/* The tissue below the points: tiles of the image pyramid, the coarsest level first, finer ones as they arrive. */
"use strict";
(() => {
  const smeld = window.smeld;
  const KEPT = 384, AT_ONCE = 6;
  const tiles = new Map(); // address -> ImageBitmap, or null while it is coming
  let wanted = [], running = 0;

  const invert = ([[a, b, c], [d, e, f]]) => {
    const det = a * e - b * d;
    return [[e / det, -b / det, (b * f - c * e) / det], [-d / det, a / det, (c * d - a * f) / det]];
  };

  const fetchNext = () => {
    while (running < AT_ONCE && wanted.length) {
      const { address, pane } = wanted.shift();
      if (tiles.has(address)) continue;
      tiles.set(address, null);
      running++;
      smeld.transport.get(address)
        .then((data) => createImageBitmap(new Blob([data], { type: "image/jpeg" })))
        .then((bitmap) => {
          tiles.set(address, bitmap);
          pane.changed(pane.moving);
        })
        .catch((error) => smeld.failed("A tile of the tissue image is missing", error))
        .finally(() => {
          running--;
          fetchNext();
        });
    }
    for (const [address, bitmap] of tiles) {
      if (tiles.size <= KEPT) break;
      if (bitmap) {
        bitmap.close();
        tiles.delete(address);
      }
    }
  };

  /** The finest level that is not finer than the screen. */
  const levelFor = (image, pane) => {
    const [[a, b], [d, e]] = image.um_to_px, fine = Math.sqrt(Math.abs(a * e - b * d)) / pane.scale; // image px a screen px
    let best = 0;
    image.levels.forEach((level, l) => {
      if (image.width / level.width <= Math.max(fine, 1) * 1.2) best = l;
    });
    return best;
  };

  const drawLevel = (pane, context, level) => {
    const { image, bounds_um: [left, top] } = pane.section, size = image.tile, { width, height } = image.levels[level];
    const part = width / image.width, [[a, b, c], [d, e, f]] = image.um_to_px.map((row) => row.map((v) => v * part));
    const back = invert([[a, b, c], [d, e, f]]), s = pane.scale;
    const place = [[s * back[0][0], s * back[0][1], s * (back[0][2] - left) + pane.x], [s * back[1][0], s * back[1][1], s * (back[1][2] - top) + pane.y]];
    const corners = [[0, 0], [pane.width, 0], [0, pane.height], [pane.width, pane.height]].map(([px, py]) => {
      const x = (px - pane.x) / s + left, y = (py - pane.y) / s + top;
      return [a * x + b * y + c, d * x + e * y + f];
    });
    const range = (i, most) => {
      const v = corners.map((p) => p[i] / size);
      return [Math.max(0, Math.floor(Math.min(...v))), Math.min(Math.ceil(most / size) - 1, Math.floor(Math.max(...v)))];
    };
    const [c0, c1] = range(0, width), [r0, r1] = range(1, height), missing = [], grow = 0.6 / Math.hypot(place[0][0], place[1][0]);
    context.setTransform(place[0][0], place[1][0], place[0][1], place[1][1], place[0][2], place[1][2]);
    for (let row = r0; row <= r1; row++) for (let column = c0; column <= c1; column++) {
      const address = `api/${pane.section.k}/tile/${level}/${column}_${row}.jpg`, bitmap = tiles.get(address);
      if (bitmap) {
        tiles.delete(address); // seen last
        tiles.set(address, bitmap);
        context.drawImage(bitmap, column * size, row * size, bitmap.width + grow, bitmap.height + grow);
      } else if (bitmap === undefined) missing.push({ address, pane, away: Math.hypot(column - (c0 + c1) / 2, row - (r0 + r1) / 2) });
    }
    context.resetTransform();
    return missing.sort((x, y) => x.away - y.away);
  };

  smeld.tissue = {
    draw(pane, context = pane.tissue.getContext("2d")) {
      const { image } = pane.section;
      context.clearRect(0, 0, pane.width, pane.height);
      if (!image || smeld.app.tissue === 0) return;
      const coarsest = image.levels.length - 1, level = levelFor(image, pane);
      wanted = wanted.filter((w) => w.pane !== pane);
      const missing = [];
      for (let l = coarsest; l > level; l--) { // what is there already, below; only the coarsest is fetched for it
        const absent = drawLevel(pane, context, l);
        if (l === coarsest) missing.push(...absent);
      }
      missing.push(...drawLevel(pane, context, level));
      wanted.push(...missing);
      fetchNext();
    },
  };
})();
