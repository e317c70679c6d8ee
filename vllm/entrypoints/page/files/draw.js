// Small charts on canvases: bars, lines, and the map of blocks. Colours come from the style sheet, so themes hold.

function prepared(canvas) {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth, height = Number(canvas.dataset.height ||= canvas.getAttribute("height"));
  canvas.style.height = `${height}px`;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px system-ui, sans-serif";
  const style = getComputedStyle(document.documentElement);
  return { pen, width, height, colour: (name) => style.getPropertyValue(`--${name}`).trim() };
}

function note(pen, said, x, y, colour, align = "left") {
  pen.fillStyle = colour;
  pen.textAlign = align;
  pen.fillText(said, x, y);
}

// Lines over time, newest at the right. series: [{values, colour, name}]
export function lines(canvas, series, since, format = (n) => n.toFixed(0)) {
  const { pen, width, height, colour } = prepared(canvas);
  const top = Math.max(1e-9, ...series.flatMap((one) => one.values));
  const count = Math.max(30, ...series.map((one) => one.values.length)); // why: two points are no line over minutes
  const room = { left: 4, right: 4, top: 18, bottom: 18 };
  const x = (at, length) => width - room.right - (length - 1 - at) * (width - room.left - room.right) / (count - 1);
  const y = (value) => height - room.bottom - value / top * (height - room.top - room.bottom);
  pen.strokeStyle = colour("line");
  pen.beginPath();
  pen.moveTo(room.left, y(0) + 0.5);
  pen.lineTo(width - room.right, y(0) + 0.5);
  pen.stroke();
  let from = 4;
  for (const one of series) {
    pen.strokeStyle = colour(one.colour);
    pen.lineWidth = 2;
    pen.beginPath();
    one.values.forEach((value, at) => pen[at ? "lineTo" : "moveTo"](x(at, one.values.length), y(value)));
    pen.stroke();
    const said = `${one.name ? `${one.name} ` : ""}${one.values.length ? format(one.values.at(-1)) : ""}`;
    note(pen, said, from, 11, colour(one.colour));
    from += pen.measureText(said).width + 16;
  }
  note(pen, `max ${top < 0.5 ? 0 : format(top)}`, width - 4, 11, colour("soft"), "right");
  const oldest = Math.max(...series.map((one) => one.values.length));
  if (oldest > 5) note(pen, since, x(0, oldest), height - 4, colour("soft"), oldest > count / 2 ? "left" : "center");
}

// Bars of a histogram. buckets: [{label, count}]
export function bars(canvas, buckets, nothing) {
  const { pen, width, height, colour } = prepared(canvas);
  const total = buckets.reduce((sum, one) => sum + one.count, 0);
  if (!total) {
    note(pen, nothing, width / 2, height / 2, colour("soft"), "center");
    return;
  }
  const top = Math.max(...buckets.map((one) => one.count));
  const wide = (width - 8) / buckets.length;
  buckets.forEach((one, at) => {
    const high = one.count / top * (height - 40);
    pen.fillStyle = colour("a");
    pen.fillRect(4 + at * wide + 1, height - 18 - high, Math.max(1, wide - 2), high);
    if (one.count === top) note(pen, String(one.count), 4 + (at + 0.5) * wide, height - 22 - high, colour("ink"), "center");
    if (at % Math.ceil(buckets.length * 34 / width) === 0) note(pen, one.label, 4 + (at + 0.5) * wide, height - 4, colour("soft"), "center");
  });
}

// The last steps: tokens upwards (given ones in another colour), time downwards.
export function steps(canvas, marks, nothing) {
  const { pen, width, height, colour } = prepared(canvas);
  if (!marks.length) {
    note(pen, nothing, width / 2, height / 2, colour("soft"), "center");
    return;
  }
  const wide = Math.max(2, Math.min(10, (width - 8) / marks.length));
  const shown = marks.slice(-Math.floor((width - 8) / wide));
  const tokens = Math.max(...shown.map((one) => one.tokens)), slow = Math.max(...shown.map((one) => one.seconds), 1e-9);
  const base = Math.round(height * 0.66);
  const size = (value) => Math.log1p(value) / Math.log1p(tokens) * (base - 18);
  shown.forEach((one, at) => {
    const left = 4 + at * wide;
    pen.fillStyle = colour("a");
    pen.fillRect(left, base - size(one.tokens), wide - 1, size(one.tokens));
    pen.fillStyle = colour("c");
    pen.fillRect(left, base - size(one.sampled), wide - 1, size(one.sampled));
    pen.fillStyle = colour("b");
    pen.fillRect(left, base + 2, wide - 1, one.seconds / slow * (height - base - 4));
  });
  note(pen, `max ${tokens}`, width - 4, 11, colour("soft"), "right");
  note(pen, `max ${(slow * 1000).toFixed(1)} ms`, width - 4, height - 4, colour("soft"), "right");
}

// One square per cell: free, cached, held, shared.
export function cells(canvas, states) {
  const wanted = canvas.clientWidth;
  const side = Math.max(4, Math.min(14, Math.floor(Math.sqrt(wanted * 150 / Math.max(1, states.length)))));
  const columns = Math.max(1, Math.floor(wanted / side));
  canvas.dataset.height = Math.ceil(states.length / columns) * side + 1;
  const { pen, colour } = prepared(canvas);
  const colours = ["paper", "c", "a", "d"].map(colour);
  states.forEach((state, at) => {
    pen.fillStyle = colours[state];
    pen.fillRect(at % columns * side, Math.floor(at / columns) * side, side - 1, side - 1);
  });
}
