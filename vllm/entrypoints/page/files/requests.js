// The list of open requests, each with a button that ends it.

import { word } from "./words.js";
import { json } from "./server.js";

const byId = (id) => document.getElementById(id);

export function show(state) {
  const sequences = state.engine?.sequences ?? [];
  byId("none").hidden = sequences.length > 0;
  byId("rows").replaceChildren(...sequences.map(row));
}

function row(one) {
  const line = document.createElement("tr");
  const name = one.name || one.request_id;
  const add = (said, kind = "") => line.append(Object.assign(document.createElement("td"), { textContent: said, className: kind }));
  add(one.index ? `${name} #${one.index}` : name, "id");
  add(word(one.state === "waiting" ? "waitingState" : one.state));
  add(`${one.age.toFixed(1)} s`, "num");
  add(one.prompt_len, "num");
  add(one.num_cached, "num");
  add(one.num_output, "num");
  const cell = document.createElement("td");
  if (one.name) {
    const button = Object.assign(document.createElement("button"), { textContent: word("cancel"), type: "button" });
    button.addEventListener("click", async () => {
      button.disabled = true;
      await json("/abort_requests", { body: { request_ids: [one.name] } }).catch(() => {});
      line.remove();
    });
    cell.append(button);
  }
  line.append(cell);
  return line;
}
