/* The binary files of the server: magic, header as JSON, arrays at multiples of eight bytes. */
"use strict";
(() => {
  const smeld = window.smeld;
  const MAGIC = [0x53, 0x4d, 0x45, 0x4c, 0x44, 0, 1, 0];
  const TYPES = {
    float32: Float32Array, float64: Float64Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array,
  };

  /** {header, name of an array: typed array, ...}; the arrays are views of the buffer. */
  smeld.unpack = (buffer) => {
    const start = new Uint8Array(buffer, 0, 8);
    if (MAGIC.some((b, i) => start[i] !== b)) throw new Error("not a file of this viewer");
    const length = new DataView(buffer).getUint32(8, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 12, length)));
    const found = { header };
    for (const a of header.arrays) {
      const size = a.shape.reduce((x, y) => x * y, 1);
      found[a.name] = new TYPES[a.dtype](buffer, 12 + length + a.offset, size);
    }
    return found;
  };

  /** The one array of a file in which every cell has a value: sparse files are filled up with zeros. */
  smeld.dense = (buffer, n) => {
    const file = smeld.unpack(buffer);
    const sparse = file.header.kind === "sparse", full = sparse ? new Float32Array(n) : file.values || file[file.header.arrays[0].name];
    full.stored = file.header.stored; // of pairs: false where the score is made on the spot
    if (!sparse) return full;
    const { index, values } = file;
    for (let i = 0; i < index.length; i++) full[index[i]] = values[i];
    return full;
  };
})();
