// Puts tokens beside the text that they became. A token is told no later than its text, which may come later (white space
// before a call, what may begin a stop string, a part of a character) or never (tags, thoughts).

const strict = new TextDecoder("utf-8", { fatal: true }), lossy = new TextDecoder();
const LONGEST = 4; // bytes of a character

function decoded(bytes) {
  try {
    return strict.decode(bytes);
  } catch {
    return bytes.length > LONGEST * 2 ? lossy.decode(bytes) : null; // it will not become a character any more
  }
}

export class Aligner {
  constructor() {
    this.parts = []; // tokens that are no whole characters yet
    this.waiting = []; // { said, tokens }: whole characters whose place was not found yet
    this.rest = ""; // text that waits for the rest of its token
  }

  // Pieces { text, tokens } in order. Joined they are all text so far, but for the beginning of the next token's.
  add(text, tokens = [], isLast = false) {
    this.rest += text;
    for (const token of tokens) {
      this.parts.push(token);
      const said = decoded(Uint8Array.from(this.parts.flatMap((one) => one.bytes)));
      if (said) this.waiting.push({ said, tokens: this.parts.splice(0) });
    }
    const pieces = [];
    const give = (length, whose) => {
      pieces.push({ text: this.rest.slice(0, length), tokens: whose });
      this.rest = this.rest.slice(length);
    };
    while (this.waiting.length && this.rest) {
      const { said, tokens: whose } = this.waiting[0], bare = said.trimStart();
      const gap = this.rest.length - this.rest.trimStart().length;
      if (this.rest.startsWith(said)) give(said.length, whose);
      else if (said.startsWith(this.rest) && !isLast) break;
      else if (said.startsWith(this.rest)) give(this.rest.length, whose);
      else if (bare && this.rest.startsWith(bare)) give(bare.length, whose);
      else if (gap && this.rest.startsWith(said, gap)) give(gap + said.length, whose);
      this.waiting.shift();
    }
    if (this.rest && !this.waiting.length) give(this.rest.length, []);
    return pieces;
  }
}
