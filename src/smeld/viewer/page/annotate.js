/* Annotations: named categories, shapes, and the category of every cell; each change can be undone. */
"use strict";
(() => {
  const smeld = window.smeld;
  const EMPTY = new Uint32Array(0);

  /** Annotations of a section; `labels` holds 0 or a category's id for every row. */
  const fresh = (s) => ({ revision: 0, categories: [], shapes: [], labels: new Uint16Array(s.n_obs), next: 1, saved: true });
  const of = (s) => (s.annotation ||= fresh(s));
  const loaded = () => smeld.app.sections.filter((s) => s.xy);
  const changed = (s) => {
    const a = of(s);
    a.saved = false;
    a.counts = null;
    smeld.say("annotated", s);
    if (smeld.paint.current && smeld.paint.current.type === "annotation") smeld.paint.set(smeld.paint.current);
    smeld.app.redraw();
  };

  /** One change of a section: new categories and shapes, and rows that get a label. {back, forth}, already taken. */
  const changeOf = (s, { categories, shapes, rows = EMPTY, to = 0 }) => {
    const a = of(s), before = { categories: a.categories, shapes: a.shapes, labels: Uint16Array.from(rows, (r) => a.labels[r]) };
    const after = { categories: categories || a.categories, shapes: shapes || a.shapes };
    const put = (state, labels) => {
      Object.assign(a, { categories: state.categories, shapes: state.shapes });
      for (let i = 0; i < rows.length; i++) a.labels[rows[i]] = labels ? labels[i] : to;
      changed(s);
    };
    put(after);
    return { back: () => put(before, before.labels), forth: () => put(after) };
  };
  /** A step that can be undone, of one section or of several. */
  const edit = (label, changes) => {
    const steps = changes.map(([s, change]) => changeOf(s, change));
    smeld.history.push({ label, back: () => steps.forEach((step) => step.back()), forth: () => steps.forEach((step) => step.forth()) });
  };

  const rowsWhere = (n, test) => {
    const found = [];
    for (let i = 0; i < n; i++) if (test(i)) found.push(i);
    return Uint32Array.from(found);
  };
  const named = (s, name) => of(s).categories.find((c) => c.name === name);
  const having = (name) => loaded().filter((s) => named(s, name));
  const identity = () => Array.from(crypto.getRandomValues(new Uint32Array(3)), (v) => v.toString(36)).join("");

  const annotate = smeld.annotate = {
    of,
    /** Can annotations be drawn? On a server only if it allows writing; in an exported page for oneself. */
    on: () => Boolean(smeld.app.state.annotate || smeld.app.state.static),
    shapes: (s) => (s.annotation ? s.annotation.shapes : []),
    /** The category that shapes get, by name; null: what is drawn only selects. */
    active: null,
    /** Categories of all sections that have been read: one list, whichever section is being drawn on. */
    all() {
      const found = new Map();
      for (const s of loaded()) for (const { name, color } of of(s).categories) if (!found.has(name)) found.set(name, { name, color });
      return [...found.values()];
    },
    colour: (category) => (annotate.all().find((c) => c.name === category) || { color: "#888888" }).color,
    count: (s, name) => {
      const mine = named(s, name);
      return mine ? annotate.counts(s).get(mine.id) || 0 : 0;
    },
    counts(s) {
      const a = of(s);
      if (!a.counts) {
        a.counts = new Map(a.categories.map((c) => [c.id, 0]));
        for (const l of a.labels) if (l) a.counts.set(l, (a.counts.get(l) || 0) + 1);
      }
      return a.counts;
    },
    /** The labels as a column of categories, for the map. */
    values(s) {
      const a = of(s), order = new Map(a.categories.map((c, i) => [c.id, i])), counts = annotate.counts(s);
      const n = a.categories.map((c) => counts.get(c.id) || 0);
      const values = Uint8Array.from(a.labels, (l) => (l ? order.get(l) ?? 255 : 255));
      const missing = s.n_obs - n.reduce((x, y) => x + y, 0);
      return { kind: "category", categories: a.categories.map((c) => c.name), colors: a.categories.map((c) => c.color), n, missing, values };
    },
    activate(name) {
      annotate.active = name;
      smeld.say("annotated", smeld.app.active);
    },
    addCategory(s, name) {
      const a = of(s), text = name.trim().slice(0, 200), there = annotate.all();
      if (!text) return smeld.status("Give the category a name");
      if (there.some((c) => c.name === text)) return smeld.status("There is a category of that name");
      const used = new Set(there.map((c) => c.color.toLowerCase()));
      const color = Array.from({ length: 60 }, (_, i) => smeld.colours.category(i)).find((c) => !used.has(c.toLowerCase())) || "#888888";
      annotate.active = text;
      edit(`new category ${text}`, [[s, { categories: [...a.categories, { id: a.next++, name: text, color }] }]]);
      return undefined;
    },
    /** Another name or colour, in every section that has the category. */
    change(name, { name: text = name, color }) {
      const to = text.trim().slice(0, 200);
      if (!to || (to !== name && annotate.all().some((c) => c.name === to))) return smeld.status("Give the category a name of its own");
      if (annotate.active === name) annotate.active = to;
      edit(`change of ${name}`, having(name).map((s) => [s, {
        categories: of(s).categories.map((c) => (c.name === name ? { ...c, name: to, color: color || c.color } : c)),
        shapes: of(s).shapes.map((shape) => (shape.category === name ? { ...shape, category: to } : shape)),
      }]));
      return undefined;
    },
    removeCategory(name) {
      if (annotate.active === name) annotate.active = null;
      edit(`category ${name} deleted`, having(name).map((s) => [s, {
        categories: of(s).categories.filter((c) => c.name !== name), shapes: of(s).shapes.filter((shape) => shape.category !== name),
        rows: rowsWhere(s.n_obs, (i) => of(s).labels[i] === named(s, name).id), to: 0,
      }]));
      smeld.status(`${name} and its shapes deleted; undo brings them back`);
    },
    /** Give rows the active category (or none), with the shape they were found by. */
    assign(s, mask, shape, erase = false) {
      const a = of(s), name = annotate.active, rows = rowsWhere(s.n_obs, (i) => mask[i]);
      if (!name && !erase) return smeld.status("Choose a category first");
      if (erase) {
        edit("labels taken off", [[s, { rows, to: 0 }]]);
        return smeld.status(`${smeld.many(rows.length)} without a label`);
      }
      const own = named(s, name) || { id: a.next++, name, color: annotate.colour(name) };
      edit(`${smeld.many(rows.length)} as ${name}`, [[s, {
        categories: named(s, name) ? a.categories : [...a.categories, own],
        shapes: shape ? [...a.shapes, { id: identity(), category: name, ...shape }] : a.shapes, rows, to: own.id,
      }]]);
      return smeld.status(`${smeld.many(rows.length)} labelled ${name}`);
    },
    /** A shape and the labels it gave, where no other shape of its category gives them. */
    async removeShape(s, shape) {
      const a = of(s), [x0, y0] = s.bounds_um, id = (named(s, shape.category) || {}).id;
      const within = async (one) => (await smeld.engine.ask({ what: "shape", cloud: `${s.k}:xy`, rings: one.rings_um.map((r) => r.map(([x, y]) => [x - x0, y - y0])) })).mask;
      const mask = await within(shape), others = a.shapes.filter((o) => o.id !== shape.id && o.category === shape.category);
      const kept = await Promise.all(others.map(within));
      edit(`shape of ${shape.category} deleted`, [[s, {
        shapes: a.shapes.filter((o) => o.id !== shape.id), rows: rowsWhere(s.n_obs, (i) => mask[i] && a.labels[i] === id && !kept.some((m) => m[i])), to: 0,
      }]]);
    },
    /** What was drawn on a pane: a label where a category is active, else a selection. */
    drawn({ pane, kind, rings, mask, how }) {
      const s = pane.section;
      if (annotate.on() && annotate.active) {
        const [x0, y0] = s.bounds_um, round = (v) => Math.round(v * 1000) / 1000;
        const shape = pane.kind === "section" ? { kind, rings_um: rings.map((r) => r.map(([x, y]) => [round(x + x0), round(y + y0)])) } : null;
        annotate.assign(s, mask, shape, how === "take");
      } else smeld.selection.set(s, mask, how);
    },
  };
})();
