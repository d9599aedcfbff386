/* The part of the side column in which annotations are made. */
"use strict";
(() => {
  const smeld = window.smeld;
  const { el, $ } = smeld;

  const small = (icon, label, f) => el("button", { type: "button", class: "square", "aria-label": smeld.plain(label), title: smeld.plain(label), onclick: f }, smeld.icon(icon));
  const rename = (c, line) => {
    const field = el("input", { type: "text", maxlength: "200", "aria-label": `New name of ${smeld.plain(c.name)}` });
    field.value = c.name;
    const done = (take) => {
      if (!field.isConnected) return;
      if (take && field.value !== c.name) smeld.annotate.change(c.name, { name: field.value });
      show();
    };
    field.addEventListener("keydown", (e) => {
      if (e.key === "Enter" || e.key === "Escape") done(e.key === "Enter");
    });
    field.addEventListener("blur", () => done(true));
    line.replaceWith(field);
    field.select();
    field.focus();
  };

  const choice = (s, c, i) => {
    const id = `category-${i}`, radio = el("input", { type: "radio", name: "category", id, onchange: () => smeld.annotate.activate(c ? c.name : null) });
    radio.checked = smeld.annotate.active === (c ? c.name : null);
    if (!c) return el("li", { class: "choice" }, radio, el("label", { for: id }, "Only select"));
    const colour = el("input", { type: "color", "aria-label": `Colour of ${smeld.plain(c.name)}`, onchange: (e) => smeld.annotate.change(c.name, { color: e.target.value }) });
    colour.value = c.color;
    const label = el("label", { for: id }, smeld.bdi(c.name));
    return el("li", { class: "choice" }, radio, colour, label, el("span", { class: "n" }, smeld.count(smeld.annotate.count(s, c.name))),
      small("pencil", `Rename ${c.name}`, () => rename(c, label)), small("bin", `Delete ${c.name}`, () => smeld.annotate.removeCategory(c.name)));
  };

  const shapeLine = (s, shape) => el("li", { class: "choice" },
    el("span", { class: "swatch", style: { "--colour": smeld.annotate.colour(shape.category) } }), smeld.bdi(shape.category),
    el("span", { class: "n" }, [shape.kind, shape.author].filter(Boolean).map(smeld.plain).join(" \u00b7 ")),
    small("bin", `Delete this ${shape.kind} of ${shape.category}`, () => smeld.annotate.removeShape(s, shape)));

  const saying = (a) => {
    if (!smeld.app.state.annotate) return "Kept in this page only: download the shapes to keep them";
    if (a.conflict) return "Somebody else has saved since:";
    if (a.problem) return `Not saved: ${smeld.plain(a.problem)}`;
    if (a.saving || !a.saved) return "Saving\u2026";
    return a.savedAt ? "All changes saved" : "Saved beside the result at every change";
  };
  const saved = (s) => {
    const a = smeld.annotate.of(s);
    $("save-state").textContent = saying(a);
    $("save-state").dataset.state = a.conflict || a.problem ? "bad" : a.saving || !a.saved ? "busy" : "good";
    $("take-theirs").hidden = $("keep-mine").hidden = !a.conflict;
    $("save-again").hidden = !a.problem;
  };

  const show = () => {
    const s = smeld.app.active, a = smeld.annotate.of(s), all = smeld.annotate.all();
    if (smeld.annotate.active && !all.some((c) => c.name === smeld.annotate.active)) smeld.annotate.active = null;
    const at = document.activeElement && document.activeElement.id;
    $("categories").replaceChildren(choice(s, null, 0), ...all.map((c, i) => choice(s, c, i + 1)));
    $("shapes").replaceChildren(...a.shapes.slice(-200).reverse().map((shape) => shapeLine(s, shape)));
    $("shapes-count").textContent = smeld.count(a.shapes.length);
    $("shapes-box").hidden = !a.shapes.length;
    $("assign").disabled = !smeld.annotate.active || !s.chosen;
    $("unassign").disabled = !s.chosen;
    if (at && at.startsWith("category-") && $(at)) $(at).focus();
    saved(s);
  };

  const attempt = (what, f) => async () => {
    try {
      await f(smeld.app.active);
    } catch (error) {
      smeld.failed(what, error);
    }
  };

  smeld.annotatePanel = {
    start() {
      const on = smeld.annotate.on(), live = smeld.app.state.annotate;
      $("annotate").hidden = !on;
      $("fold").hidden = $("import").hidden = !live;
      if (!on) return;
      for (const what of ["annotated", "selected", "section"]) smeld.on(what, () => smeld.app.ready && show());
      smeld.on("saving", () => saved(smeld.app.active));
      $("category-form").addEventListener("submit", (e) => {
        e.preventDefault();
        smeld.annotate.addCategory(smeld.app.active, $("category-name").value);
        $("category-name").value = "";
      });
      $("assign").addEventListener("click", () => smeld.annotate.assign(smeld.app.active, smeld.app.active.mask, null));
      $("unassign").addEventListener("click", () => smeld.annotate.assign(smeld.app.active, smeld.app.active.mask, null, true));
      $("fold").addEventListener("click", attempt("The result was not changed", smeld.save.fold));
      $("export-shapes").addEventListener("click", attempt("The shapes could not be downloaded", smeld.save.exportShapes));
      $("import").addEventListener("click", () => $("import-file").click());
      $("import-file").addEventListener("change", attempt("The file was not taken", async (s) => {
        const [file] = $("import-file").files;
        $("import-file").value = "";
        if (file) await smeld.save.importShapes(s, file);
      }));
      $("take-theirs").addEventListener("click", attempt("", (s) => smeld.save.settle(s, false)));
      $("keep-mine").addEventListener("click", attempt("", (s) => smeld.save.settle(s, true)));
      $("save-again").addEventListener("click", attempt("", smeld.save.retry));
      show();
    },
  };
})();
