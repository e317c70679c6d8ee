// The chat view: turns, streaming, stop, settings, and the probabilities of tokens.

import { word } from "./words.js";
import { events } from "./server.js";

const byId = (id) => document.getElementById(id);
const SETTINGS = ["system", "temperature", "top_p", "top_k", "max_tokens", "seed", "logprobs"];
const turns = []; // {role, content}
let model = null;
let running = null; // AbortController of the answer in the making

export function useModel(name) {
  model = name;
}

export function start() {
  const form = byId("ask");
  const prompt = byId("prompt");
  restore();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(prompt.value);
  });
  prompt.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask(prompt.value);
    }
  });
  prompt.addEventListener("input", grow);
  byId("stop").addEventListener("click", stop);
  byId("clear").addEventListener("click", clear);
  document.addEventListener("keydown", (event) => event.key === "Escape" && stop());
  for (const name of SETTINGS) byId(name).addEventListener("change", keep);
  for (const kind of ["pointerover", "focusin"]) byId("log").addEventListener(kind, showTip);
  for (const kind of ["pointerout", "focusout"]) byId("log").addEventListener(kind, () => (byId("tip").hidden = true));
  welcome();
}

export function welcome() {
  if (turns.length) return;
  const room = document.createElement("div");
  room.className = "empty";
  room.append(Object.assign(document.createElement("p"), { textContent: word("hello") }));
  for (const example of word("examples")) {
    const button = Object.assign(document.createElement("button"), { textContent: example, type: "button" });
    button.addEventListener("click", () => ask(example));
    room.append(button);
  }
  byId("log").replaceChildren(room);
}

function grow() {
  const prompt = byId("prompt");
  prompt.style.height = "auto";
  prompt.style.height = `${Math.min(prompt.scrollHeight + 2, 190)}px`;
}

function keep() {
  const kept = Object.fromEntries(SETTINGS.map((name) => [name, name === "logprobs" ? byId(name).checked : byId(name).value]));
  localStorage.setItem("vllm-settings", JSON.stringify(kept));
}

function restore() {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem("vllm-settings")) || {};
  } catch { /* a broken entry counts as none */ }
  for (const name of SETTINGS) {
    if (name === "logprobs") byId(name).checked = Boolean(kept[name]);
    else byId(name).value = kept[name] ?? "";
  }
}

function stop() {
  running?.abort();
}

function clear() {
  stop();
  turns.length = 0;
  welcome();
  byId("prompt").focus();
}

function options() {
  const set = { model, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "seed"]) {
    if (byId(name).value !== "") set[name] = Number(byId(name).value);
  }
  if (byId("logprobs").checked) Object.assign(set, { logprobs: true, top_logprobs: 5 });
  const system = byId("system").value.trim();
  set.messages = [...(system ? [{ role: "system", content: system }] : []), ...turns];
  return set;
}

async function ask(said) {
  if (running || !said.trim()) return;
  const log = byId("log");
  if (!turns.length) log.replaceChildren();
  byId("prompt").value = "";
  grow();
  turns.push({ role: "user", content: said });
  makeTurn("user", word("you")).text.textContent = said;
  const turn = makeTurn("assistant", word("model"));
  running = new AbortController();
  setBusy(true);
  const began = performance.now();
  let content = "", thought = "", calls = "", first = 0, usage = null, reason = null;
  try {
    for await (const event of events("/v1/chat/completions", { body: options(), signal: running.signal })) {
      usage = event.usage || usage;
      for (const choice of event.choices) {
        first ||= performance.now();
        const delta = choice.delta || {};
        thought += delta.reasoning ?? delta.reasoning_content ?? "";
        for (const call of delta.tool_calls || []) calls += `${call.function?.name ? `${calls && "\n"}${call.function.name} ` : ""}${call.function?.arguments || ""}`;
        const plain = delta.content || "";
        content += plain;
        reason = choice.finish_reason || reason;
        if (plain) addText(turn.text, plain, choice.logprobs?.content);
      }
      showAside(turn, thought, calls);
      stayBelow(log);
    }
    finish(turn.text, content);
  } catch (error) {
    if (error.name !== "AbortError") {
      turn.text.classList.add("failed");
      turn.text.textContent = error.message;
      turns.pop();
    } else reason = "stopped";
  }
  if (content) turns.push({ role: "assistant", content });
  const seconds = (performance.now() - (first || began)) / 1000;
  const tokens = usage?.completion_tokens;
  const notes = tokens ? [word("footer", tokens, seconds.toFixed(1), (tokens / Math.max(seconds, 0.001)).toFixed(0))] : [];
  if (reason === "length") notes.push(word("cut"));
  if (reason === "stopped") notes.push(word("stopped"));
  turn.foot.textContent = notes.join(" · ");
  running = null;
  setBusy(false);
  stayBelow(log);
  byId("prompt").focus();
}

function setBusy(is) {
  byId("send").hidden = is;
  byId("stop").hidden = !is;
}

function stayBelow(log) {
  log.scrollTop = log.scrollHeight;
}

function makeTurn(kind, who) {
  const turn = document.createElement("article");
  turn.className = `turn ${kind}`;
  const make = (name) => turn.appendChild(Object.assign(document.createElement("div"), { className: name }));
  make("who").textContent = who;
  const aside = make("aside");
  const made = { aside, text: make("text"), foot: make("foot") };
  byId("log").append(turn);
  return made;
}

// What the model thought, and the tools it called, each in a fold of its own.
function showAside(turn, thought, calls) {
  for (const [name, said] of [["thought", thought], ["call", calls]]) {
    if (!said) continue;
    let fold = turn.aside.querySelector(`[data-kind=${name}]`);
    if (!fold) {
      fold = document.createElement("details");
      fold.dataset.kind = name;
      fold.open = true;
      fold.append(Object.assign(document.createElement("summary"), { textContent: word(name) }), document.createElement("div"));
      turn.aside.append(fold);
    }
    fold.lastChild.textContent = said;
  }
}

// New text: as it is, or token by token with what else was likely.
function addText(room, plain, tokens) {
  if (!tokens?.length) {
    room.append(plain);
    return;
  }
  for (const token of tokens) {
    const span = document.createElement("span");
    const chance = Math.exp(token.logprob);
    span.className = `token ${chance > 0.9 ? "" : chance > 0.5 ? "p1" : chance > 0.1 ? "p2" : "p3"}`;
    span.textContent = token.token;
    span.tabIndex = 0;
    span.dataset.tip = [[token.token, token.logprob], ...(token.top_logprobs || []).filter((other) => other.token !== token.token).map((other) => [other.token, other.logprob])]
      .map(([piece, logprob]) => `${(Math.exp(logprob) * 100).toFixed(1).padStart(5)} %  ${JSON.stringify(piece)}`)
      .join("\n");
    room.append(span);
  }
}

// Code between ``` stands in boxes, once the answer is whole and has no spans of its own.
function finish(room, content) {
  if (!content.includes("```") || room.querySelector(".token")) return;
  room.replaceChildren(...content.split(/```[^\n`]*\n?/).map((piece, at) => {
    if (at % 2 === 0) return document.createTextNode(piece);
    return Object.assign(document.createElement("pre"), { textContent: piece.replace(/\n$/, "") });
  }));
}

function showTip(event) {
  const said = event.target.dataset?.tip;
  const tip = byId("tip");
  tip.hidden = !said;
  if (!said) return;
  tip.textContent = said;
  const at = event.target.getBoundingClientRect();
  const below = at.bottom + tip.offsetHeight + 8 < innerHeight;
  tip.style.left = `${Math.max(4, Math.min(at.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? at.bottom + 4 : at.top - tip.offsetHeight - 4}px`;
}
