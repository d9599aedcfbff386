/* What every other script uses: safe names, elements, numbers, keyboard lists. One global: smeld. */
"use strict";
window.smeld = window.smeld || {};
(() => {
  const smeld = window.smeld;
  const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;
  const BIDI = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

  /** Text of the data with control characters made visible; for <bdi> elements, which isolate its direction. */
  smeld.clean = (text) => {
    const said = String(text ?? "");
    return (said.toWellFormed ? said.toWellFormed() : said).replace(CONTROL, "\ufffd");
  };
  /** The same for places without elements (labels, titles, pictures): no characters that change direction. */
  smeld.plain = (text) => smeld.clean(text).replace(BIDI, "\ufffd");
  smeld.bdi = (text) => smeld.el("bdi", {}, smeld.clean(text));

  /** An element; children are elements or text, never markup. */
  smeld.el = (tag, props = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) {
      if (value === undefined || value === null || value === false) continue;
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (key === "class") made.className = value;
      else if (key === "style") for (const [k, v] of Object.entries(value)) made.style.setProperty(k, v);
      else if (key === "data") Object.assign(made.dataset, value);
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.flat().filter((c) => c !== null && c !== undefined));
    return made;
  };
  /** One of the icons of index.html. */
  smeld.icon = (name) => {
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), use = document.createElementNS(space, "use");
    svg.setAttribute("class", "icon");
    svg.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `#i-${name}`);
    svg.append(use);
    return svg;
  };
  smeld.$ = (id) => document.getElementById(id);
  smeld.clamp = (x, lo, hi) => Math.min(hi, Math.max(lo, x));

  smeld.count = (n) => Number(n).toLocaleString("en");
  /** What a point is: a spot (of several cells) or a cell. */
  smeld.unit = () => (smeld.app.active && smeld.app.active.unit) || "cell";
  smeld.many = (n) => `${smeld.count(n)} ${smeld.unit()}${n === 1 ? "" : "s"}`;
  /** A measured number in at most four figures. */
  smeld.number = (x) => {
    if (x === null || x === undefined || Number.isNaN(x)) return "–";
    const size = Math.abs(x);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return x.toExponential(1).replace("e-", "e\u2212").replace("e+", "e");
    return String(Number(x.toPrecision(size >= 1000 ? 6 : 3)));
  };

  /** Who wants to know of what; smeld.on("colour", f), smeld.say("colour"). */
  const listeners = new Map();
  smeld.on = (what, f) => listeners.set(what, [...(listeners.get(what) || []), f]);
  smeld.say = (what, ...facts) => (listeners.get(what) || []).forEach((f) => f(...facts));

  /** The status line, read out by screen readers. */
  smeld.status = (text) => {
    const line = smeld.$("status");
    if (line) line.textContent = smeld.plain(text);
  };
  smeld.errors = [];
  smeld.failed = (what, error) => {
    smeld.errors.push(`${what}: ${error && error.message ? error.message : error}`);
    smeld.status(`${what}: ${error && error.message ? error.message : error}`);
  };
  addEventListener("error", (e) => smeld.errors.push(String(e.message)));
  addEventListener("unhandledrejection", (e) => smeld.errors.push(String(e.reason)));

  /** Arrow keys move through a list of which one item is in the order of Tab. */
  smeld.roving = (list, selector) => {
    const items = () => [...list.querySelectorAll(selector)].filter((e) => !e.disabled && e.offsetParent !== null);
    const take = (item) => {
      list.querySelectorAll(selector).forEach((e) => { e.tabIndex = e === item ? 0 : -1; });
    };
    list.addEventListener("keydown", (e) => {
      const all = items(), at = all.indexOf(e.target.closest(selector));
      const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[e.key];
      const to = e.key === "Home" ? 0 : e.key === "End" ? all.length - 1 : step && at >= 0 ? (at + step + all.length) % all.length : -1;
      if (to < 0 || e.ctrlKey || e.metaKey || e.target.matches("input")) return;
      e.preventDefault();
      e.stopPropagation();
      take(all[to]);
      all[to].focus();
    });
    list.addEventListener("focusin", (e) => {
      const item = e.target.closest(selector);
      if (item) take(item);
    });
    return () => {
      const all = items();
      if (!all.some((e) => e.tabIndex === 0)) take(all.find((e) => e.getAttribute("aria-selected") === "true") || all[0]);
      else take(all.find((e) => e.tabIndex === 0));
    };
  };
})();
