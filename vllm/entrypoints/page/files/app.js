// The page: views, theme, language, and one look at the server a second.

import { changeLanguage, fill, word } from "./words.js";
import { json } from "./server.js";
import * as chat from "./chat.js";
import * as dashboard from "./dashboard.js";
import * as requests from "./requests.js";

const byId = (id) => document.getElementById(id);
const VIEWS = ["chat", "dashboard", "requests"];
let view = "chat";
let last = null;

function open(name) {
  view = VIEWS.includes(name) ? name : "chat";
  for (const one of VIEWS) {
    byId(one).hidden = one !== view;
    const tab = byId(`tab-${one}`);
    tab.setAttribute("aria-selected", one === view);
    tab.tabIndex = one === view ? 0 : -1;
  }
  if (location.hash !== `#${view}`) history.replaceState(null, "", `#${view}`);
  if (view === "chat") byId("prompt").focus();
  show();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("vllm-theme", name);
}

function tell(kind, said) {
  const status = byId("status");
  status.className = `status ${kind}`;
  status.textContent = said;
}

async function show() {
  if (!last) return;
  if (view === "dashboard") await dashboard.show(last).catch(() => {});
  if (view === "requests") requests.show(last);
}

async function look() {
  try {
    last = await json("/page/state");
    document.body.classList.remove("stale");
    dashboard.note(last);
    chat.useModel(last.models[0]);
    byId("model").textContent = last.models[0];
    byId("model").title = last.description;
    document.title = `${last.models[0]} · vllm`;
    if (last.is_draining) tell("", word("draining"));
    else if (last.engine) tell("good", word("ready"));
    else tell("", word("starting"));
    await show();
  } catch {
    tell("bad", word("lost"));
    document.body.classList.add("stale");
  }
  setTimeout(look, document.hidden ? 5000 : view === "chat" ? 3000 : 1000);
}

for (const one of VIEWS) byId(`tab-${one}`).addEventListener("click", () => open(one));
document.querySelector("nav").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  open(VIEWS[(VIEWS.indexOf(view) + step + VIEWS.length) % VIEWS.length]);
  byId(`tab-${view}`).focus();
});
document.addEventListener("keydown", (event) => {
  if (event.altKey && ["1", "2", "3"].includes(event.key)) {
    event.preventDefault();
    open(VIEWS[Number(event.key) - 1]);
  }
});
byId("theme").addEventListener("click", () => {
  theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  show();
});
byId("language").addEventListener("click", () => {
  changeLanguage();
  chat.redraw();
  show();
});
addEventListener("hashchange", () => open(location.hash.slice(1)));
addEventListener("resize", show);
theme(localStorage.getItem("vllm-theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
fill();
chat.start();
open(location.hash.slice(1) || "chat");
look();
// why: the browser goes to the fragment of the address once all is loaded, and takes the focus away with it
addEventListener("load", () => setTimeout(() => view === "chat" && byId("prompt").focus(), 50));
