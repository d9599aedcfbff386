/* The legend: categories that filter, or a scale with its histogram and range. */
"use strict";
(() => {
  const smeld = window.smeld;
  const { el, $ } = smeld;
  let refresh = null;

  const head = (p) => {
    $("legend-title").replaceChildren(smeld.bdi(smeld.paint.title(p.current)));
    const kinds = { gene: "gene", pair: "ligand \u2192 receptor", annotation: "annotation" };
    $("legend-kind").textContent = kinds[p.current.type] || (p.kind === "category" ? "categories" : "number");
  };

  const row = (p, name, colour, n) => {
    const on = !p.hidden.has(name), label = name === null ? "no value" : name;
    return el("li", {}, el("button", {
      type: "button", class: "entry", "aria-pressed": String(on), title: `${smeld.plain(label)}: click shows or hides, Shift or Alt click shows only this; S selects its cells`,
      onclick: (e) => p.toggle(name, e.shiftKey || e.altKey),
      onkeydown: (e) => {
        if (e.key.toLowerCase() === "s" && name !== null && !e.ctrlKey && !e.metaKey) smeld.selection.category(name, e.shiftKey ? "add" : "new");
        else return;
        e.preventDefault();
      },
    }, el("span", { class: "swatch", style: { "--colour": colour } }), smeld.bdi(label), el("span", { class: "n" }, smeld.count(n))));
  };

  const categories = (p) => {
    const focused = document.activeElement && document.activeElement.closest("#legend-list") ? [...$("legend-list").children].indexOf(document.activeElement.closest("li")) : -1;
    const rows = p.categories.map((c) => row(p, c.name, c.colour, c.n));
    if (p.missing) rows.push(row(p, null, smeld.colours.missing(), p.missing));
    apart(p);
    $("legend-list").replaceChildren(...rows);
    if (focused >= 0 && rows[focused]) rows[focused].firstChild.focus();
    refresh();
  };

  const histogram = (p) => {
    const canvas = $("histogram"), ratio = window.devicePixelRatio || 1, bins = 48, counts = new Array(bins).fill(0);
    canvas.width = Math.max(1, canvas.clientWidth * ratio);
    canvas.height = Math.max(1, canvas.clientHeight * ratio);
    for (const v of p.sorted) if (v > (p.natural[0] === 0 ? 0 : -Infinity)) counts[smeld.clamp(Math.floor(((v - p.lo) / (p.hi - p.lo)) * bins), 0, bins - 1)]++;
    const most = Math.max(...counts, 1), context = canvas.getContext("2d"), wide = canvas.width / bins;
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--soft").trim();
    context.globalAlpha = 0.55;
    counts.forEach((n, i) => {
      const high = n ? Math.max(ratio, (n / most) * canvas.height) : 0;
      context.fillRect(i * wide, canvas.height - high, Math.max(1, wide - ratio), high);
    });
  };

  /** What a scale does not show: cells without a value, and a score that no test stored. */
  const note = (p) => {
    const lines = [];
    if (p.missing) lines.push(`${smeld.count(p.missing)} without a value (grey)`);
    if (p.made) lines.push("Made here: \u221a(ligand \u00d7 mean receptor of the neighbours). A picture, no test.");
    $("legend-note").textContent = lines.join(". ");
    $("legend-note").hidden = !lines.length;
  };

  /** Domains of sections that were analysed apart have numbers that mean nothing across them. */
  const apart = (p) => {
    const { state, active, on } = smeld.app, column = active.columns.find((c) => c.name === p.current.name);
    $("legend-apart").hidden = !(state.apart && on.size > 1 && p.current.type === "column" && column && column.group === "domains");
  };

  const scale = (p) => {
    note(p);
    $("scale").style.background = smeld.colours.gradient(smeld.app.palette);
    for (const [id, value] of [["scale-lo", p.lo], ["scale-hi", p.hi]]) if (document.activeElement !== $(id)) $(id).value = String(Number(value.toPrecision(4)));
    $("scale-natural").disabled = p.lo === p.natural[0] && p.hi === p.natural[1];
    histogram(p);
  };

  const show = () => {
    const p = smeld.paint, numbers = p.kind === "number";
    head(p);
    $("legend").dataset.kind = p.kind;
    $("legend-numbers").hidden = !numbers;
    $("legend-categories").hidden = numbers;
    $("legend-all").disabled = !p.hidden.size;
    if (numbers) scale(p);
    else categories(p);
  };

  smeld.legend = {
    start() {
      refresh = smeld.roving($("legend-list"), ".entry");
      smeld.on("colour", show);
      const change = () => smeld.paint.range(Number($("scale-lo").value), Number($("scale-hi").value));
      $("scale-lo").addEventListener("change", change);
      $("scale-hi").addEventListener("change", change);
      $("scale-natural").addEventListener("click", () => {
        smeld.paint.reset();
        $("scale-lo").focus(); // the button has nothing more to do
      });
      $("legend-all").addEventListener("click", () => {
        smeld.paint.all();
        $("legend-select").focus();
      });
      $("legend-select").addEventListener("click", () => smeld.selection.visible());
      $("legend-above").addEventListener("click", () => smeld.selection.above());
      $("hide-low").addEventListener("change", (e) => {
        smeld.app.hideLow = e.target.checked;
        smeld.paint.again();
      });
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => smeld.paint.current && smeld.paint.recolour());
    },
  };
})();
