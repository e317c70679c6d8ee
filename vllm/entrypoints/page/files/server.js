// Talking to the server: JSON, event streams, and the key where one is wanted.

import { word } from "./words.js";

const byId = (id) => document.getElementById(id);
let asking = null;

export class ServerError extends Error {}

function headers(more) {
  const key = sessionStorage.getItem("vllm-key");
  return { ...more, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

// Ask for the key once, however many requests were refused.
function askKey() {
  asking ??= new Promise((done) => {
    const dialog = byId("key-dialog");
    dialog.onclose = () => {
      sessionStorage.setItem("vllm-key", byId("key").value.trim());
      asking = null;
      done();
    };
    dialog.showModal();
  });
  return asking;
}

export async function call(path, { body, signal } = {}) {
  for (;;) {
    const options = body === undefined
      ? { headers: headers(), signal }
      : { method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body), signal };
    const answer = await fetch(path, options);
    if (answer.status === 401) {
      await askKey();
      continue;
    }
    if (!answer.ok) {
      const told = await answer.json().catch(() => ({}));
      throw new ServerError(told.error?.message || `${answer.status} ${answer.statusText}`);
    }
    return answer;
  }
}

export const json = async (path, options) => (await call(path, options)).json();
export const text = async (path, options) => (await call(path, options)).text();

// The events of a streamed answer, each as an object.
export async function* events(path, options) {
  const reader = (await call(path, options)).body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ServerError(word("broken")); // a whole answer says that it is whole
    held += value;
    const pieces = held.split("\n\n");
    held = pieces.pop();
    for (const piece of pieces) {
      const data = piece.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const event = JSON.parse(data);
      if (event.error) throw new ServerError(event.error.message);
      yield event;
    }
  }
}
