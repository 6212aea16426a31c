// Liveness, and nothing else: every page works without it. Parts marked data-live are taken anew from the same
// address every few seconds and changed in place, so that focus, selection, scrolling and what a screen reader
// follows stay where they are.
"use strict";
(() => {
  const EVERY_MS = 2500;
  let failed = 0;

  // What a node is: what has another name is another thing, and is not turned into it.
  function name(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return node.nodeName;
    const own = node.id || node.dataset.key || (node.nodeName === "FORM" ? node.getAttribute("action") : "");
    return `${node.nodeName} ${own}`;
  }

  function isInUse(node) {
    return node.nodeName === "FORM" && node.contains(document.activeElement);
  }

  function renew(node, fresh) {
    if (node.nodeType !== Node.ELEMENT_NODE) {
      if (node.data !== fresh.data) node.data = fresh.data;
      return;
    }
    if (isInUse(node) || node.isEqualNode(fresh)) return;
    for (const given of fresh.attributes) {
      if (node.getAttribute(given.name) !== given.value) node.setAttribute(given.name, given.value);
    }
    for (const had of [...node.attributes]) {
      const isTheirs = node.nodeName === "DETAILS" && had.name === "open";
      if (!isTheirs && !fresh.hasAttribute(had.name)) node.removeAttribute(had.name);
    }
    renewChildren(node, fresh);
  }

  function renewChildren(node, fresh) {
    const old = new Map();
    for (const child of node.childNodes) {
      const same = old.get(name(child));
      if (same) same.push(child);
      else old.set(name(child), [child]);
    }
    const pairs = [...fresh.childNodes].map((child) => [old.get(name(child))?.shift(), child]);
    for (const left of old.values()) left.forEach((child) => child.remove());
    let at = node.firstChild;
    for (const [found, child] of pairs) {
      if (found) renew(found, child);
      const wanted = found ?? document.importNode(child, true);
      if (wanted === at) at = at.nextSibling;
      else node.insertBefore(wanted, at);
    }
  }

  function stale(is) {
    let note = document.getElementById("stale");
    if (is && !note) {
      note = document.createElement("div");
      note.id = "stale";
      note.className = "stale";
      note.setAttribute("role", "status");
      note.textContent = "The worker does not answer: what you see is not fresh.";
      document.body.prepend(note);
    } else if (!is && note) {
      note.remove();
    }
  }

  async function refresh() {
    if (document.hidden || !document.querySelector("main [data-live]")) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(8000) });
      if (!answer.ok || answer.redirected) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const focused = document.activeElement;
      for (const part of document.querySelectorAll("[data-live]")) {
        const fresh = page.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
        if (fresh) renew(part, fresh);
      }
      if (focused?.isConnected) focused.focus({ preventScroll: true });
      failed = 0;
    } catch {
      failed += 1;
    }
    stale(failed > 1);
  }

  async function run() {
    await refresh();
    setTimeout(run, EVERY_MS);
  }
  setTimeout(run, EVERY_MS);
})();
