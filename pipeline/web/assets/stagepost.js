// Liveness, and nothing else: every page works without it. Parts marked data-live are taken anew from the same
// address every few seconds, unless somebody is using them.
"use strict";
(() => {
  const EVERY_MS = 2500;
  const parts = () => document.querySelectorAll("[data-live]");
  let failed = 0;

  function inUse(part) {
    return part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea, button");
  }

  function keepOpen(from, to) {
    for (const open of from.querySelectorAll("details[open][id]")) {
      const same = to.querySelector(`#${CSS.escape(open.id)}`);
      if (same) same.open = true;
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
    if (document.hidden || !parts().length) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(8000) });
      if (!answer.ok || answer.redirected) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of parts()) {
        const fresh = page.querySelector(`[data-live="${CSS.escape(part.dataset.live)}"]`);
        if (!fresh || inUse(part) || fresh.innerHTML === part.innerHTML) continue;
        keepOpen(part, fresh);
        part.replaceWith(document.importNode(fresh, true));
      }
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
