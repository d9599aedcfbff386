/* What colours the map: a column, a gene, a pair or the annotation; one scale for all sections shown. */
"use strict";
(() => {
  const smeld = window.smeld;
  const KEPT = 40;
  const cache = new Map(); // address -> values
  const hidden = new Map(); // name of what colours -> set of categories that are filtered out
  const ranges = new Map(); // the same -> [lo, hi] that the user has set
  const held = new Map(); // section number -> values that are on the map now
  let turn = 0;

  const fetched = async (address, n) => {
    if (!cache.has(address)) {
      cache.set(address, smeld.transport.get(address).then((data) => smeld.dense(data, n)));
      cache.get(address).catch(() => cache.delete(address));
      if (cache.size > KEPT) cache.delete(cache.keys().next().value);
    }
    return cache.get(address);
  };

  const nothing = (s) => ({ kind: "number", values: new Float32Array(s.n_obs).fill(NaN), absent: true });
  const ofColumn = async (s, name) => {
    const j = s.columns.findIndex((c) => c.name === name);
    if (j < 0) return nothing(s);
    const column = s.columns[j], values = await fetched(`api/${s.k}/column/${j}.bin`, s.n_obs);
    return { ...column, values };
  };
  const ofGene = async (s, name) => {
    const i = (await smeld.genes(s)).at.get(name);
    return i === undefined ? nothing(s) : { kind: "number", gene: true, values: await fetched(`api/${s.k}/gene/${i}.bin`, s.n_obs) };
  };
  const ofPair = async (s, ligand, receptor) => {
    const { at } = await smeld.genes(s), l = at.get(ligand), r = at.get(receptor);
    if (l === undefined || r === undefined) return nothing(s);
    return { kind: "number", gene: true, values: await fetched(`api/${s.k}/pair/${l}/${r}.bin`, s.n_obs) };
  };
  const valuesOf = (s, c) => {
    if (c.type === "gene") return ofGene(s, c.name);
    if (c.type === "pair") return ofPair(s, c.ligand, c.receptor);
    if (c.type === "annotation") return smeld.annotate.values(s);
    return ofColumn(s, c.name);
  };

  /** Range without the highest and lowest half percent, from at most 100,000 values; and a histogram. */
  const summary = (all) => {
    const sample = [];
    for (const { values } of all) {
      const step = Math.max(1, Math.floor((values.length * all.length) / 1e5));
      for (let i = 0; i < values.length; i += step) if (!Number.isNaN(values[i])) sample.push(values[i]);
    }
    const sorted = Float32Array.from(sample).sort(), at = (q) => sorted[Math.round(q * (sorted.length - 1))];
    if (!sorted.length) return { lo: 0, hi: 1, sorted };
    let lo = all.some((v) => v.gene) ? 0 : at(0.005), hi = at(0.995);
    if (!(hi > lo)) hi = at(1) > lo ? at(1) : lo + 1;
    return { lo, hi, sorted };
  };

  /** Categories of all sections shown, in order, with counts and colours. */
  const merged = (all) => {
    const found = new Map();
    for (const v of all) (v.categories || []).forEach((name, i) => {
      const was = found.get(name), n = v.n ? v.n[i] : 0;
      if (was) was.n += n;
      else found.set(name, { name, n, colour: v.colors && v.colors[i] });
    });
    return [...found.values()].map((c, i) => ({ ...c, colour: smeld.colours.seen(smeld.app.categories === "stored" && c.colour ? smeld.colours.valid(c.colour) : smeld.colours.category(i)) }));
  };

  const title = (c) => (c.type === "pair" ? `${c.ligand} \u2192 ${c.receptor}` : c.name);
  const apply = (s, values) => {
    const p = smeld.paint, message = { what: "paint", section: s.k, values: values.values, kind: p.kind };
    if (p.kind === "number") Object.assign(message, { lo: p.lo, hi: p.hi, hideLow: smeld.app.hideLow, colours: smeld.colours.ofNumbers(smeld.app.palette) });
    else {
      const names = values.categories || [], colour = new Map(p.categories.map((c) => [c.name, c.colour]));
      message.hidden = Uint8Array.from(names, (name) => (p.hidden.has(name) ? 1 : 0));
      message.colours = smeld.colours.ofCategories(names.map((name) => colour.get(name)));
      message.hideMissing = p.hidden.has(null);
    }
    smeld.engine.tell(message);
    smeld.say("painted", s);
  };

  smeld.paint = {
    current: null, kind: "number", lo: 0, hi: 1, categories: [], hidden: new Set(), title,
    key: (c) => `${c.type}:${title(c)}`,
    values: (s) => held.get(s.k),
    /** Is a row left on the map by the filter? */
    isShown: (now) => {
      const p = smeld.paint;
      if (p.kind === "number") return (i) => !(smeld.app.hideLow && !(now.values[i] > p.lo));
      const out = now.categories.map((name) => p.hidden.has(name)), missing = p.hidden.has(null);
      return (i) => (now.values[i] < out.length ? !out[now.values[i]] : !missing);
    },
    /** Colour by something else, or the same again after the sections have changed. */
    async set(c) {
      const mine = ++turn, sections = smeld.app.shown();
      smeld.say("fetching", true);
      try {
        const all = await Promise.all(sections.map((s) => valuesOf(s, c)));
        if (mine !== turn) return;
        const p = smeld.paint, key = p.key(c), real = all.filter((v) => !v.absent);
        p.current = c;
        p.kind = real.length && real[0].kind === "category" ? "category" : "number";
        p.hidden = hidden.get(key) || hidden.set(key, new Set()).get(key);
        p.categories = p.kind === "category" ? merged(real) : [];
        p.missing = real.reduce((sum, v) => sum + (v.missing || 0), 0);
        p.made = c.type === "pair" && real.some((v) => v.values.stored === false);
        if (p.kind === "number") p.missing = real.reduce((sum, { values }) => sum + values.reduce((n, v) => n + (v !== v ? 1 : 0), 0), 0);
        if (p.kind === "number") {
          const { lo, hi, sorted } = summary(real);
          Object.assign(p, { natural: [lo, hi], sorted });
          [p.lo, p.hi] = ranges.get(key) || [lo, hi];
        }
        held.clear();
        sections.forEach((s, i) => {
          const odd = all[i].absent && p.kind === "category";
          held.set(s.k, odd ? { kind: "category", values: new Uint8Array(s.n_obs).fill(255), categories: [], n: [] } : all[i]);
        });
        p.again();
        if (!real.length) smeld.status(`${title(c)} is not in this section`);
      } catch (error) {
        if (mine === turn) smeld.failed(`${title(c)} could not be shown`, error);
      } finally {
        if (mine === turn) smeld.say("fetching", false);
      }
    },
    /** The same values with another palette, range or filter. */
    again() {
      for (const s of smeld.app.shown()) if (held.has(s.k)) apply(s, held.get(s.k));
      smeld.say("colour");
    },
    recolour() {
      const p = smeld.paint;
      if (p.kind === "category") p.categories = merged([...held.values()]);
      p.again();
    },
    range(lo, hi) {
      const p = smeld.paint;
      if (!(hi > lo)) return smeld.status("The maximum must be larger than the minimum");
      [p.lo, p.hi] = [lo, hi];
      ranges.set(p.key(p.current), [lo, hi]);
      return p.again();
    },
    reset() {
      const p = smeld.paint;
      ranges.delete(p.key(p.current));
      [p.lo, p.hi] = p.natural;
      p.again();
    },
    /** Legend clicks: one category off or on; or only that one. */
    toggle(name, only = false) {
      const p = smeld.paint, others = [...p.categories.map((c) => c.name), null].filter((n) => n !== name);
      if (only) {
        const alone = !p.hidden.has(name) && others.every((n) => p.hidden.has(n));
        p.hidden.clear();
        if (!alone) others.forEach((n) => p.hidden.add(n));
      } else if (!p.hidden.delete(name)) p.hidden.add(name);
      p.again();
    },
    all() {
      smeld.paint.hidden.clear();
      smeld.paint.again();
    },
    /** What the map says of one row. */
    of: (s, row) => {
      const now = held.get(s.k);
      if (!now || row < 0) return "";
      return now.categories ? now.categories[now.values[row]] ?? "none" : smeld.number(now.values[row]);
    },
  };
})();
