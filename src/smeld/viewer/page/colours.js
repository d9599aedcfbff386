/* Colours: categories that colour-blind readers can tell apart, and three maps of numbers. */
"use strict";
(() => {
  const smeld = window.smeld;
  // 33 colours of each map at equal steps, linear between them
  const MAPS = {
    viridis:
      "440154470d6048186a482374472d7b4537814240863e49893b528b375b8d33638d2f6b8e2c728e297a8e26828e23898e21918c" +
      "1f988b1fa08822a78528ae8032b67a3fbc734ec36b5ec96270cf5784d44b98d83eaddc30c2df23d8e219ece51bfde725",
    cividis:
      "00224e00285b002e6a0533711a386f273e6e32436d3b496c434e6c4b546c535a6d5a5f6e61656f686a716f70737676767d7c78" +
      "8482798c8878938e789b9476a39a74aba072b4a76fbcae6cc4b468cdbb63d5c25edec958e7d150f0d846f9e03afee838",
    magma:
      "0000040303120a0822130d341d114729115a36106b440f7651127c5d177f6a1c81762181832681902a819c2e7faa337db73779" +
      "c43c75d0416fdc4869e75263ef5d5ef56b5cf9795dfc8961fd9869fea772feb67cfec488fed395fde2a3fcf0b2fcfdbf",
  };
  // Okabe & Ito (2008), then colours that stay apart from those before in normal vision and three colour deficiencies
  const CATEGORIES = (
    "0072B2E69F00009E73CC79A756B4E9D55E00F0E442333333841E0E0F1DB87758643CE4887C1668746B44737CF9355538" +
    "26F7FDF7A9B7616A8390A6605F8680A14500D410B2AEECDC"
  ).match(/.{6}/g).map((c) => `#${c}`);
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  /** As the pixels of a canvas hold it: bytes red, green, blue, alpha. */
  const packed = ([r, g, b]) => (0xff000000 | (Math.round(b) << 16) | (Math.round(g) << 8) | Math.round(r)) >>> 0;

  const mapAt = (name, t) => {
    const at = t * 32, k = Math.min(31, Math.floor(at)), hex = MAPS[name];
    const a = rgb(`#${hex.slice(6 * k, 6 * k + 6)}`), b = rgb(`#${hex.slice(6 * k + 6, 6 * k + 12)}`);
    return a.map((v, i) => v + (b[i] - v) * (at - k));
  };
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  const css = (c) => `rgb(${c.map(Math.round).join(" ")})`;

  smeld.colours = {
    maps: Object.keys(MAPS),
    category: (i) => {
      if (i < CATEGORIES.length) return CATEGORIES[i];
      const hue = (i * 137.508) % 360, light = 0.45 + 0.2 * ((i >> 1) % 2); // golden angle
      const part = (n) => light - 0.45 * Math.min(light, 1 - light) * Math.max(-1, Math.min((n + hue / 30) % 12 - 3, 9 - ((n + hue / 30) % 12), 1));
      return `#${[0, 8, 4].map((n) => Math.round(255 * part(n)).toString(16).padStart(2, "0")).join("")}`;
    },
    valid: (hex) => (/^#[0-9a-f]{6}$/i.test(hex) ? hex : "#888888"),
    /** A category's colour on this page: what is all but black becomes grey where the page is dark. */
    seen: (hex) => (dark() && rgb(hex).every((v) => v < 70) ? `#${rgb(hex).map((v) => (v + 140).toString(16)).join("")}` : hex),
    missing: () => (dark() ? "#39424d" : "#d9d9d9"),
    at: (name, t) => css(mapAt(name, smeld.clamp(t, 0, 1))),
    /** A table for the worker: [0, missing, 256 steps]. */
    ofNumbers: (name) => Uint32Array.from([0, packed(rgb(smeld.colours.missing())), ...Array.from({ length: 256 }, (_, i) => packed(mapAt(name, i / 255)))]),
    ofCategories: (hexes) => Uint32Array.from([0, packed(rgb(smeld.colours.missing())), ...hexes.map((h) => packed(rgb(smeld.colours.valid(h))))]),
    gradient: (name) => `linear-gradient(to right, ${Array.from({ length: 17 }, (_, i) => css(mapAt(name, i / 16))).join(", ")})`,
  };
})();
