/* Points drawn by a graphics card, by the same rules as the worker draws them: the paint decides what lies on top. */
"use strict";
(() => {
  const smeld = window.smeld;
  const VERTEX = `#version 300 es
    in vec2 place; in float paint;
    uniform vec3 view; uniform vec2 origin; uniform vec2 size; uniform float wide; uniform bool round; uniform uint top;
    uniform sampler2D table; flat out vec4 colour;
    void main() {
      uint v = uint(paint + 0.5);
      colour = texelFetch(table, ivec2(int(v & 255u), int(v >> 8)), 0);
      vec2 at = (place - origin) * view.x + view.yz; // from a place in view: single precision would not do otherwise
      if (!round) at = floor(at + 0.5 - 0.5 * wide) + 0.5 * wide; // whole pixels, whatever the card rounds to
      at /= size;
      float depth = float(v & top) / 65536.0;
      gl_Position = v == 0u ? vec4(2.0, 2.0, 2.0, 1.0) : vec4(at.x * 2.0 - 1.0, 1.0 - at.y * 2.0, 1.0 - 2.0 * depth, 1.0);
      gl_PointSize = wide;
    }`;
  // edges are drawn in a second pass, over the cores of all discs
  const FRAGMENT = `#version 300 es
    precision highp float;
    flat in vec4 colour; uniform float radius; uniform float rim; uniform float wide; uniform bool round; uniform bool edges; out vec4 shown;
    void main() {
      float cover = 1.0, white = 0.0;
      if (round) {
        float away = length((gl_PointCoord - 0.5) * wide);
        cover = clamp(radius + 0.5 - away, 0.0, 1.0);
        if (rim > 0.0) white = 0.85 * clamp(radius + rim + 0.5 - away, 0.0, 1.0);
        if (edges ? max(cover, white) <= 0.0 || cover >= 1.0 : cover < 1.0) discard;
      }
      float a = colour.a * cover, w = edges ? colour.a * white * (1.0 - a) : 0.0;
      shown = vec4(colour.rgb * a + w, a + w);
    }`;

  const program = (gl) => {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
    return made;
  };

  const buffer = (gl, where, array, parts, kind) => {
    const made = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.bufferData(gl.ARRAY_BUFFER, array, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(where);
    gl.vertexAttribPointer(where, parts, kind, false, 0, 0);
    return made;
  };

  /** Draws on a canvas of its own; `load` takes what the worker answers to "points". */
  smeld.GlPoints = class {
    constructor(canvas) {
      this.canvas = canvas;
      const gl = canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true, preserveDrawingBuffer: true });
      if (!gl) throw new Error("this browser has no WebGL2");
      this.gl = gl;
      this.program = program(gl);
      gl.useProgram(this.program);
      this.at = (name) => gl.getUniformLocation(this.program, name);
      this.texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, this.texture);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
      this.n = 0;
      canvas.addEventListener("webglcontextlost", (e) => {
        e.preventDefault();
        if (!this.released) smeld.say("lost");
      });
    }

    /** For a canvas where the graphics card is used; null: the worker draws. */
    static on(canvas) {
      try {
        return smeld.renderer === "webgl2" ? new smeld.GlPoints(canvas) : null;
      } catch {
        smeld.renderer = "cpu";
        return null;
      }
    }

    load({ xs, ys, paint, lut, order }) {
      const gl = this.gl, places = new Float32Array(2 * xs.length);
      for (let i = 0; i < xs.length; i++) {
        places[2 * i] = xs[i];
        places[2 * i + 1] = ys[i];
      }
      for (const old of [this.places, this.paint]) if (old) gl.deleteBuffer(old);
      this.places = buffer(gl, gl.getAttribLocation(this.program, "place"), places, 2, gl.FLOAT);
      this.paint = buffer(gl, gl.getAttribLocation(this.program, "paint"), paint, 1, gl.UNSIGNED_SHORT);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 256, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(lut.buffer));
      gl.uniform1ui(this.at("top"), order);
      this.n = xs.length;
    }

    draw({ scale, x, y, radius, rim = 0 }) {
      const gl = this.gl, { width, height } = this.canvas, d = Math.max(1, Math.round(2 * radius)), round = d > 3;
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clearDepth(1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      const near = [(width / 2 - x) / scale, (height / 2 - y) / scale].map(Math.fround);
      gl.uniform2f(this.at("origin"), ...near);
      gl.uniform3f(this.at("view"), scale, x + near[0] * scale, y + near[1] * scale);
      gl.uniform2f(this.at("size"), width, height);
      gl.uniform1f(this.at("radius"), radius);
      const white = this.n > 60000 ? 0 : rim; // as in the worker
      gl.uniform1f(this.at("rim"), white);
      gl.uniform1f(this.at("wide"), round ? 2 * Math.ceil(radius + white + 0.5) + 1 : d);
      gl.uniform1i(this.at("round"), round ? 1 : 0);
      gl.enable(gl.DEPTH_TEST);
      gl.depthFunc(gl.LEQUAL);
      this.pass(0);
      if (round) this.pass(1);
    }

    pass(edges) {
      const gl = this.gl;
      gl.uniform1i(this.at("edges"), edges);
      gl.depthMask(!edges);
      if (edges) {
        gl.enable(gl.BLEND);
        gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      } else gl.disable(gl.BLEND);
      gl.drawArrays(gl.POINTS, 0, this.n);
      gl.depthMask(true);
    }

    release() {
      this.released = true;
      const lose = this.gl.getExtension("WEBGL_lose_context");
      if (lose) lose.loseContext();
    }
  };
})();
