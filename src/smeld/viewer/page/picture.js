/* The map as a picture: PNG, or SVG whose points are circles where there are not too many. */
"use strict";
(() => {
  const smeld = window.smeld;
  const SPACE = "http://www.w3.org/2000/svg", MOST_CIRCLES = 50000, RIM = 0.85;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const pixelsOf = async (pane) => {
    const { cloud, width, height } = pane, canvas = new OffscreenCanvas(width, height);
    const { pixels } = await smeld.engine.ask({ what: "picture", cloud, view: pane.view(), width, height });
    canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
    return canvas;
  };

  /** What the legend says, as [text, colour or null] lines. */
  const legend = () => {
    const p = smeld.paint, lines = [];
    if (p.kind === "category") for (const c of p.categories) if (!p.hidden.has(c.name)) lines.push([smeld.plain(c.name), c.colour]);
    return { title: smeld.plain(p.title(p.current)), lines: lines.slice(0, 60), numbers: p.kind === "number" ? [p.lo, p.hi] : null };
  };

  /** Places of panes and legend on the sheet, in screen pixels. */
  const sheet = () => {
    const panes = smeld.app.panes.filter((p) => p.kind === "section"), ratio = panes[0].ratio, gap = 12 * ratio, side = 190 * ratio;
    let x = gap;
    const places = panes.map((pane) => {
      const place = { pane, x, y: gap };
      x += pane.width + gap;
      return place;
    });
    const { lines } = legend(), line = 17 * ratio;
    return { places, ratio, gap, line, legendX: x, width: x + side, height: Math.max(Math.max(...panes.map((p) => p.height)), (lines.length + 3) * line) + 2 * gap };
  };

  const drawLegend = (context, { legendX, gap, line, ratio }) => {
    const { title, lines, numbers } = legend();
    context.fillStyle = style("--ink");
    context.textBaseline = "middle";
    context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
    context.fillText(title, legendX, gap + line / 2, 180 * ratio);
    context.font = `${12 * ratio}px system-ui, sans-serif`;
    lines.forEach(([text, colour], i) => {
      const y = gap + (i + 1.7) * line;
      context.fillStyle = colour;
      context.fillRect(legendX, y - 5 * ratio, 10 * ratio, 10 * ratio);
      context.fillStyle = style("--ink");
      context.fillText(text, legendX + 16 * ratio, y, 160 * ratio);
    });
    if (!numbers) return;
    for (let i = 0; i < 160; i++) {
      context.fillStyle = smeld.colours.at(smeld.app.palette, i / 159);
      context.fillRect(legendX + i * ratio, gap + 1.4 * line, Math.ceil(ratio), 10 * ratio);
    }
    context.fillStyle = style("--ink");
    context.fillText(smeld.number(numbers[0]), legendX, gap + 2.8 * line);
    context.textAlign = "right";
    context.fillText(smeld.number(numbers[1]), legendX + 160 * ratio, gap + 2.8 * line);
    context.textAlign = "left";
  };
  const drawBar = (context, pane, x, y) => {
    const long = pane.barUm * pane.scale, left = x + 14 * pane.ratio, base = y + pane.height - 14 * pane.ratio;
    context.fillStyle = style("--ink");
    context.fillRect(left, base, long, 3 * pane.ratio);
    context.font = `${12 * pane.ratio}px system-ui, sans-serif`;
    context.textBaseline = "bottom";
    context.fillText(pane.bar.textContent, left, base - 3 * pane.ratio);
  };

  const png = async () => {
    const page = sheet(), canvas = new OffscreenCanvas(page.width, page.height), context = canvas.getContext("2d");
    context.fillStyle = style("--map");
    context.fillRect(0, 0, page.width, page.height);
    for (const { pane, x, y } of page.places) {
      const over = new OffscreenCanvas(pane.width, pane.height);
      context.globalAlpha = smeld.app.tissue;
      context.drawImage(pane.tissue, x, y);
      context.globalAlpha = smeld.app.opacity;
      context.drawImage(await pixelsOf(pane), x, y);
      context.globalAlpha = 1;
      smeld.overlay.draw(pane, over.getContext("2d"), false);
      context.drawImage(over, x, y);
      drawBar(context, pane, x, y);
    }
    drawLegend(context, page);
    return canvas.convertToBlob({ type: "image/png" });
  };

  /* -------------------------------------------------- SVG */

  const node = (tag, facts, text) => {
    const made = document.createElementNS(SPACE, tag);
    for (const [key, value] of Object.entries(facts)) made.setAttribute(key, String(value));
    if (text !== undefined) made.textContent = smeld.plain(text);
    return made;
  };
  const asData = async (canvas) => {
    const blob = await (canvas.convertToBlob ? canvas.convertToBlob() : new Promise((done) => canvas.toBlob(done)));
    return new Promise((done) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.readAsDataURL(blob);
    });
  };
  const image = async (canvas, more) => node("image", { href: await asData(canvas), width: canvas.width, height: canvas.height, ...more });

  /** Circles for the points in view, or null where they are too many. */
  const circles = async (pane) => {
    const { xs, ys, paint, lut, order } = await smeld.engine.ask({ what: "points", cloud: pane.cloud }), r = pane.radius(), seen = [];
    for (let j = 0; j < xs.length; j++) {
      const [x, y] = pane.toCanvas([xs[j], ys[j]]);
      if (paint[j] && x > -r && y > -r && x < pane.width + r && y < pane.height + r) seen.push([x, y, paint[j]]);
      if (seen.length > MOST_CIRCLES) return null;
    }
    const { rim } = pane.view(), group = node("g", rim ? { stroke: "#fff", "stroke-opacity": RIM, "stroke-width": (2 * rim).toFixed(2), "paint-order": "stroke" } : {});
    for (const [x, y, p] of seen.sort((a, b) => (a[2] & order) - (b[2] & order))) {
      const c = lut[p], alpha = (c >>> 24) / 255, fill = `#${[c & 255, (c >> 8) & 255, (c >> 16) & 255].map((v) => v.toString(16).padStart(2, "0")).join("")}`;
      group.append(node("circle", { cx: x.toFixed(2), cy: y.toFixed(2), r: r.toFixed(2), fill, ...(alpha < 1 ? { "fill-opacity": alpha.toFixed(2) } : {}) }));
    }
    return group;
  };

  const legendNodes = (page) => {
    const { title, lines, numbers } = legend(), { legendX: x, gap, line, ratio } = page, ink = style("--ink");
    const text = (px, py, said, more = {}) => node("text", { x: px, y: py, fill: ink, "font-size": 12 * ratio, "font-family": "system-ui, sans-serif", ...more }, said);
    const made = [text(x, gap + line * 0.8, title, { "font-weight": 600 })];
    lines.forEach(([said, colour], i) => made.push(node("rect", { x, y: gap + (i + 1.3) * line, width: 10 * ratio, height: 10 * ratio, fill: colour }), text(x + 16 * ratio, gap + (i + 1.9) * line, said)));
    if (numbers) {
      for (let i = 0; i < 80; i++) made.push(node("rect", { x: x + 2 * i * ratio, y: gap + 1.4 * line, width: 2.2 * ratio, height: 10 * ratio, fill: smeld.colours.at(smeld.app.palette, i / 79) }));
      made.push(text(x, gap + 3 * line, smeld.number(numbers[0])), text(x + 160 * ratio, gap + 3 * line, smeld.number(numbers[1]), { "text-anchor": "end" }));
    }
    return made;
  };

  const svg = async () => {
    const page = sheet(), root = node("svg", { xmlns: SPACE, viewBox: `0 0 ${page.width} ${page.height}`, width: page.width / page.ratio, height: page.height / page.ratio });
    root.append(node("title", {}, `${smeld.app.state.title}: ${smeld.paint.title(smeld.paint.current)}`), node("rect", { width: page.width, height: page.height, fill: style("--map") }));
    for (const { pane, x, y } of page.places) {
      const clip = node("svg", { x, y, width: pane.width, height: pane.height, viewBox: `0 0 ${pane.width} ${pane.height}` });
      if (pane.section.image && smeld.app.tissue) clip.append(await image(pane.tissue, { opacity: smeld.app.tissue }));
      const points = (await circles(pane)) || (await image(await pixelsOf(pane), {}));
      points.setAttribute("opacity", String(smeld.app.opacity));
      const over = new OffscreenCanvas(pane.width, pane.height);
      smeld.overlay.draw(pane, over.getContext("2d"), false);
      clip.append(points, await image(over, {}));
      const long = pane.barUm * pane.scale, left = 14 * pane.ratio, base = pane.height - 14 * pane.ratio;
      clip.append(node("rect", { x: left, y: base, width: long, height: 3 * pane.ratio, fill: style("--ink") }),
        node("text", { x: left, y: base - 4 * pane.ratio, fill: style("--ink"), "font-size": 12 * pane.ratio, "font-family": "system-ui, sans-serif" }, pane.bar.textContent));
      root.append(clip);
    }
    root.append(...legendNodes(page));
    return new XMLSerializer().serializeToString(root);
  };

  const saveAs = async (ending, make, type) => {
    try {
      smeld.save.download(smeld.fileName(smeld.app.active, ending), await make(), type);
      smeld.status(`Picture saved as ${ending.slice(1).toUpperCase()}`);
    } catch (error) {
      smeld.failed("The picture could not be made", error);
    }
  };
  smeld.picture = { png: () => saveAs(".png", png, "image/png"), svg: () => saveAs(".svg", svg, "image/svg+xml"), makeSvg: svg, pixels: pixelsOf };
})();
