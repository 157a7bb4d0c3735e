// Adds what arrives to the page. Everything a stranger wrote becomes a text node or an attribute of
// our own choosing; no string is ever parsed as markup (the page's policy would refuse it).
"use strict";

const SHOWN_MAX = 100;
const RETRY_AFTER_MS = 5000;
// Strings (keys are told apart by the colon behind them), numbers, words.
const JSON_TOKEN = /("(?:[^"\\]|\\.)*")(\s*:)?|-?\d[\d.eE+-]*|\b(?:true|false|null)\b/g;

const main = document.querySelector("main");
const list = document.getElementById("requests");
const title = document.title;
let last = null;
let unseen = 0;

/* Looks */

function localTime(time) {
  const at = new Date(time.dateTime);
  if (Number.isNaN(at.getTime())) return;
  time.title = time.dateTime;
  const today = at.toDateString() === new Date().toDateString();
  const date = today ? "" : at.toLocaleDateString([], { day: "numeric", month: "short" }) + ", ";
  time.textContent = date + at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function highlight(article) {
  const pre = article.querySelector('[data-kind="json"] > pre');
  if (!pre || pre.childElementCount) return;
  const text = pre.textContent;
  const nodes = [];
  let end = 0;
  const add = (kind, piece) => {
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = piece;
    nodes.push(span);
  };
  for (const match of text.matchAll(JSON_TOKEN)) {
    nodes.push(text.slice(end, match.index));
    if (!match[1]) add("number", match[0]);
    else if (!match[2]) add("string", match[1]);
    else {
      add("key", match[1]);
      nodes.push(match[2]);
    }
    end = match.index + match[0].length;
  }
  nodes.push(text.slice(end));
  pre.replaceChildren(...nodes);
}

function dress(article) {
  article.querySelectorAll("time").forEach(localTime);
  const fold = article.querySelector("details.fold");
  if (!fold || fold.open) highlight(article);
}

/* Arrivals */

function build(request) {
  const article = document.getElementById("blank").content.cloneNode(true).querySelector("article");
  const field = (name) => article.querySelector(`[data-field="${name}"]`);
  for (const name of ["method", "path", "badge", "size", "time", "detail", "body", "note", "headerCount", "curl", "sequence"]) {
    field(name).textContent = request[name];
  }
  article.dataset.sequence = request.sequence;
  article.querySelectorAll("[data-verdict]").forEach((node) => (node.dataset.verdict = request.verdict));
  article.querySelector("[data-kind]").dataset.kind = request.kind;
  field("time").dateTime = request.at;
  field("download").setAttribute("href", request.download);
  field("open").setAttribute("href", request.open);
  if (request.image) {
    field("image").setAttribute("src", request.image);
    field("image").hidden = false;
  }
  for (const [name, value] of request.headers) {
    const row = document.createElement("div");
    row.append(document.createElement("dt"), document.createElement("dd"));
    row.firstChild.textContent = name;
    row.lastChild.textContent = value;
    field("headers").append(row);
  }
  return article;
}

function arrive(request) {
  if (list.querySelector(`[data-sequence="${Number(request.sequence)}"]`)) return;
  const previous = list.querySelector("article");
  const article = build(request);
  article.classList.add("fresh");
  // The newest lies open, unless the reader has opened or closed something.
  if (!list.dataset.touched) {
    if (previous) previous.querySelector("details.fold").open = false;
    article.querySelector("details.fold").open = true;
  }
  list.prepend(article);
  dress(article);
  document.getElementById("empty").hidden = true;
  document.getElementById("search").hidden = false;
  while (list.children.length > SHOWN_MAX) list.lastElementChild.remove();
  if (document.hidden) document.title = `(${++unseen}) ${title}`;
}

function state(name, words) {
  const live = document.getElementById("live");
  live.dataset.state = name;
  live.textContent = words;
}

function listen() {
  const address = new URL(main.dataset.events, location.href);
  if (last !== null) address.searchParams.set("after", last);
  const source = new EventSource(address);
  source.onopen = () => state("on", "live");
  source.onmessage = (event) => {
    last = event.lastEventId;
    arrive(JSON.parse(event.data));
  };
  source.addEventListener("gone", (event) => {
    source.close();
    state("gone", event.data === "ended" ? "this address has ended" : "this inbox was deleted");
  });
  source.onerror = () => {
    state("off", "connecting…");
    // A browser gives up by itself after an answer other than 200.
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, RETRY_AFTER_MS);
  };
}

/* Copying */

async function copy(button, source) {
  const words = button.textContent;
  let done = "Copied";
  try {
    await navigator.clipboard.writeText(source.textContent);
  } catch {
    // Over plain HTTP browsers have no clipboard for pages: leave the text selected.
    const fold = source.closest("details");
    if (fold) fold.open = true;
    getSelection().selectAllChildren(source);
    done = "Selected: press Ctrl+C";
  }
  button.textContent = done;
  button.disabled = true;
  setTimeout(() => {
    button.textContent = words;
    button.disabled = false;
  }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) {
    if (list && event.target.closest("details.fold > summary")) list.dataset.touched = "yes";
  } else if (button.dataset.copyFrom) {
    copy(button, document.getElementById(button.dataset.copyFrom));
  } else if (button.dataset.copy) {
    copy(button, button.closest("article").querySelector(`[data-field="${button.dataset.copy}"]`));
  }
});

document.addEventListener("toggle", (event) => {
  const article = event.target.closest("article");
  if (article && event.target.open) highlight(article);
}, true);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unseen = 0;
  document.title = title;
});

document.querySelectorAll("article").forEach(dress);
document.querySelectorAll(".about time").forEach(localTime);
if (main.dataset.events) listen();
