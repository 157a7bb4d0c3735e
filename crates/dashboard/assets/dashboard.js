"use strict";

// Everything can be read without this file; it copies, narrows without a click, and keeps an open run up to date.

for (const form of document.querySelectorAll("[data-submit-on-change]")) {
  form.addEventListener("change", () => form.requestSubmit());
  const button = form.querySelector("button");
  if (button) button.hidden = true;
}

for (const button of document.querySelectorAll("[data-copy-from]")) {
  button.addEventListener("click", async () => {
    const from = document.getElementById(button.dataset.copyFrom);
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(from.textContent.trim());
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(from);
      button.textContent = "Selected; press Ctrl+C";
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  });
}

const open = document.querySelector("[data-look-every]");
const every = open ? Number(open.dataset.lookEvery) * 1000 : 0;
if (every > 0) {
  const look = () => {
    // Whoever looks elsewhere, reads a detail or has something selected is not disturbed.
    const busy = document.hidden || document.querySelector("details[open]") || !getSelection().isCollapsed;
    if (busy) setTimeout(look, every);
    else location.reload();
  };
  setTimeout(look, every);
}
