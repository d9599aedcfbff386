/* Beginning, sections and panes, and what the controls around the map do. */
"use strict";
(() => {
  const smeld = window.smeld;
  const { el, $ } = smeld;
  const MOST_SHOWN = 6;
  const app = smeld.app = {
    ready: false, state: {}, sections: [], active: null, panes: [], size: 1, opacity: 1, tissue: 0.85, palette: "viridis", categories: "stored",
    hideLow: false, outlines: false, sideOn: true, on: new Set([0]),
    shown: () => app.sections.filter((s) => app.on.has(s.k) && s.xy),
    redraw: () => app.panes.forEach((p) => p.changed(false)),
  };
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  /* -------------------------------------------------- sections */

  const load = (s) => (s.loading ||= (async () => {
    const [about, xy] = await Promise.all([smeld.transport.get(`api/${s.k}/section.json`), smeld.transport.get(`api/${s.k}/xy.bin`)]);
    Object.assign(s, about, { xy: smeld.unpack(xy).values });
    for (const link of s.links) link.shown = false;
    smeld.engine.tell({ what: "section", section: s.k, n: s.n_obs });
    await smeld.engine.ask({ what: "cloud", cloud: `${s.k}:xy`, section: s.k, xy: s.xy });
    await smeld.save.load(s);
  })());

  const embedding = async (s, j) => {
    s.placed ||= [];
    s.placed[j] ||= (async () => {
      const xy = smeld.unpack(await smeld.transport.get(`api/${s.k}/embedding/${j}.bin`)).values.slice();
      for (let i = 1; i < xy.length; i += 2) xy[i] = -xy[i]; // upwards is up
      const cloud = `${s.k}:e${j}`, { bounds } = await smeld.engine.ask({ what: "cloud", cloud, section: s.k, xy });
      return { cloud, xy, bounds };
    })();
    return s.placed[j];
  };

  /** Panes for the sections that are on, and the embedding of the active one. */
  const arrange = () => {
    const sections = app.shown(), host = $("maps");
    app.panes.forEach((p) => p.close());
    app.panes = [];
    const columns = Math.ceil(Math.sqrt(sections.length));
    host.style.setProperty("--columns", String(columns));
    host.dataset.many = sections.length > 1 ? "yes" : "no";
    app.panes = sections.map((s) => new smeld.Pane({
      kind: "section", section: s, cloud: `${s.k}:xy`, xy: s.xy, host, label: smeld.bdi(s.name),
      bounds: [0, 0, s.bounds_um[2] - s.bounds_um[0], s.bounds_um[3] - s.bounds_um[1]],
    }));
    if (app.panes.length > 1) app.panes.forEach((p) => p.fit(false));
    app.redraw();
    if (app.ready) side(); // the first picture comes before what stands beside it
  };
  let sideTurn = 0;
  const side = async () => {
    const s = app.active, host = $("embedding"), j = Math.max(0, Math.min(Number($("embedding-name").value) || 0, s.embeddings.length - 1)), mine = ++sideTurn;
    $("main").dataset.side = s.embeddings.length && app.sideOn ? "yes" : "no";
    $("embedding-toggle").disabled = !s.embeddings.length;
    $("embedding-toggle").setAttribute("aria-pressed", String($("main").dataset.side === "yes"));
    app.panes.filter((p) => p.kind === "embedding").forEach((p) => p.close());
    app.panes = app.panes.filter((p) => p.kind !== "embedding");
    $("embedding-name").replaceChildren(...s.embeddings.map((e, i) => el("option", { value: i }, smeld.plain(e.name))));
    $("embedding-name").value = String(j);
    if ($("main").dataset.side !== "yes") return;
    try {
      const { cloud, xy, bounds } = await embedding(s, j);
      if (mine !== sideTurn) return;
      const pane = new smeld.Pane({ kind: "embedding", section: s, cloud, xy, bounds, host, label: app.on.size > 1 ? smeld.bdi(s.name) : null });
      app.panes.push(pane);
      pane.changed(false);
    } catch (error) {
      smeld.failed("The embedding could not be shown", error);
    }
  };

  const activate = (s) => {
    if (app.active === s) return;
    app.active = s;
    sectionChanged();
    side();
  };
  const sectionChanged = () => {
    const s = app.active;
    $("facts").textContent = `${smeld.many(s.n_obs)} \u00b7 ${smeld.count(s.genes ?? s.n_genes)} genes`;
    $("tissue-line").hidden = !s.image;
    $("outlines-line").hidden = !s.outlines;
    $("links").replaceChildren(...s.links.map((link, j) => el("label", { class: "check" }, checkbox(link.shown, (on) => showLink(s, link, j, on)), smeld.bdi(link.title))));
    $("links-box").hidden = !s.links.length;
    sectionList();
    smeld.say("section", s);
  };
  const checkbox = (on, f) => {
    const box = el("input", { type: "checkbox", onchange: () => f(box.checked) });
    box.checked = on;
    return box;
  };
  const showLink = async (s, link, j, on) => {
    link.shown = on;
    try {
      if (on && !link.data) link.data = smeld.unpack(await smeld.transport.get(`api/${s.k}/links/${j}.bin`));
    } catch (error) {
      smeld.failed(link.title, error);
    }
    app.redraw();
  };

  const sectionList = () => {
    $("sections-box").hidden = app.sections.length < 2;
    const at = document.activeElement && document.activeElement.dataset.k;
    $("sections").replaceChildren(...app.sections.map((s) => el("li", { class: s === app.active ? "on" : "" },
      (() => {
        const box = checkbox(app.on.has(s.k), (on) => beside(s, on));
        box.setAttribute("aria-label", `Show ${smeld.plain(s.name)} beside the others`);
        return box;
      })(),
      el("button", { type: "button", class: "entry", data: { k: s.k }, "aria-current": s === app.active ? "true" : null, onclick: () => only(s) }, smeld.bdi(s.name)))));
    const again = at !== undefined && $("sections").querySelector(`[data-k="${Number(at)}"]`);
    if (again) again.focus();
  };
  const beside = async (s, on) => {
    if (on && app.on.size >= MOST_SHOWN) smeld.status(`At most ${MOST_SHOWN} sections stand side by side`);
    else if (on) await show(s, new Set([...app.on, s.k]));
    else if (app.on.size > 1) {
      const left = new Set([...app.on].filter((k) => k !== s.k));
      await show(app.active === s ? app.sections[Math.min(...left)] : app.active, left);
    }
    sectionList();
  };
  const only = (s) => show(s, new Set([s.k]));
  const show = async (s, on) => {
    try {
      busy(true);
      smeld.status(`Reading ${s.name}`);
      await load(s);
      app.on = on;
      app.active = s;
      arrange();
      sectionChanged();
      const now = smeld.paint.current, known = now && (now.type !== "column" || app.shown().some((x) => x.columns.some((c) => c.name === now.name)));
      await smeld.paint.set(known ? now : { type: "column", name: s.default || (s.columns[0] || {}).name });
      smeld.status(`${s.name}: ${smeld.many(s.n_obs)}`);
    } catch (error) {
      smeld.failed(`${s.name} could not be read`, error);
    } finally {
      busy(false);
    }
  };
  const busy = (on) => { $("busy").hidden = !on; };

  /* -------------------------------------------------- beginning */

  const untilReady = async () => {
    for (;;) {
      app.state = await smeld.transport.get("api/state.json");
      if (app.state.error) throw new Error(app.state.error);
      if (app.state.ready) return;
      $("saying").textContent = smeld.plain(app.state.saying);
      await wait(200);
    }
  };
  const untilIndexed = async () => {
    while (app.state.indexed < 1 && !app.state.static) {
      $("indexed").textContent = `indexing genes ${Math.floor(100 * app.state.indexed)} %`;
      await wait(1000);
      try {
        app.state = { ...app.state, ...(await smeld.transport.get("api/state.json")) };
      } catch {
        break;
      }
    }
    $("indexed").textContent = "";
  };

  const begin = async () => {
    try {
      smeld.engine.start();
      await untilReady();
      document.title = `${smeld.plain(app.state.title)} \u00b7 smeld`;
      $("title").replaceChildren(smeld.bdi(app.state.title));
      app.sections = app.state.sections.map((name, k) => ({ k, name, columns: [], embeddings: [], tables: [], links: [] }));
      smeld.controls.start();
      for (const part of ["legend", "search", "tables", "save"]) smeld[part].start();
      smeld.on("first", first);
      smeld.on("active", (pane) => activate(pane.section));
      smeld.on("drawn", smeld.annotate.drawn);
      smeld.on("painted", (s) => app.panes.forEach((p) => p.section === s && p.gl && p.reload()));
      smeld.on("fetching", busy);
      smeld.on("lost", () => { // the graphics card went away: the worker draws
        smeld.renderer = "cpu";
        arrange();
      });
      await only(app.sections[0]);
      smeld.annotatePanel.start();
      if (smeld.errors.length && !app.active) throw new Error(smeld.errors[0]);
    } catch (error) {
      smeld.errors.push(String(error.message));
      $("saying").textContent = smeld.plain(error.message);
      $("veil").dataset.failed = "yes";
    }
  };
  const first = () => {
    if (app.ready) return;
    app.ready = true;
    smeld.probe.firstPictureMs = performance.now();
    $("veil").hidden = true;
    side();
    untilIndexed();
  };

  Object.assign(app, { begin, side, load, only, beside });
})();
