/* Annotations to and from the server: whole states with a revision; and GeoJSON. */
"use strict";
(() => {
  const smeld = window.smeld;
  const WAIT_MS = 500;

  const base64 = (rows) => {
    const bytes = new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength);
    let text = "";
    for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
    return btoa(text);
  };
  const rowsOf = (text) => {
    const raw = atob(text), bytes = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return new Uint32Array(bytes.buffer);
  };
  const runsOf = (rows) => {
    const runs = [];
    for (let i = 0; i < rows.length; i++) {
      if (i && rows[i] === rows[i - 1] + 1) runs[runs.length - 1]++;
      else runs.push(rows[i], 1);
    }
    return runs;
  };

  const body = (s) => {
    const a = smeld.annotate.of(s), rows = new Map(a.categories.map((c) => [c.id, []]));
    a.labels.forEach((l, i) => { if (rows.has(l)) rows.get(l).push(i); });
    const cells = {};
    for (const c of a.categories) {
      const mine = Uint32Array.from(rows.get(c.id)), runs = runsOf(mine);
      cells[c.name] = runs.length < mine.length ? { runs } : base64(mine);
    }
    return JSON.stringify({ revision: a.revision, categories: a.categories.map(({ name, color }) => ({ name, color })), shapes: a.shapes, cells });
  };

  /** A state as the server holds it becomes the page's. */
  const take = (s, state) => {
    const a = smeld.annotate.of(s);
    a.labels.fill(0);
    a.categories = state.categories.map(({ name, color }) => ({ id: a.next++, name, color }));
    for (const c of a.categories) {
      const given = state.cells[c.name];
      if (typeof given === "string") for (const r of rowsOf(given)) a.labels[r] = c.id;
      else if (given && given.runs) for (let i = 0; i < given.runs.length; i += 2) a.labels.fill(c.id, given.runs[i], given.runs[i] + given.runs[i + 1]);
    }
    Object.assign(a, { shapes: state.shapes, revision: state.revision, saved: true, counts: null, conflict: null });
    smeld.say("annotated", s);
    smeld.app.redraw();
    if (smeld.paint.current && smeld.paint.current.type === "annotation") smeld.paint.set(smeld.paint.current);
  };

  const save = async (s) => {
    const a = smeld.annotate.of(s);
    if (a.saving || a.saved || a.conflict) return;
    a.saving = true;
    a.saved = true; // changes from here on are not in what is sent
    smeld.say("saving", s);
    try {
      const { status, body: answer } = await smeld.transport.send("PUT", `api/${s.k}/annotations.json`, body(s));
      if (status === 409) Object.assign(a, { conflict: answer, saved: false });
      else Object.assign(a, { revision: answer.revision, savedAt: new Date(), problem: null });
    } catch (error) {
      Object.assign(a, { saved: false, problem: error.message });
      smeld.failed("The annotation was not saved", error);
    } finally {
      a.saving = false;
      smeld.say("saving", s);
      if (!a.saved && !a.problem) later(s);
    }
  };
  const later = (s) => {
    if (!smeld.app.state.annotate) return;
    clearTimeout(s.saveTimer);
    s.saveTimer = setTimeout(() => save(s), WAIT_MS);
  };

  const download = (name, content, type) => {
    const url = URL.createObjectURL(new Blob([content], { type })), link = smeld.el("a", { href: url, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  };
  smeld.fileName = (s, ending) => `${smeld.plain(s.name).replace(/[^\p{L}\p{N}._-]+/gu, "_").slice(0, 60) || "section"}${ending}`;

  const feature = (s, shape) => ({
    type: "Feature", id: shape.id,
    geometry: { type: "Polygon", coordinates: shape.rings_um.map((ring) => [...ring, ring[0]]) },
    properties: { objectType: "annotation", classification: { name: shape.category, color: [1, 3, 5].map((i) => parseInt(smeld.annotate.colour(shape.category).slice(i, i + 2), 16)) }, kind: shape.kind, section: s.name, unit: "micrometre" },
  });

  smeld.save = {
    start() {
      smeld.on("annotated", (s) => { if (!smeld.annotate.of(s).saved) later(s); });
      addEventListener("beforeunload", (e) => {
        const lost = smeld.app.state.annotate && smeld.app.sections.some((s) => s.annotation && (!s.annotation.saved || s.annotation.saving));
        if (lost) e.preventDefault();
      });
    },
    download,
    async load(s) {
      if (smeld.app.state.annotate) take(s, await smeld.transport.get(`api/${s.k}/annotations.json`));
    },
    /** After somebody else has saved: their state, or this one over theirs. */
    settle(s, mine) {
      const a = smeld.annotate.of(s), theirs = a.conflict;
      a.conflict = null;
      if (!mine) return take(s, theirs);
      a.revision = theirs.revision;
      return save(s);
    },
    retry(s) {
      smeld.annotate.of(s).problem = null;
      return save(s);
    },
    async fold(s) {
      await save(s);
      const { body: answer } = await smeld.transport.send("POST", `api/${s.k}/fold`, "{}");
      smeld.status(`Written into ${answer.saved || "the result"}`);
    },
    async exportShapes(s) {
      let text;
      if (smeld.app.state.annotate) {
        await save(s);
        text = new TextDecoder().decode(await (await fetch(`api/${s.k}/annotations.geojson`)).arrayBuffer());
      } else text = JSON.stringify({ type: "FeatureCollection", features: smeld.annotate.shapes(s).map((shape) => feature(s, shape)) });
      download(smeld.fileName(s, ".geojson"), text, "application/geo+json");
    },
    async importShapes(s, file) {
      if (file.size > 16 * 2 ** 20) throw new Error("the file is larger than 16 MB");
      await save(s);
      await smeld.transport.send("POST", `api/${s.k}/annotations/import`, await file.text());
      take(s, await smeld.transport.get(`api/${s.k}/annotations.json`));
      smeld.status(`${file.name} has been read`);
    },
  };
})();
