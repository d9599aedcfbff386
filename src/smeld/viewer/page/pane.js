/* A pane: one view of a cloud of points. Three canvases: tissue below, points, and what is drawn over them. */
"use strict";
(() => {
  const smeld = window.smeld;
  let number = 0;

  smeld.Pane = class {
    /** kind "section" or "embedding"; xy are the cloud's positions, bounds [x0, y0, x1, y1] in the same units. */
    constructor({ kind, section, cloud, xy, bounds, host, label }) {
      Object.assign(this, { id: `pane${++number}`, kind, section, cloud, xy, bounds, scale: 0, x: 0, y: 0 });
      this.tissue = smeld.el("canvas", { class: "layer tissue" });
      this.points = smeld.el("canvas", { class: "layer points" });
      this.over = smeld.el("canvas", { class: "layer" });
      this.name = smeld.el("div", { class: "chip name" }, label);
      this.bar = smeld.el("div", { class: "chip bar" }, smeld.el("span", { class: "rule" }), smeld.el("span", { class: "length" }));
      this.root = smeld.el("div", {
        class: `pane ${kind}`, tabindex: "0", role: "application", "aria-label": `${kind === "section" ? "Map of" : "Embedding of"} ${smeld.plain(section.name)}`,
        "aria-describedby": "map-keys",
      }, this.tissue, this.points, this.over, this.name, kind === "section" ? this.bar : null, this.buttons());
      host.append(this.root);
      this.gl = smeld.GlPoints.on(this.points);
      this.measure();
      if (this.gl) this.reload();
      else {
        const canvas = this.points.transferControlToOffscreen();
        smeld.engine.tell({ what: "pane", pane: this.id, canvas }, [canvas]);
        smeld.engine.onDrawn(this.id, () => this.wasDrawn());
      }
      this.fit(false);
      this.watcher = new ResizeObserver(() => this.resized());
      this.watcher.observe(this.root);
      smeld.tools.listen(this);
    }

    buttons() {
      const button = (icon, label, f) => smeld.el("button", { type: "button", class: "square", "aria-label": label, title: label, onclick: f }, smeld.icon(icon));
      return smeld.el("div", { class: "zoom" }, button("plus", "Zoom in", () => this.zoom(1.6)), button("minus", "Zoom out", () => this.zoom(1 / 1.6)),
        button("fit", "Show everything", () => this.fit()));
    }

    /** Size of the canvases, in pixels of the screen. */
    measure() {
      this.ratio = window.devicePixelRatio || 1;
      this.width = Math.max(1, Math.round(this.root.clientWidth * this.ratio));
      this.height = Math.max(1, Math.round(this.root.clientHeight * this.ratio));
      const own = this.gl || !this.sized ? [this.tissue, this.points, this.over] : [this.tissue, this.over];
      for (const canvas of own) {
        canvas.width = this.width;
        canvas.height = this.height;
      }
      this.sized = true;
    }

    resized() {
      const { width, height } = this;
      if (!this.root.clientWidth || (Math.round(this.root.clientWidth * window.devicePixelRatio) === width && Math.round(this.root.clientHeight * window.devicePixelRatio) === height)) return;
      const whole = this.fitted;
      this.measure();
      if (!this.gl) smeld.engine.tell({ what: "size", pane: this.id, width: this.width, height: this.height });
      if (whole) this.fit();
      else this.pan(Math.round((this.width - width) / 2), Math.round((this.height - height) / 2));
    }

    wasDrawn() {
      if (this.drawnOnce) return;
      this.drawnOnce = true;
      smeld.say("first", this);
    }

    /* -------------------------------------------------- the view */

    /** The scale at which all of it is seen. */
    wholeScale() {
      const [x0, y0, x1, y1] = this.bounds, room = 0.94 * this.ratio, spot = this.kind === "section" ? this.section.spot_um || 0 : 0;
      const w = Math.max(x1 - x0 + spot, 1e-6), h = Math.max(y1 - y0 + spot, 1e-6);
      return Math.min((Math.max(1, this.root.clientWidth) * room) / w, (Math.max(1, this.root.clientHeight) * room) / h);
    }

    /** Show everything; sections side by side at one scale, so that their sizes can be compared. */
    fit(tell = true) {
      const [x0, y0, x1, y1] = this.bounds, beside = smeld.app.panes.filter((p) => p.kind === "section");
      this.whole = this.wholeScale();
      this.scale = this.kind === "section" ? Math.min(this.whole, ...beside.map((p) => p.wholeScale())) : this.whole;
      this.x = Math.round(this.width / 2 - (this.scale * (x0 + x1)) / 2);
      this.y = Math.round(this.height / 2 - (this.scale * (y0 + y1)) / 2);
      this.fitted = true;
      if (tell) this.changed(false);
    }

    pan(dx, dy) {
      this.x += Math.round(dx);
      this.y += Math.round(dy);
      this.fitted = false;
      this.changed(true);
    }

    /** Around a place of the pane in screen pixels; the middle if none is given. */
    zoom(factor, px = this.width / 2, py = this.height / 2) {
      const scale = smeld.clamp(this.scale * factor, this.whole / 4, this.whole * 4000);
      this.x = px - ((px - this.x) * scale) / this.scale;
      this.y = py - ((py - this.y) * scale) / this.scale;
      this.scale = scale;
      this.fitted = false;
      this.changed(true);
    }

    /** From pixels of the window to the cloud's units, and back to pixels of the canvas. */
    toData(clientX, clientY) {
      const box = this.root.getBoundingClientRect();
      return [((clientX - box.left) * this.ratio - this.x) / this.scale, ((clientY - box.top) * this.ratio - this.y) / this.scale];
    }
    toCanvas([x, y]) {
      return [x * this.scale + this.x, y * this.scale + this.y];
    }

    radius() {
      const size = smeld.app.size;
      if (this.kind === "section") return Math.max(0.5, (this.section.spot_um / 2) * this.scale * size);
      const alone = smeld.clamp(0.5 * Math.sqrt((this.width * this.height) / Math.max(1, this.section.n_obs)), 0.5, 3.5 * this.ratio);
      return Math.max(0.5, alone * size * Math.sqrt(this.scale / this.whole));
    }

    changed(moving) {
      this.moving = moving;
      if (this.due) return;
      this.due = requestAnimationFrame((at) => {
        this.due = 0;
        this.draw(at);
      });
    }

    /** What a renderer needs to know of the view; over tissue discs have a rim, for they have its colours, too. */
    view() {
      const radius = this.radius(), rim = this.kind === "section" && this.section.image && smeld.app.tissue && radius > 1.9 * this.ratio;
      return { scale: this.scale, x: this.x, y: this.y, radius, rim: rim ? Math.min(1.4 * this.ratio, 0.45 * radius) : 0 };
    }

    draw() {
      const asked = performance.now(), view = { ...this.view(), moving: this.moving, asked };
      if (!this.gl) smeld.engine.tell({ what: "view", pane: this.id, cloud: this.cloud, view });
      else if (this.gl.n) {
        this.gl.draw(view);
        smeld.engine.timed({ ms: performance.now() - asked, kind: this.moving ? "pan" : "full", asked });
        this.wasDrawn();
      }
      if (this.kind === "section") {
        smeld.tissue.draw(this);
        this.drawBar();
      }
      smeld.overlay.draw(this);
    }

    /** Points for the graphics card, after the paint has changed. */
    async reload() {
      if (!this.gl) return;
      const points = await smeld.engine.ask({ what: "points", cloud: this.cloud });
      if (this.gl.released) return;
      this.gl.load(points);
      this.changed(false);
    }

    drawBar() {
      const most = 140 * this.ratio / this.scale, power = 10 ** Math.floor(Math.log10(most));
      const length = [5, 2, 1].map((k) => k * power).find((l) => l <= most) || power;
      this.barUm = length;
      this.bar.firstChild.style.width = `${(length * this.scale) / this.ratio}px`;
      this.bar.lastChild.textContent = length >= 1000 ? `${length / 1000} mm` : `${length} \u00b5m`;
    }

    close() {
      this.watcher.disconnect();
      cancelAnimationFrame(this.due);
      if (this.gl) this.gl.release();
      smeld.engine.tell({ what: "forget", pane: this.id });
      smeld.engine.onDrawn(this.id, null);
      this.root.remove();
    }
  };
})();
