/* Finding: genes, pairs and columns in one field; and the list of all that can colour the map. */
"use strict";
(() => {
  const smeld = window.smeld;
  const { el, $ } = smeld;
  const MOST = 40;
  const GROUPS = ["domains", "cell types", "annotations", "confidence", "pseudotime", "interactions", "quality", "other"];
  let found = [], at = -1;

  /** {names, also, at: name -> number} of a section, asked for once. */
  smeld.genes = (s) => {
    s.geneList ||= smeld.transport.get(`api/${s.k}/genes.json`).then(({ names, also }) => {
      const numbers = new Map(names.map((name, i) => [name, i]));
      (also || []).forEach((name, i) => { if (name && !numbers.has(name)) numbers.set(name, i); });
      return { names, also: also || null, at: numbers };
    });
    s.geneList.catch(() => { s.geneList = null; });
    return s.geneList;
  };

  const rank = (name, query) => {
    const low = name.toLowerCase(), place = low.indexOf(query);
    return place < 0 ? Infinity : (low === query ? 0 : place === 0 ? 1 : 2) + low.length / 1000;
  };
  const best = (items, query, most) => items.map((item) => [rank(item.text, query), item]).filter(([r]) => r < Infinity)
    .sort((a, b) => a[0] - b[0]).slice(0, most).map(([, item]) => item);

  const matches = async (query) => {
    const s = smeld.app.active, low = query.trim().toLowerCase();
    if (!low) return [];
    const { names, also, at: numbers } = await smeld.genes(s), exact = new Map([...numbers.keys()].map((n) => [n.toLowerCase(), n]));
    const genes = names.map((name, i) => ({ kind: "gene", text: also && also[i] && also[i] !== name ? `${name} ${also[i]}` : name, to: { type: "gene", name } }));
    const columns = s.columns.map((c) => ({ kind: "column", text: c.name, to: { type: "column", name: c.name } }));
    const pairs = (await smeld.tables.pairs(s)).map(([l, r]) => ({ kind: "pair", text: `${l} \u2192 ${r}`, to: { type: "pair", ligand: l, receptor: r } }));
    const two = low.split(/[\s,_>\u2192-]+/).filter(Boolean).map((n) => exact.get(n)).filter(Boolean);
    const made = two.length === 2 ? [{ kind: "pair", text: two.join(" \u2192 "), to: { type: "pair", ligand: two[0], receptor: two[1] } }] : [];
    return [...made, ...best([...columns, ...genes, ...pairs], low, MOST)];
  };

  const close = () => {
    $("found").hidden = true;
    $("search").setAttribute("aria-expanded", "false");
    $("search").removeAttribute("aria-activedescendant");
    at = -1;
  };
  const mark = (to) => {
    const all = [...$("found").querySelectorAll("[role=option]")];
    at = all.length ? (to + all.length) % all.length : -1;
    all.forEach((e, i) => e.setAttribute("aria-selected", String(i === at)));
    if (at >= 0) {
      $("search").setAttribute("aria-activedescendant", all[at].id);
      all[at].scrollIntoView({ block: "nearest" });
    }
  };
  const choose = (item) => {
    $("search").value = "";
    close();
    smeld.paint.set(item.to);
  };
  const show = (items) => {
    found = items;
    const list = $("found");
    list.replaceChildren(...items.map((item, i) => el("li", {
      role: "option", id: `found-${i}`, "aria-selected": "false",
      onpointerdown: (e) => {
        e.preventDefault();
        choose(item);
      },
    }, smeld.bdi(item.text), el("span", { class: "kind" }, item.kind))));
    if (!items.length) list.append(el("li", { class: "none", role: "option", "aria-disabled": "true", "aria-selected": "false" }, "Nothing of that name"));
    list.hidden = false;
    $("search").setAttribute("aria-expanded", "true");
    mark(0);
  };

  let turn = 0;
  const typed = async () => {
    const mine = ++turn, query = $("search").value;
    if (!query.trim()) return close();
    try {
      const items = await matches(query);
      if (mine === turn && $("search").value) show(items);
    } catch (error) {
      smeld.failed("Names could not be searched", error);
    }
    return undefined;
  };

  /* -------------------------------------------------- the list of columns */

  let refresh = null;
  const option = (c, text) => {
    const now = smeld.paint.current, on = now && smeld.paint.key(now) === smeld.paint.key(c);
    return el("li", { role: "option", "aria-selected": String(Boolean(on)), tabindex: "-1", data: { kind: c.kind || "" }, onclick: () => smeld.paint.set({ type: c.type, name: c.name }) },
      el("span", { class: `dot ${c.kind}`, "aria-hidden": "true" }), smeld.bdi(text));
  };
  const groupOf = (name) => (GROUPS.includes(name) ? name : "other");
  const list = () => {
    const s = smeld.app.active, groups = GROUPS.map((name) => [name, s.columns.filter((c) => groupOf(c.group) === name)]).filter(([, c]) => c.length);
    const items = groups.map(([name, columns]) => el("li", { role: "presentation" }, el("ul", { role: "group", "aria-label": name },
      el("li", { class: "group", role: "presentation" }, name), columns.map((c) => option({ type: "column", name: c.name, kind: c.kind }, c.name)))));
    if (smeld.annotate.on()) items.unshift(option({ type: "annotation", name: "annotation being drawn", kind: "category" }, "annotation being drawn"));
    $("columns").replaceChildren(...items);
    refresh();
    const on = $("columns").querySelector("[aria-selected=true]");
    if (on) on.scrollIntoView({ block: "nearest" });
  };

  smeld.search = {
    start() {
      const field = $("search");
      field.addEventListener("input", typed);
      field.addEventListener("blur", () => setTimeout(close, 0));
      field.addEventListener("keydown", (e) => {
        if (e.key === "ArrowDown") mark(at + 1);
        else if (e.key === "ArrowUp") mark(at - 1);
        else if (e.key === "Enter" && found[at] && !$("found").hidden) choose(found[at]);
        else if (e.key === "Escape") {
          field.value = "";
          close();
        } else return;
        e.preventDefault();
      });
      refresh = smeld.roving($("columns"), "[role=option]");
      $("columns").addEventListener("keydown", (e) => {
        if ((e.key === "Enter" || e.key === " ") && e.target.matches("[role=option]")) {
          e.preventDefault();
          e.target.click();
          $("columns").dataset.keep = "yes"; // the list is made again: the focus goes back to it
        }
      });
      smeld.on("colour", () => {
        const inside = $("columns").contains(document.activeElement) || $("columns").dataset.keep;
        delete $("columns").dataset.keep;
        list();
        const on = $("columns").querySelector("[aria-selected=true]");
        if (inside && on) on.focus();
      });
    },
  };
})();
