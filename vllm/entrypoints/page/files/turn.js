// One turn of a conversation on the page: who, thoughts and calls in folds, the text, and what can be done with it.

import { word } from "./words.js";
import { blocks, render } from "./markdown.js";
import { Aligner } from "./tokens.js";

const make = (name, className, said = "") => Object.assign(document.createElement(name), { className, textContent: said });

// A button that copies, also where the browser keeps its clipboard to pages with TLS.
export function copyButton(room, text) {
  const button = make("button", "quiet small", word("copy"));
  button.type = "button";
  button.addEventListener("click", async () => {
    const said = typeof text === "function" ? text() : text;
    try {
      await navigator.clipboard.writeText(said);
    } catch {
      const area = make("textarea", "away");
      area.value = said;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = word("copied");
    setTimeout(() => (button.textContent = word("copy")), 1500);
  });
  room.append(button);
}

export class Turn {
  constructor(log, kind, who) {
    this.root = make("article", `turn ${kind}`);
    this.root.setAttribute("aria-label", who);
    this.aside = make("div", "aside");
    this.text = make("div", "text");
    this.foot = make("div", "foot");
    this.root.append(make("div", "who", who), this.aside, this.text, this.foot);
    this.content = "";
    this.aligner = null; // since there are tokens
    this.shown = []; // blocks as they stand, each as JSON
    log.append(this.root);
  }

  say(said) {
    this.content = this.text.textContent = said;
  }

  // New text: as it is, or token by token with what else was likely.
  add(said, tokens) {
    this.content += said;
    if (tokens?.length) this.aligner ??= new Aligner();
    if (this.aligner) this.addTokens(this.aligner.add(said, tokens ?? []));
    else if (said) this.draw();
  }

  draw() {
    this.drawing ??= requestAnimationFrame(() => {
      this.drawing = null;
      const now = blocks(this.content), keys = now.map((one) => JSON.stringify(one));
      let same = 0;
      while (same < keys.length && keys[same] === this.shown[same]) same += 1;
      while (this.text.childNodes.length > same) this.text.lastChild.remove();
      this.text.append(...now.slice(same).map((one) => render(one, copyButton)));
      this.text.classList.add("rich");
      this.shown = keys;
    });
  }

  addTokens(pieces) {
    for (const { text, tokens } of pieces) {
      if (!tokens.length) {
        this.text.append(text);
        continue;
      }
      const span = document.createElement("span");
      const chance = Math.min(...tokens.map((token) => Math.exp(token.logprob)));
      span.className = `token ${chance > 0.9 ? "" : chance > 0.5 ? "p1" : chance > 0.1 ? "p2" : "p3"}`;
      span.textContent = text;
      span.tabIndex = this.text.querySelector(".token") ? -1 : 0; // one stop for the keyboard, arrows go on from there
      span.dataset.tip = tokens
        .flatMap((token) => [token, ...(token.top_logprobs || []).filter((other) => other.token !== token.token)])
        .map((one) => `${(Math.exp(one.logprob) * 100).toFixed(1).padStart(5)} %  ${JSON.stringify(one.token)}`)
        .join("\n");
      this.text.append(span);
    }
  }

  // What the model thought, open until the answer begins, and the tools it called.
  think(thought, isOver) {
    if (!thought) return;
    const fold = this.fold("thought", word(isOver ? "thought" : "thinking"));
    fold.lastChild.textContent = thought;
    if (isOver && !fold.dataset.over) {
      fold.dataset.over = "yes";
      fold.open = false;
    }
  }

  call(calls) {
    calls.forEach((one, at) => {
      const fold = this.fold(`call-${at}`, `${word("call")}: ${one.function.name}`);
      fold.lastChild.textContent = pretty(one.function.arguments);
    });
  }

  fold(kind, title) {
    let fold = this.aside.querySelector(`[data-kind="${kind}"]`);
    if (!fold) {
      fold = document.createElement("details");
      fold.dataset.kind = kind;
      fold.open = true;
      fold.append(make("summary", ""), make("div", kind === "thought" ? "" : "mono"));
      this.aside.append(fold);
    }
    fold.firstChild.textContent = title;
    return fold;
  }

  fail(said) {
    const box = make("div", "failed", said);
    box.setAttribute("role", "alert");
    this.foot.before(box);
  }

  // The turn is over: what it cost, and its buttons.
  end(notes, retry) {
    if (this.aligner) this.addTokens(this.aligner.add("", [], true));
    this.text.hidden = !this.content;
    this.foot.replaceChildren(make("span", "", notes.join(" · ")));
    if (this.content) copyButton(this.foot, () => this.content);
    if (retry) {
      const button = make("button", "quiet small retry", word("retry"));
      button.type = "button";
      button.addEventListener("click", retry);
      this.foot.append(button);
    }
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
