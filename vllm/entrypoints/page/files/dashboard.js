// The dashboard: what goes on in the server, drawn once a second while it is looked at.

import { word } from "./words.js";
import { text } from "./server.js";
import { bars, cells, lines, steps } from "./draw.js";

const byId = (id) => document.getElementById(id);
const KEPT = 120;
const history = []; // {at, sampled, computed, running, waiting}

export function note(state) {
  const counts = state.counts;
  if (!counts) return;
  history.push({ at: performance.now() / 1000, sampled: counts.num_sampled_tokens, computed: counts.num_query_tokens, running: counts.num_running, waiting: counts.num_waiting });
  if (history.length > KEPT) history.shift();
}

function rates(name) {
  return history.slice(1).map((now, at) => Math.max(0, now[name] - history[at][name]) / Math.max(0.05, now.at - history[at].at));
}

export async function show(state) {
  const span = Math.max(1, (history.at(-1)?.at ?? 0) - (history[0]?.at ?? 0));
  const counts = state.counts, engine = state.engine;
  const speed = rates("sampled");
  const hits = counts?.num_prefix_queried ? counts.num_prefix_hit / counts.num_prefix_queried : 0;
  tiles([
    ["running", counts?.num_running ?? 0, ""],
    ["waiting", counts?.num_waiting ?? 0, ""],
    ["tokensPerSecond", (speed.at(-1) ?? 0).toFixed(0), ""],
    ["kvUsed", `${((counts?.kv_usage ?? 0) * 100).toFixed(1)} %`, engine ? word("ofBlocks", engine.num_held, engine.num_blocks) : ""],
    ["hitRate", `${(hits * 100).toFixed(1)} %`, ""],
    ["restarts", state.restarts, state.engine ? "" : word("noEngine")],
    ["uptime", duration(state.uptime), ""],
  ]);
  const about = state.description && `${state.description} · ${word("context")} ${state.max_model_len} · vllm ${state.version}`;
  byId("about").textContent = about || word("noEngine");
  lines(byId("throughput"), [
    { values: speed, colour: "c", name: word("sampled") },
    { values: rates("computed"), colour: "a", name: word("computed") },
  ], word("ago", span));
  lines(byId("load"), [
    { values: history.map((one) => one.running), colour: "a", name: word("running") },
    { values: history.map((one) => one.waiting), colour: "b", name: word("waiting") },
  ], word("ago", span));
  if (engine) {
    steps(byId("timeline"), engine.steps.map(([, , seconds, tokens, sampled]) => ({ seconds, tokens, sampled })), word("none"));
    cells(byId("blocks"), Array.from(atob(engine.cells), (one) => one.charCodeAt(0)));
    legend("timeline-legend", [["c2", word("computed")], ["c1", word("sampled")], ["c4", word("time")]]);
    legend("blocks-legend", [["c0", word("free")], ["c1", `${word("cached")} (${engine.num_cached})`], ["c2", word("held")], ["c3", word("shared")], ["", word("perCell", engine.per_cell)]]);
  }
  const page = await text("/metrics");
  bars(byId("ttft"), histogram(page, "vllm:time_to_first_token_seconds"), word("none"));
  bars(byId("itl"), histogram(page, "vllm:inter_token_latency_seconds"), word("none"));
}

function tiles(rows) {
  byId("tiles").replaceChildren(...rows.map(([name, value, more]) => {
    const tile = document.createElement("div");
    tile.className = "tile";
    for (const [part, said] of [["name", word(name)], ["value", value], ["more", more]]) {
      tile.append(Object.assign(document.createElement("div"), { className: part, textContent: said }));
    }
    return tile;
  }));
}

function legend(id, rows) {
  byId(id).replaceChildren(...rows.map(([mark, said]) => {
    const one = document.createElement("span");
    if (mark) one.append(Object.assign(document.createElement("i"), { className: mark }));
    one.append(said);
    return one;
  }));
}

function duration(seconds) {
  const h = Math.floor(seconds / 3600), m = Math.floor(seconds / 60) % 60, s = Math.floor(seconds % 60);
  return h ? `${h} h ${m} min` : m ? `${m}:${String(s).padStart(2, "0")} min` : `${s} s`;
}

// The buckets of a Prometheus histogram, without the empty ones at both ends.
export function histogram(page, name) {
  const found = [...page.matchAll(new RegExp(`^${name}_bucket\\{[^}]*le="([^"]+)"[^}]*\\} (\\S+)$`, "gm"))];
  let before = 0;
  const all = found.map(([, bound, count]) => {
    const own = Number(count) - before;
    before = Number(count);
    return { label: bound === "+Inf" ? "∞" : Number(bound) < 1 ? `${+(Number(bound) * 1000).toPrecision(3)}ms` : `${Number(bound)}s`, count: own };
  });
  const first = all.findIndex((one) => one.count), last = all.findLastIndex((one) => one.count);
  return first < 0 ? [] : all.slice(Math.max(0, first - 1), last + 2);
}
