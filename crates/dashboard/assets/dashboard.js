"use strict";

// Everything can be read without this file; it copies, narrows without a click, and keeps an open run up to date.

for (const form of document.querySelectorAll("[data-submit-on-change]")) {
  form.addEventListener("change", () => form.requestSubmit());
  const button = form.querySelector("button");
  if (button) button.hidden = true;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy-from]");
  if (!button) return;
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

// What a form asks for appears below it, on the page where it stands.
function ask(form, button) {
  const began = Date.now();
  const label = button.textContent;
  const wait = () => { button.textContent = `${((Date.now() - began) / 1000).toFixed(0)} s`; };
  const ticking = setInterval(wait, 1000);
  const body = new URLSearchParams(new FormData(form, button));
  for (const one of form.querySelectorAll("button")) one.disabled = true;
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.responseType = "document";
  request.onloadend = () => {
    clearInterval(ticking);
    button.textContent = label;
    for (const one of form.querySelectorAll("button")) one.disabled = false;
    const fresh = request.response?.querySelector("form[data-in-place]");
    if (fresh) {
      form.replaceWith(document.adoptNode(fresh));
      fresh.querySelector("[data-came]").scrollIntoView({ block: "nearest" });
    } else {
      const said = request.response?.querySelector(".door p:not(.trouble)")?.textContent;
      const signedOut = request.response?.querySelector("form[action='/dashboard/sign-in']");
      form.querySelector("[data-came]").textContent = signedOut
        ? "Your session has ended, and nothing was sent. Sign in in another tab, then send it once more."
        : said ? said
        : request.status
        ? `The server answered ${request.status}. Open this page again and look at the runs before you send it once more.`
        : "The connection broke. Look at the runs before you send it once more.";
    }
  };
  request.send(body);
}

document.addEventListener("submit", (event) => {
  if (!event.submitter || !event.target.matches("[data-in-place]")) return;
  event.preventDefault();
  ask(event.target, event.submitter);
});

document.addEventListener("keydown", (event) => {
  const form = event.target.closest?.("[data-in-place]");
  if (form && event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit(form.querySelector("button.primary"));
});

// A search that goes on while it is typed: the same words as the server looks for, in what the page has.
for (const form of document.querySelectorAll("[data-narrows]")) {
  const input = form.querySelector("input[type=search]");
  const all = document.getElementById(form.dataset.narrows);
  const narrow = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const group of all.querySelectorAll("[data-group]")) {
      const ones = [...group.querySelectorAll("[data-one]")];
      for (const one of ones) {
        const text = one.textContent.toLowerCase();
        one.hidden = !words.every((word) => text.includes(word));
        found += one.hidden ? 0 : 1;
      }
      group.hidden = ones.every((one) => one.hidden);
    }
    document.getElementById("found").textContent = `${found} ${found === 1 ? "operation" : "operations"}`;
  };
  // What the server has left out cannot be shown by narrowing.
  if (!new URLSearchParams(location.search).get(input.name)) {
    input.addEventListener("input", narrow);
    form.querySelector("button").hidden = true;
  }
}
if (location.hash) {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.localName === "details") target.open = true;
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

// What grows is followed: only that part is replaced, and whoever reads its end stays there.
function follow(seconds) {
  const atEnd = (pre) => pre && pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
  const last = () => document.querySelector("[data-follow] pre.log");
  const again = () => setTimeout(look, seconds * 1000);
  const look = () => {
    if (document.hidden || !getSelection().isCollapsed) return again();
    const request = new XMLHttpRequest();
    request.open("GET", location.href);
    request.responseType = "document";
    request.onloadend = () => {
      const fresh = request.status === 200 ? request.response?.querySelectorAll("[data-follow]") : null;
      const now = document.querySelectorAll("[data-follow]");
      if (!fresh || fresh.length !== now.length) return again();
      const [stays, top] = [atEnd(last()), last()?.scrollTop ?? 0];
      now.forEach((part, index) => {
        if (part.textContent !== fresh[index].textContent) part.replaceWith(document.adoptNode(fresh[index]));
      });
      const pre = last();
      if (pre) pre.scrollTop = stays ? pre.scrollHeight : top;
      if (Number(document.querySelector("[data-follow]:not([data-follow=''])").dataset.follow) > 0) again();
    };
    request.send();
  };
  const pre = last();
  if (pre) pre.scrollTop = pre.scrollHeight;
  if (seconds > 0) again();
}

const followed = document.querySelector("[data-follow]:not([data-follow=''])");
if (followed) follow(Number(followed.dataset.follow));
