// The chat view: the conversation, its streams, stop, try again, and settings.

import { word } from "./words.js";
import { events, ServerError } from "./server.js";
import { Turn } from "./turn.js";

const byId = (id) => document.getElementById(id);
const CHECKS = ["logprobs", "think"];
const SETTINGS = ["system", "temperature", "top_p", "top_k", "max_tokens", "seed", "tools", ...CHECKS];
let turns = []; // messages as the server takes them
let model = null;
let running = null; // AbortController of the answer in the making
let newest = null; // the last answer on the page

export function useModel(name) {
  model = name;
}

export function start() {
  const form = byId("ask"), prompt = byId("prompt"), log = byId("log");
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
  byId("down").addEventListener("click", () => stayBelow(true));
  document.addEventListener("keydown", (event) => event.key === "Escape" && stop());
  for (const name of SETTINGS) byId(name).addEventListener("change", keep);
  for (const kind of ["pointerover", "focusin"]) log.addEventListener(kind, showTip);
  for (const kind of ["pointerout", "focusout"]) log.addEventListener(kind, () => (byId("tip").hidden = true));
  log.addEventListener("keydown", walk);
  log.addEventListener("scroll", () => (byId("down").hidden = isBelow()));
  addEventListener("beforeunload", remember);
  redraw();
}

// Every turn again, after a reload or in another language.
export function redraw() {
  const log = byId("log");
  if (running) return;
  log.replaceChildren();
  newest = null;
  if (!turns.length) welcome();
  for (const one of turns) {
    const turn = new Turn(log, one.role === "assistant" ? "assistant" : "user", who(one.role));
    if (one.role !== "assistant") {
      turn.say(one.content);
      continue;
    }
    turn.think(one.reasoning_content, true);
    turn.call(one.tool_calls ?? []);
    if (one.content) turn.add(one.content);
    turn.end([]);
    newest = turn;
  }
  if (turns.at(-1)?.role === "assistant") newest.end([], retry);
  invite();
  stayBelow(true);
}

function who(role) {
  return word({ assistant: "model", tool: "result" }[role] ?? "you");
}

function welcome() {
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
  const kept = Object.fromEntries(SETTINGS.map((name) => [name, CHECKS.includes(name) ? byId(name).checked : byId(name).value]));
  localStorage.setItem("vllm-settings", JSON.stringify(kept));
}

function kept(store, name) {
  try {
    return JSON.parse(store.getItem(name));
  } catch {
    return null; // a broken entry counts as none
  }
}

function restore() {
  const settings = kept(localStorage, "vllm-settings") ?? {};
  for (const name of SETTINGS) {
    if (CHECKS.includes(name)) byId(name).checked = Boolean(settings[name]);
    else byId(name).value = settings[name] ?? "";
  }
  const told = kept(sessionStorage, "vllm-chat");
  turns = Array.isArray(told) ? told : [];
}

function remember() {
  try {
    sessionStorage.setItem("vllm-chat", JSON.stringify(turns));
  } catch { /* no room: the conversation lives as long as the page */ }
}

function stop() {
  running?.abort();
}

function clear() {
  stop();
  turns = [];
  remember();
  byId("log").replaceChildren();
  welcome();
  invite();
  byId("prompt").focus();
}

function options() {
  const set = { model, stream: true, stream_options: { include_usage: true } };
  for (const name of ["temperature", "top_p", "top_k", "max_tokens", "seed"]) {
    if (byId(name).value !== "") set[name] = Number(byId(name).value);
  }
  if (byId("logprobs").checked) Object.assign(set, { logprobs: true, top_logprobs: 5 });
  if (byId("think").checked) set.reasoning_effort = "high";
  const tools = byId("tools").value.trim();
  if (tools) {
    try {
      set.tools = [JSON.parse(tools)].flat().map((one) => one.function ? one : { type: "function", function: one });
    } catch (error) {
      throw new ServerError(`${word("tools")}: ${error.message}`);
    }
  }
  const system = byId("system").value.trim();
  set.messages = [...(system ? [{ role: "system", content: system }] : []), ...turns];
  return set;
}

// The first call of the last answer that has no result yet.
function openCall() {
  const at = turns.findLastIndex((one) => one.role === "assistant");
  const given = turns.slice(at + 1).map((one) => one.tool_call_id);
  return turns[at]?.tool_calls?.find((one) => !given.includes(one.id));
}

function invite() {
  const call = openCall();
  byId("prompt").placeholder = call ? word("giveResult", call.function.name) : word("write");
}

async function ask(said) {
  if (running || !said.trim()) return;
  const log = byId("log"), call = openCall();
  if (turns.at(-1)?.role === "user") turns.pop(); // a question that got no answer is not asked again beside the next
  if (!turns.length) log.querySelector(".empty")?.remove();
  byId("prompt").value = "";
  grow();
  turns.push(call ? { role: "tool", tool_call_id: call.id, content: said } : { role: "user", content: said });
  new Turn(log, "user", who(turns.at(-1).role)).say(said);
  newest?.root.querySelector(".retry")?.remove();
  invite();
  stayBelow(true);
  if (!openCall()) await answer();
}

async function retry() {
  if (running) return;
  if (turns.at(-1)?.role === "assistant") turns.pop();
  newest.root.remove();
  await answer();
}

async function answer() {
  const log = byId("log"), turn = newest = new Turn(log, "assistant", word("model"));
  running = new AbortController();
  setBusy(true);
  stayBelow(true);
  const began = performance.now(), calls = [];
  let thought = "", first = 0, usage = null, reason = null;
  try {
    for await (const event of events("/v1/chat/completions", { body: options(), signal: running.signal })) {
      usage = event.usage || usage;
      for (const choice of event.choices) {
        first ||= performance.now();
        const delta = choice.delta || {};
        thought += delta.reasoning ?? delta.reasoning_content ?? "";
        for (const call of delta.tool_calls || []) take(calls, call);
        reason = choice.finish_reason || reason;
        const isElsewhere = !delta.content && (delta.reasoning || delta.reasoning_content || delta.tool_calls);
        turn.add(delta.content ?? "", isElsewhere ? [] : choice.logprobs?.content);
      }
      turn.think(thought, Boolean(turn.content || calls.length || reason));
      turn.call(calls);
      stayBelow();
    }
  } catch (error) {
    if (error.name === "AbortError") reason = "stopped";
    else turn.fail(error instanceof ServerError ? error.message : word("gone"));
  }
  if (turn.content || calls.length) {
    turns.push({ role: "assistant", content: turn.content, ...(thought && { reasoning_content: thought }), ...(calls.length && { tool_calls: calls }) });
  }
  const seconds = (performance.now() - (first || began)) / 1000, tokens = usage?.completion_tokens;
  const notes = tokens ? [word("footer", tokens, seconds.toFixed(1), (tokens / Math.max(seconds, 0.001)).toFixed(0), Math.round(first - began))] : [];
  if (reason === "length") notes.push(word("cut"));
  if (reason === "stopped") notes.push(word("stopped"));
  turn.end(notes, retry);
  running = null;
  setBusy(false);
  invite();
  remember();
  stayBelow();
  byId("prompt").focus();
}

// A piece of a call joins the call that it belongs to.
function take(calls, { index, id, function: more }) {
  const call = calls[index] ??= { id, type: "function", function: { name: "", arguments: "" } };
  call.function.name += more?.name ?? "";
  call.function.arguments += more?.arguments ?? "";
}

function setBusy(is) {
  byId("send").hidden = is;
  byId("stop").hidden = !is;
  byId("log").setAttribute("aria-busy", is);
}

let follows = true; // whether the reader is at the end, and wants to stay there

function isBelow() {
  const log = byId("log");
  follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  return follows;
}

function stayBelow(always = false) {
  follows ||= always;
  if (!follows) return;
  requestAnimationFrame(() => requestAnimationFrame(() => (byId("log").scrollTop = byId("log").scrollHeight)));
}

// Arrows walk over the tokens of an answer.
function walk(event) {
  const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
  if (!step || !event.target.classList.contains("token")) return;
  event.preventDefault();
  event.target[step]?.focus();
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
