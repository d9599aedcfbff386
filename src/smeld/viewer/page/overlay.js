/* What is drawn over the points: arrows, outlines of cells, annotations, the shape being drawn, what the pointer is on. */
"use strict";
(() => {
  const smeld = window.smeld;
  const SHORTEST = 13; // pixels of an arrow
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const path = (context, pane, points, close) => {
    context.beginPath();
    points.forEach((p, i) => {
      const [x, y] = pane.toCanvas(p);
      if (i) context.lineTo(x, y);
      else context.moveTo(x, y);
    });
    if (close) context.closePath();
  };

  /** A line that can be seen on light and dark alike. */
  const haloed = (context, pane, colour, width, halo = 2) => {
    context.lineWidth = (width + halo) * pane.ratio;
    context.strokeStyle = style("--halo");
    context.stroke();
    context.lineWidth = width * pane.ratio;
    context.strokeStyle = colour;
    context.stroke();
  };

  /** From far away, where arrows would be dots: the strongest of each square, by number; null: all can be seen. */
  const far = (pane, { from, to, weight }) => {
    const n = weight.length, lengths = Float64Array.from(weight, (_, i) => Math.hypot(to[2 * i] - from[2 * i], to[2 * i + 1] - from[2 * i + 1])).sort();
    if (!n || 0.72 * lengths[n >> 1] * pane.scale >= 0.7 * SHORTEST * pane.ratio) return null;
    const taken = new Set(), kept = new Set(), side = 1.6 * SHORTEST * pane.ratio;
    for (let i = 0; i < n; i++) { // the strongest come first
      const [x, y] = pane.toCanvas([(from[2 * i] + to[2 * i]) / 2, (from[2 * i + 1] + to[2 * i + 1]) / 2]), square = `${Math.floor(x / side)} ${Math.floor(y / side)}`;
      if (!taken.has(square)) {
        taken.add(square);
        kept.add(i);
      }
    }
    return kept;
  };

  const arrows = (context, pane, links) => {
    const { from, to, weight } = links, head = 7 * pane.ratio, aside = 2.5 * pane.ratio, ink = style("--ink");
    context.lineCap = "round";
    const kept = far(pane, links);
    for (let i = weight.length - 1; i >= 0; i--) { // the strongest last
      if (kept && !kept.has(i)) continue;
      let [ax, ay] = pane.toCanvas([from[2 * i], from[2 * i + 1]]), [bx, by] = pane.toCanvas([to[2 * i], to[2 * i + 1]]);
      const whole = Math.hypot(bx - ax, by - ay), length = kept ? SHORTEST * pane.ratio : 0.72 * whole;
      if (whole < 1e-6 || Math.max(ax, bx) < 0 || Math.max(ay, by) < 0 || Math.min(ax, bx) > pane.width || Math.min(ay, by) > pane.height) continue;
      // short of both ends and a little to the right: arrows that meet, and those that go both ways, stay apart
      const ux = (bx - ax) / whole, uy = (by - ay) / whole, h = Math.min(head, length / 2), gap = (whole - length) / 2;
      ax += ux * gap - uy * aside;
      ay += uy * gap + ux * aside;
      bx -= ux * gap + uy * aside;
      by -= uy * gap - ux * aside;
      context.globalAlpha = 0.7 + 0.3 * weight[i];
      context.beginPath();
      context.moveTo(ax, ay);
      context.lineTo(bx, by);
      context.moveTo(bx - h * (ux - 0.5 * uy), by - h * (uy + 0.5 * ux));
      context.lineTo(bx, by);
      context.lineTo(bx - h * (ux + 0.5 * uy), by - h * (uy - 0.5 * ux));
      haloed(context, pane, ink, 1 + 1.3 * weight[i], 1.6);
    }
    context.globalAlpha = 1;
  };

  const outlines = (context, pane) => {
    const cells = pane.section.outlined;
    if (!cells) return;
    context.beginPath();
    for (let c = 0; c + 1 < cells.start.length; c++) {
      for (let v = cells.start[c]; v < cells.start[c + 1]; v++) {
        const [x, y] = pane.toCanvas([cells.xy[2 * v], cells.xy[2 * v + 1]]);
        if (v > cells.start[c]) context.lineTo(x, y);
        else context.moveTo(x, y);
      }
      context.closePath();
    }
    context.lineWidth = 0.8 * pane.ratio;
    context.strokeStyle = style("--soft");
    context.stroke();
  };

  const shapes = (context, pane) => {
    const [x0, y0] = pane.section.bounds_um;
    for (const shape of smeld.annotate.shapes(pane.section)) {
      context.beginPath();
      for (const ring of shape.rings_um) {
        ring.forEach(([x, y], i) => {
          const [px, py] = pane.toCanvas([x - x0, y - y0]);
          if (i) context.lineTo(px, py);
          else context.moveTo(px, py);
        });
        context.closePath();
      }
      const colour = smeld.annotate.colour(shape.category);
      context.globalAlpha = 0.16;
      context.fillStyle = colour;
      context.fill("evenodd");
      context.globalAlpha = 1;
      haloed(context, pane, colour, 1.6);
    }
  };

  const hovered = (context, pane) => {
    const row = pane.section.hovered;
    if (row === undefined || row < 0) return;
    const [x, y] = pane.toCanvas([pane.xy[2 * row], pane.xy[2 * row + 1]]);
    context.beginPath();
    context.arc(x, y, Math.max(5 * pane.ratio, pane.radius() + 2 * pane.ratio), 0, 2 * Math.PI);
    haloed(context, pane, style("--ink"), 1.5);
  };

  const drawing = (context, pane) => {
    const now = smeld.tools.drawing;
    if (now && now.pane === pane && now.points.length) {
      if (now.kind === "brush") {
        path(context, pane, now.points, false);
        context.lineWidth = 2 * smeld.tools.brush * pane.ratio;
        context.lineCap = context.lineJoin = "round";
        context.globalAlpha = 0.3;
        context.strokeStyle = style("--accent");
        if (now.points.length === 1) context.lineTo(...pane.toCanvas(now.points[0]));
        context.stroke();
        context.globalAlpha = 1;
      } else {
        path(context, pane, now.ahead ? [...now.points, now.ahead] : now.points, now.kind === "lasso");
        context.globalAlpha = 0.12;
        context.fillStyle = style("--accent");
        context.fill("evenodd");
        context.globalAlpha = 1;
        haloed(context, pane, style("--accent"), 1.6);
        if (now.kind === "polygon") for (const p of now.points) {
          context.beginPath();
          context.arc(...pane.toCanvas(p), 3.5 * pane.ratio, 0, 2 * Math.PI);
          context.fillStyle = style("--accent");
          context.fill();
        }
      }
    }
    const at = smeld.tools.cursor;
    if (at && at.pane === pane) {
      const [x, y] = pane.toCanvas(at.place), r = (smeld.tools.tool === "brush" ? smeld.tools.brush : 9) * pane.ratio;
      context.beginPath();
      if (smeld.tools.tool === "brush") context.arc(x, y, r, 0, 2 * Math.PI);
      if (at.keyboard) for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        context.moveTo(x + dx * 3 * pane.ratio, y + dy * 3 * pane.ratio);
        context.lineTo(x + dx * 12 * pane.ratio, y + dy * 12 * pane.ratio);
      }
      haloed(context, pane, style("--accent"), 1.5);
    }
  };

  smeld.overlay = {
    draw(pane, context = pane.over.getContext("2d"), marks = true) {
      if (marks) context.clearRect(0, 0, pane.width, pane.height);
      if (pane.kind === "section") {
        if (smeld.app.outlines) outlines(context, pane);
        for (const link of pane.section.links) if (link.shown && link.data) arrows(context, pane, link.data);
        shapes(context, pane);
      }
      if (!marks) return;
      hovered(context, pane);
      drawing(context, pane);
    },
  };
})();
