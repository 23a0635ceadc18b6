// What pages do besides htmx: they keep ticks over a repaint, and say when they are not live.
"use strict";
(() => {
  document.documentElement.classList.add("scripted");

  // A repaint replaces rows; what a person ticked stays ticked as long as its row is there.
  const ticked = new Set();
  const keep = (box) => {
    if (box.checked) ticked.add(box.id);
    else ticked.delete(box.id);
  };
  document.addEventListener("change", (event) => {
    const box = event.target;
    if (!(box instanceof HTMLInputElement) || box.type !== "checkbox" || !box.id) return;
    if (box.id !== "tick-all") {
      keep(box);
      return;
    }
    for (const one of document.querySelectorAll('input[type="checkbox"][name="item"]')) {
      one.checked = box.checked;
      keep(one);
    }
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const id of ticked) {
      const box = document.getElementById(id);
      if (box instanceof HTMLInputElement) box.checked = true;
    }
  });

  const say = (text) => {
    const live = document.getElementById("live");
    if (live && live.textContent !== text) live.textContent = text;
  };
  document.addEventListener("htmx:sseOpen", () => say("Live"));
  document.addEventListener("htmx:sseError", () => say("Not live at the moment; trying again"));

  // A problem of the server's is shown where the answer would have been.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { xhr } = event.detail;
    const isPage = (xhr.getResponseHeader("Content-Type") || "").startsWith("text/html");
    if (xhr.status >= 400 && isPage) event.detail.shouldSwap = true;
  });
})();
