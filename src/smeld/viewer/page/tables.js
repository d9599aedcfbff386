/* The drawer of tables: markers, interactions, transition genes; a row drives the map. */
"use strict";
(() => {
  const smeld = window.smeld;
  const { el, $ } = smeld;
  const BLOCK = 150;
  const state = { open: false, tab: 0, sort: -1, down: true, query: "", rows: [], table: null, shown: 0 };
  let refreshTabs = null, refreshRows = null;

  const load = (s, j) => {
    s.tableData ||= [];
    s.tableData[j] ||= smeld.transport.get(`api/${s.k}/table/${j}.json`);
    s.tableData[j].catch(() => { s.tableData[j] = null; });
    return s.tableData[j];
  };

  /** What a row shows on the map when it is clicked. */
  const target = (table, row) => {
    if (table.pairs && table.pairs.length === 2) return { type: "pair", ligand: String(row[table.pairs[0]]), receptor: String(row[table.pairs[1]]) };
    const column = (table.genes || [])[0];
    return column === undefined ? null : { type: "gene", name: String(row[column]) };
  };

  const tabs = () => {
    const { tables } = smeld.app.active;
    $("tabs").replaceChildren(...tables.map((t, j) => el("button", {
      type: "button", role: "tab", id: `tab-${j}`, "aria-selected": String(state.open && j === state.tab), "aria-controls": "drawer-body", tabindex: j === state.tab ? "0" : "-1",
      onclick: () => (state.open && j === state.tab ? close() : open(j)),
    }, smeld.bdi(t.title), el("span", { class: "n" }, smeld.count(t.n_rows)))));
    $("drawer").hidden = !tables.length;
    if (tables.length) refreshTabs();
  };

  const open = async (j) => {
    Object.assign(state, { open: true, tab: j, sort: -1, query: "" });
    $("table-query").value = "";
    $("drawer").dataset.open = "yes";
    $("drawer-body").hidden = false;
    $("drawer-body").setAttribute("aria-labelledby", `tab-${j}`);
    tabs();
    const s = smeld.app.active;
    try {
      const table = await load(s, j);
      if (state.tab !== j || smeld.app.active !== s) return;
      state.table = table;
      arrange();
    } catch (error) {
      smeld.failed("The table could not be read", error);
    }
  };
  const close = () => {
    state.open = false;
    delete $("drawer").dataset.open;
    $("drawer-body").hidden = true;
    tabs();
    $(`tab-${state.tab}`).focus();
  };

  const compare = (a, b) => (a === null ? 1 : b === null ? -1 : typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  const arrange = () => {
    const { table, sort, down } = state, query = state.query.toLowerCase();
    let rows = table.rows;
    if (query) rows = rows.filter((row) => row.some((cell) => typeof cell === "string" && cell.toLowerCase().includes(query)));
    if (sort >= 0) rows = [...rows].sort((x, y) => (x[sort] === null || y[sort] === null ? compare(x[sort], y[sort]) : (down ? -1 : 1) * compare(x[sort], y[sort])));
    state.rows = rows;
    state.shown = 0;
    $("table-head").replaceChildren(el("tr", {}, table.columns.map((name, c) => el("th", {
      scope: "col", "aria-sort": c === sort ? (down ? "descending" : "ascending") : "none", class: numeric(c) ? "number" : "",
    }, el("button", { type: "button", onclick: () => order(c) }, smeld.bdi(name), el("span", { class: "way", "aria-hidden": "true" }, c === sort ? (down ? "\u2193" : "\u2191") : ""))))));
    $("table-rows").replaceChildren();
    $("table-scroll").scrollTop = 0;
    more();
    $("table-count").textContent = rows.length === table.rows.length ? `${smeld.count(rows.length)} rows` : `${smeld.count(rows.length)} of ${smeld.count(table.rows.length)} rows`;
  };
  const numeric = (c) => state.table.rows.some((row) => typeof row[c] === "number");
  const order = (c) => {
    state.down = state.sort === c ? !state.down : numeric(c);
    state.sort = c;
    arrange();
    $("table-head").querySelectorAll("button")[c].focus();
  };

  /** Rows are made as they are scrolled to. */
  const more = () => {
    const { table } = state, end = Math.min(state.rows.length, state.shown + BLOCK);
    const made = state.rows.slice(state.shown, end).map((row, r) => {
      const to = target(table, row), first = to ? (to.type === "pair" ? table.pairs[0] : table.genes[0]) : -1;
      return el("tr", { class: to ? "live" : "", data: { r: state.shown + r }, onclick: () => to && choose(to) }, row.map((cell, c) => {
        const text = typeof cell === "number" ? smeld.number(cell) : smeld.clean(cell ?? "");
        const inside = c === first ? el("button", { type: "button", class: "go", tabindex: "-1", title: "Show on the map" }, el("bdi", {}, text)) : el("bdi", {}, text);
        return el("td", { class: typeof cell === "number" ? "number" : "" }, inside);
      }));
    });
    $("table-rows").append(...made);
    state.shown = end;
    refreshRows();
    current();
  };
  const choose = (to) => smeld.paint.set(to);
  const current = () => {
    if (!state.table || !smeld.paint.current) return;
    const now = smeld.paint.key(smeld.paint.current);
    for (const line of $("table-rows").children) {
      const to = target(state.table, state.rows[line.dataset.r]);
      line.classList.toggle("on", Boolean(to) && smeld.paint.key(to) === now);
    }
  };

  smeld.tables = {
    start() {
      refreshTabs = smeld.roving($("tabs"), "[role=tab]");
      refreshRows = smeld.roving($("table-rows"), ".go");
      $("table-scroll").addEventListener("scroll", (e) => {
        const box = e.currentTarget;
        if (state.table && state.shown < state.rows.length && box.scrollTop + box.clientHeight > box.scrollHeight - 300) more();
      });
      $("table-query").addEventListener("input", (e) => {
        state.query = e.target.value;
        if (state.table) arrange();
      });
      $("drawer-close").addEventListener("click", close);
      smeld.on("colour", current);
      smeld.on("section", () => {
        state.table = null;
        if (state.open && smeld.app.active.tables.length) open(Math.min(state.tab, smeld.app.active.tables.length - 1));
        else tabs();
      });
    },
    /** Ligand and receptor of every pair that the section's tables name. */
    async pairs(s) {
      if (s.pairList) return s.pairList;
      const found = new Map();
      for (let j = 0; j < s.tables.length; j++) {
        if (!/interact|pair/i.test(`${s.tables[j].name} ${s.tables[j].title}`)) continue;
        const { pairs, rows } = await load(s, j);
        if (pairs && pairs.length === 2) for (const row of rows) found.set(`${row[pairs[0]]} ${row[pairs[1]]}`, [String(row[pairs[0]]), String(row[pairs[1]])]);
      }
      s.pairList = [...found.values()];
      return s.pairList;
    },
  };
})();
