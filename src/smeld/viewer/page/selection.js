/* Which cells are selected in each section, and what can be undone. */
"use strict";
(() => {
  const smeld = window.smeld;
  const MOST = 100;

  smeld.history = {
    done: [], undone: [],
    /** A step that has been taken: {label, back, forth}. */
    push(step) {
      this.done.push(step);
      if (this.done.length > MOST) this.done.shift();
      this.undone = [];
      smeld.say("history");
    },
    move(from, to, way, word) {
      const step = from.pop();
      if (!step) return;
      step[way]();
      to.push(step);
      smeld.status(`${word}: ${step.label}`);
      smeld.say("history");
    },
    undo() { this.move(this.done, this.undone, "back", "Undone"); },
    redo() { this.move(this.undone, this.done, "forth", "Done again"); },
  };

  const put = (section, mask) => {
    section.mask = mask;
    section.chosen = mask ? mask.reduce((a, b) => a + b, 0) : 0;
    if (!section.chosen) section.mask = null;
    smeld.engine.tell({ what: "select", section: section.k, mask: section.mask });
    smeld.say("painted", section);
    smeld.say("selected", section);
  };

  const combined = (old, mask, how) => {
    if (how === "new" || !old) return how === "take" ? null : mask;
    return mask.map((v, i) => (how === "add" ? v | old[i] : old[i] & (1 - v)));
  };

  /** A mask per row from a test of the row number. */
  const maskOf = (n, test) => {
    const mask = new Uint8Array(n);
    for (let i = 0; i < n; i++) if (test(i)) mask[i] = 1;
    return mask;
  };

  smeld.selection = {
    total: () => smeld.app.sections.reduce((sum, s) => sum + (s.chosen || 0), 0),
    /** how: "new" replaces, "add", "take" (what is in the mask is taken out). */
    set(section, mask, how = "new", label = "selection") {
      const before = section.mask || null, after = combined(before, mask, how);
      put(section, after);
      smeld.history.push({ label, back: () => put(section, before), forth: () => put(section, after) });
      smeld.status(`${smeld.many(smeld.selection.total())} selected`);
    },
    clear() {
      for (const s of smeld.app.sections) if (s.mask) this.set(s, null, "new", "selection dropped");
      smeld.status("Nothing selected");
    },
    /** Cells of one category of what colours the map, in every section shown. */
    category(name, how = "new") {
      for (const s of smeld.app.shown()) {
        const now = smeld.paint.values(s), code = now && now.categories ? now.categories.indexOf(name) : -1;
        if (now) this.set(s, maskOf(s.n_obs, (i) => now.values[i] === code), how, `select ${name}`);
      }
    },
    /** All that the legend's filter leaves on the map. */
    visible() {
      for (const s of smeld.app.shown()) {
        const now = smeld.paint.values(s);
        if (now) this.set(s, maskOf(s.n_obs, smeld.paint.isShown(now)), "new", "select what is shown");
      }
    },
    /** All whose value lies above the low end of the scale. */
    above() {
      for (const s of smeld.app.shown()) {
        const now = smeld.paint.values(s), { lo } = smeld.paint;
        if (now && !now.categories) this.set(s, maskOf(s.n_obs, (i) => now.values[i] > lo), "new", "select above the low end");
      }
    },
    rows(section) {
      const found = new Uint32Array(section.chosen || 0);
      for (let i = 0, k = 0; section.mask && i < section.mask.length; i++) if (section.mask[i]) found[k++] = i;
      return found;
    },
    /** From outside (a notebook): row numbers. */
    fromRows(section, rows) {
      const mask = new Uint8Array(section.n_obs);
      for (const r of rows) if (Number.isInteger(r) && r >= 0 && r < mask.length) mask[r] = 1;
      put(section, mask);
    },
  };
})();
