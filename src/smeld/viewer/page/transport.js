/* Where data comes from: a server, scripts beside an exported page, or the page itself. */
"use strict";
(() => {
  const smeld = window.smeld;
  const coming = new Map(); // address -> promise of what its script brings
  smeld.held = smeld.held || {};
  const exported = () => document.getElementById("worker") !== null;

  const bytes = (text) => {
    const raw = atob(text), made = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) made[i] = raw.charCodeAt(i);
    return made.buffer;
  };
  const opened = (address, content) => {
    if (typeof content !== "string") return content;
    if (!address.endsWith("json")) return bytes(content);
    return JSON.parse(/^\s*[[{]/.test(content) ? content : new TextDecoder().decode(bytes(content)));
  };

  /** Called by the scripts of an export. */
  smeld.arrived = (address, content) => {
    smeld.held[address] = content;
  };

  const byScript = (address) => new Promise((done, fail) => {
    const script = smeld.el("script", { src: `data/${address.replaceAll("/", "_")}.js` });
    script.onerror = () => fail(new Error("not part of this export"));
    script.onload = () => {
      script.remove();
      const content = smeld.held[address];
      delete smeld.held[address]; // what is needed again is read again
      if (content === undefined) fail(new Error("not part of this export"));
      else done(content);
    };
    document.head.append(script);
  }).finally(() => coming.delete(address));

  const fromExport = async (address) => {
    if (address in smeld.held) return opened(address, smeld.held[address]);
    if (smeld.single) throw new Error("not part of this export");
    if (!coming.has(address)) coming.set(address, byScript(address));
    return opened(address, await coming.get(address));
  };

  const said = async (answer) => {
    const text = (await answer.text()).slice(0, 300);
    return new Error(text.trim().startsWith("<") || !text ? `the server answered ${answer.status}` : text);
  };
  const fromServer = async (address) => {
    const answer = await fetch(address, { credentials: "same-origin" });
    if (!answer.ok) throw await said(answer);
    return address.endsWith("json") ? answer.json() : answer.arrayBuffer();
  };

  smeld.transport = {
    get exported() { return exported(); },
    get: (address) => (exported() ? fromExport(address) : fromServer(address)),
    /** Write to the server: {status, body}. */
    send: async (method, address, body, type = "application/json") => {
      const answer = await fetch(address, { method, body, credentials: "same-origin", headers: { "Content-Type": type } });
      if (!answer.ok && answer.status !== 409) throw await said(answer);
      return { status: answer.status, body: await answer.json() };
    },
    worker: () => {
      if (!exported()) return new Worker("page/worker.js");
      const text = document.getElementById("worker").textContent;
      return new Worker(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
    },
  };
})();
