// Markdown as nodes: what a model writes never becomes HTML, only text in elements that are made here.

const FENCE = /^\s{0,3}(```+|~~~+)\s*([\w+#.-]*)/;
const ITEM = /^(\s*)([-*+•]|\d{1,9}[.)])\s+(.*)$/;
const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*|(?<![\w*])\*(?=[^\s*])([^*]*?[^\s*])\*(?![\w*])|~~(?=\S)([\s\S]*?\S)~~|!?\[([^\]\n]*)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>"'`)\]，。）]*[^\s<>"'`)\].,;:!?，。）])/g;

const make = (name, ...children) => {
  const element = document.createElement(name);
  element.append(...children);
  return element;
};

// The blocks of a text. Two equal blocks look the same, so that one that did not change can stay as it is.
export function blocks(text) {
  const lines = text.split("\n"), found = [];
  for (let at = 0; at < lines.length;) {
    const line = lines[at], fence = FENCE.exec(line);
    const while_ = (holds) => {
      const begin = at;
      while (at < lines.length && holds(lines[at])) at += 1;
      return lines.slice(begin, at);
    };
    if (fence) {
      at += 1;
      const inner = while_((one) => !one.trimStart().startsWith(fence[1]));
      at += 1;
      found.push({ kind: "code", language: fence[2], lines: inner });
    } else if (!line.trim()) at += 1;
    else if (/^\s{0,3}#{1,6}\s/.test(line)) found.push({ kind: "heading", lines: [lines[at++]] });
    else if (/^\s{0,3}([-*_])(\s*\1){2,}\s*$/.test(line)) found.push({ kind: "rule", lines: [lines[at++]] });
    else if (ITEM.test(line)) {
      const isNumbered = (one) => /\d/.test(ITEM.exec(one)[2]);
      const goesOn = (one) => ITEM.test(one) ? /^\s/.test(one) || isNumbered(one) === isNumbered(line) : /^\s+\S/.test(one);
      found.push({ kind: "list", lines: while_(goesOn) });
    }
    else if (/^\s{0,3}>/.test(line)) found.push({ kind: "quote", lines: while_((one) => /^\s{0,3}>/.test(one)) });
    else if (line.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/.test(lines[at + 1] ?? "")) {
      found.push({ kind: "table", lines: while_((one) => one.includes("|")) });
    } else {
      const begin = at++;
      while_((one) => one.trim() && !FENCE.test(one) && !ITEM.test(one) && !/^\s{0,3}(#{1,6}\s|>)/.test(one));
      found.push({ kind: "paragraph", lines: lines.slice(begin, at) });
    }
  }
  return found;
}

// A block as an element. `copy(room, text)` makes the button that copies code.
export function render({ kind, lines, language }, copy) {
  if (kind === "code") {
    const code = lines.join("\n"), head = make("div", make("span", language || ""));
    head.className = "code-head";
    copy(head, code);
    const box = make("div", head, make("pre", make("code", code)));
    box.className = "code";
    return box;
  }
  if (kind === "heading") {
    const [, marks, said] = /^\s*(#+)\s+(.*?)\s*#*$/.exec(lines[0]) ?? ["", "#", lines[0]];
    return make(`h${Math.min(6, marks.length + 2)}`, ...inline(said));
  }
  if (kind === "rule") return make("hr");
  if (kind === "list") return list(lines);
  if (kind === "quote") return make("blockquote", ...inline(lines.map((one) => one.replace(/^\s*>\s?/, "")).join("\n")));
  if (kind === "table") return table(lines);
  return make("p", ...inline(lines.join("\n")));
}

function list(lines) {
  let root = null;
  const open = []; // lists that are open, from the outermost, each with its indent
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (!item) {
      open.at(-1).list.lastChild.append("\n", ...inline(line.trim()));
      continue;
    }
    const [, { length: indent }, mark, said] = item;
    while (open.length > 1 && indent < open.at(-1).indent) open.pop();
    if (!open.length || indent > open.at(-1).indent + 1) {
      const made = make(/\d/.test(mark) ? "ol" : "ul");
      if (made.tagName === "OL") made.start = parseInt(mark, 10);
      if (open.length) open.at(-1).list.lastChild.append(made);
      root ??= made;
      open.push({ list: made, indent });
    }
    open.at(-1).list.append(make("li", ...inline(said)));
  }
  return root;
}

function table([head, , ...rows]) {
  const cellsOf = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((one) => one.trim());
  const row = (line, kind) => make("tr", ...cellsOf(line).map((one) => make(kind, ...inline(one))));
  const box = make("div", make("table", make("thead", row(head, "th")), make("tbody", ...rows.map((one) => row(one, "td")))));
  box.className = "scroll";
  return box;
}

function inline(text) {
  const found = [];
  let from = 0;
  for (const hit of text.matchAll(INLINE)) {
    if (hit.index > from) found.push(text.slice(from, hit.index));
    const [all, , code, bold, slanted, struck, name, target, bare] = hit;
    if (code !== undefined) found.push(make("code", code));
    else if (bold !== undefined) found.push(make("strong", ...inline(bold)));
    else if (slanted !== undefined) found.push(make("em", ...inline(slanted)));
    else if (struck !== undefined) found.push(make("s", ...inline(struck)));
    else found.push(Object.assign(make("a", name || target || bare), { href: target ?? bare, target: "_blank", rel: "noopener noreferrer" }));
    from = hit.index + all.length;
  }
  return from < text.length ? [...found, text.slice(from)] : found;
}
