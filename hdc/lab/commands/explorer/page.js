"use strict";
// The page: two schedules, each a card. The state is in the address after #.

const data = JSON.parse(document.getElementById("data").textContent);
const known = data.constants;
const hdc = arithmetic(known);
const LETTERS = ["A", "B"];
const TOP = 5;
const ROWS = 1000; // of a table

const byId = (id) => document.getElementById(id);
const share = (part) => {
  const text = `${(100 * part).toFixed(1)}%`;
  if (text === "0.0%" && part > 0) return "less than 0.1%";
  return text === "100.0%" && part < 1 ? "more than 99.9%" : text;
};
const db = (value) => `${(Math.round(10 * value) / 10 + 0).toFixed(1)} dB`.replace("-", "−");
const digits = (value) => String(Number(value.toPrecision(4)));
const grouped = (value) => value.toLocaleString("en");
const element = (tag, text = "", options = {}) => Object.assign(document.createElement(tag), { textContent: text }, options);

// ---- state ----

const state = { map: 64, stem: true, sides: data.given.slice(0, 2).map((one) => ({ ...one })) };

const read = () => {
  const given = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  LETTERS.forEach((letter, at) => {
    const key = letter.toLowerCase();
    if (!given.has(key)) return;
    const side = state.sides[at];
    side.text = given.get(key).slice(0, 2000);
    side.taps = Number(given.get(`${key}K`) ?? 3);
    side.axes = given.get(`${key}D`) === "1" ? 1 : 2;
    side.padding = ["valid", "causal"].find((one) => one === given.get(`${key}P`)) ?? "same";
  });
  const map = Number(given.get("map"));
  if (Number.isInteger(map) && map >= 1 && map <= known.max_field) state.map = map;
  if (given.has("stem")) state.stem = given.get("stem") !== "no";
};

const write = () => {
  const parts = state.sides.flatMap((side, at) => {
    const key = LETTERS[at].toLowerCase();
    return [
      [key, side.text.replace(/\s+/g, "")],
      ...(side.taps === 3 ? [] : [[`${key}K`, side.taps]]),
      ...(side.axes === 2 ? [] : [[`${key}D`, 1]]),
      ...(side.padding === "same" ? [] : [[`${key}P`, side.padding]]),
    ];
  });
  if (state.map !== 64) parts.push(["map", state.map]);
  if (!state.stem) parts.push(["stem", "no"]);
  const text = parts.map(([key, value]) => `${key}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");
  history.replaceState(null, "", `#${text}`);
};

// ---- drawing ----

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rgb = (hex) => {
  const long = hex.length === 4 ? hex.replace(/[0-9a-f]/gi, "$&$&") : hex;
  return [1, 3, 5].map((at) => parseInt(long.slice(at, at + 2), 16));
};
const between = (a, b, part) => a.map((from, at) => from + (b[at] - from) * part);

/** The drawing context of a canvas, in CSS pixels. */
const context = (canvas) => {
  const ratio = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  return { pen, width, height };
};

/** How many offsets the pictures span: the same for both, unless one field is far smaller. */
const extent = (field, other) => (other && other.side > field.side && other.side <= 3 * field.side ? other.side : field.side);

/** `[bins]` first offsets of the bins that are drawn, one more than there are. */
const edges = (side, bins) => Array.from({ length: bins + 1 }, (_, at) => Math.floor((at * side) / bins));

const drawField = (canvas, field, span) => {
  const { pen, width } = context(canvas);
  if (width === 0) return;
  const bins = Math.min(field.side, Math.floor(width));
  const starts = edges(field.side, bins);
  const image = pen.createImageData(bins, bins);
  const [few, many, hole] = ["--few", "--many", "--hole"].map((name) => rgb(colour(name)));
  let most = 0;
  // Of a stack, a bin's largest count and share of holes are products of those along the axes.
  const line = starts.slice(0, -1).map((start, bin) => {
    const part = field.line.subarray(start, starts[bin + 1]);
    return { most: Math.max(...part), seen: part.filter((count) => count > 0).length / part.length };
  });
  const cell = (y, x) => {
    if (field.stack) return { most: line[y].most * line[x].most, seen: line[y].seen * line[x].seen };
    let [largest, seen, all] = [0, 0, 0];
    for (let row = starts[y]; row < starts[y + 1]; row++) {
      for (let column = starts[x]; column < starts[x + 1]; column++, all++) {
        const count = field.value(row, column);
        largest = Math.max(largest, count);
        seen += count > 0;
      }
    }
    return { most: largest, seen: seen / all };
  };
  const cells = [];
  for (let y = 0; y < bins; y++) for (let x = 0; x < bins; x++) cells.push(cell(y, x));
  for (const one of cells) most = Math.max(most, one.most);
  cells.forEach((one, at) => {
    const seen = between(few, many, (one.most / most) ** 0.3);
    image.data.set([...between(hole, seen, one.seen), 255], 4 * at);
  });
  const small = element("canvas", "", { width: bins, height: bins });
  small.getContext("2d").putImageData(image, 0, 0);
  const size = (width * field.side) / span;
  const left = (width - size) / 2;
  const step = size / field.side;
  pen.imageSmoothingEnabled = bins < field.side;
  pen.drawImage(small, left, left, size, size);
  if (step >= 9) {
    pen.strokeStyle = colour("--card");
    pen.lineWidth = 1;
    for (let at = 0; at <= field.side; at++) {
      const place = left + at * step;
      pen.strokeRect(place, left, 0, size);
      pen.strokeRect(left, place, size, 0);
    }
  }
  if (step >= 7) {
    // Holes have a mark, too: colour is not all that tells them.
    pen.strokeStyle = colour("--mark");
    pen.lineWidth = Math.max(1, step / 14);
    for (let y = 0; y < field.side; y++) {
      for (let x = 0; x < field.side; x++) {
        if (field.value(y, x) > 0) continue;
        const [right, down, arm] = [left + (x + 0.5) * step, left + (y + 0.5) * step, step * 0.16];
        pen.beginPath();
        pen.moveTo(right - arm, down - arm);
        pen.lineTo(right + arm, down + arm);
        pen.moveTo(right + arm, down - arm);
        pen.lineTo(right - arm, down + arm);
        pen.stroke();
      }
    }
  }
  return { pen, left, step };
};

const drawProfile = (canvas, field, span) => {
  const { pen, width, height } = context(canvas);
  if (width === 0) return;
  const bins = Math.min(field.side, Math.floor(width));
  const starts = edges(field.side, bins);
  const size = (width * field.side) / span;
  const left = (width - size) / 2;
  const step = size / bins;
  const floor = height - 16;
  const most = field.line.reduce((top, count) => Math.max(top, count), 0);
  for (let bin = 0; bin < bins; bin++) {
    const part = field.line.subarray(starts[bin], starts[bin + 1]);
    const tall = Math.sqrt(Math.max(...part) / most) * (floor - 2);
    const gap = step >= 4 ? 1 : 0;
    pen.fillStyle = colour("--many");
    pen.globalAlpha = 0.75;
    pen.fillRect(left + bin * step + gap / 2, floor - tall, step - gap, tall);
    pen.globalAlpha = 1;
    if (part.every((count) => count > 0)) continue;
    pen.fillStyle = colour("--hole");
    pen.fillRect(left + bin * step + gap / 2, floor + 1, Math.max(step - gap, 1), 15);
    if (step >= 8) {
      pen.fillStyle = colour("--mark");
      pen.font = "12px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.fillText("×", left + (bin + 0.5) * step, floor + 13);
    }
  }
  pen.fillStyle = colour("--soft");
  pen.fillRect(left, floor, size, 1);
  return { pen, left, step: size / field.side, height };
};

/** How many orders have which ripple: a bar for each width of a bin, and marks for some of them. */
const drawStrip = (canvas, found, marks) => {
  const { pen, width, height } = context(canvas);
  if (width === 0) return;
  const [low, high] = [Math.min(0, found[0].db), Math.max(found[found.length - 1].db, 1)];
  const side = 40;
  const long = width - 2 * side;
  const place = (value) => side + ((value - low) / (high - low)) * long;
  const bins = Math.max(1, Math.floor(long / 6));
  const counts = new Array(bins).fill(0);
  const bin = (value) => Math.min(bins - 1, Math.floor(((value - low) / (high - low)) * bins));
  for (const one of found) counts[bin(one.db)]++;
  const floor = height - 20;
  const most = Math.max(...counts);
  pen.font = "11px system-ui, sans-serif";
  pen.fillStyle = colour("--soft");
  // Within the error of this order.
  const { value: mine } = marks[marks.length - 1];
  const [from, to] = [mine - known.spread, mine + known.spread].map((value) => place(Math.max(low, Math.min(high, value))));
  pen.fillStyle = colour("--line");
  pen.fillRect(from, 18, to - from, floor - 18);
  pen.fillStyle = colour("--soft");
  counts.forEach((count, at) => {
    if (!count) return;
    const tall = 4 + Math.sqrt(count / most) * (floor - 26);
    pen.fillRect(side + (at * long) / bins + 1, floor - tall, Math.max(long / bins - 2, 1), tall);
  });
  pen.fillRect(side, floor, long, 1);
  pen.textAlign = "center";
  pen.fillText(db(low), place(low), height - 5);
  pen.fillText(db(high), place(high), height - 5);
  marks.forEach(({ value, text, name }, number) => {
    const at = place(value);
    pen.fillStyle = pen.strokeStyle = colour(name);
    pen.beginPath();
    pen.moveTo(at, floor + 9);
    pen.lineTo(at - 5, floor + 1);
    pen.lineTo(at + 5, floor + 1);
    pen.fill();
    pen.lineWidth = 2;
    pen.strokeRect(at, 16, 0, floor - 16);
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = marks.length === 1 ? "center" : number ? "left" : "right";
    pen.fillText(text, at + (marks.length === 1 ? 0 : number ? -4 : 4), 12);
  });
};

// ---- tables ----

const table = (head, rows) => {
  const made = element("table");
  const top = made.createTHead().insertRow();
  for (const name of head) top.append(element("th", name, { scope: "col" }));
  const body = made.createTBody();
  for (const { cells, own } of rows) {
    const row = body.insertRow();
    if (own) row.className = "own";
    for (const cell of cells) row.insertCell().append(cell);
  }
  return made;
};

const use = (card, rates) => {
  const button = element("button", "use", { type: "button", ariaLabel: `Use ${rates.join(",")}` });
  button.addEventListener("click", () => {
    card.side.text = rates.join(",");
    card.controls();
    changed();
    card.part("text").focus();
  });
  return button;
};

// ---- a card ----

class Card {
  constructor(at) {
    this.at = at;
    this.root = byId("card").content.firstElementChild.cloneNode(true);
    this.cursor = null;
    this.field = null;
    this.root.setAttribute("aria-label", `Schedule ${LETTERS[at]}`);
    this.root.querySelector("h2").textContent = `Schedule ${LETTERS[at]}`;
    const select = this.part("network");
    const groups = [["published networks", data.networks]];
    if (data.given.length > 2) groups.unshift(["from the command line", data.given.map((one) => ({ ...one, name: one.text }))]);
    this.choices = groups.flatMap(([, entries]) => entries);
    let number = 0;
    for (const [label, entries] of groups) {
      const group = element("optgroup", "", { label });
      for (const one of entries) group.append(element("option", one.name, { value: String(number++), title: one.about ?? "" }));
      select.append(group);
    }
    this.part("taps").max = known.max_taps;
    this.listen();
    byId("cards").append(this.root);
  }

  get side() {
    return state.sides[this.at];
  }

  part(name) {
    return this.root.querySelector(`.${name}`);
  }

  listen() {
    const on = (name, event, act) =>
      this.part(name).addEventListener(event, (happened) => {
        act(happened.target.value);
        changed();
      });
    on("text", "input", (text) => (this.side.text = text));
    on("taps", "input", (text) => (this.side.taps = Number(text)));
    on("axes", "change", (text) => (this.side.axes = Number(text)));
    on("padding", "change", (text) => (this.side.padding = text));
    on("network", "change", (text) => {
      if (text === "") return;
      const { text: rates, taps, axes, padding } = this.choices[Number(text)];
      Object.assign(this.side, { text: rates, taps, axes, padding });
      this.controls();
    });
    for (const [name, change] of [
      ["remove", (rates) => rates.slice(0, -1)],
      ["add", (rates) => [...rates, rates[rates.length - 1]]],
    ]) {
      on(name, "click", () => {
        this.side.text = change(this.field.layers.flat()).join(",");
        this.controls();
      });
    }
    for (const name of ["field", "profile"]) {
      const canvas = this.part(name);
      canvas.addEventListener("pointermove", (event) => this.point(name, event));
      canvas.addEventListener("pointerleave", () => this.move(null));
      canvas.addEventListener("focus", () => this.cursor || this.move([this.middle, this.middle]));
      canvas.addEventListener("blur", () => this.move(null));
      canvas.addEventListener("keydown", (event) => this.key(name, event));
    }
    this.root.querySelector(".counts").addEventListener("toggle", () => this.tabulate());
  }

  get middle() {
    return Math.floor(this.field.side / 2);
  }

  /** The controls, from the state: after a change from elsewhere than themselves. */
  controls() {
    for (const name of ["text", "taps", "axes", "padding"]) this.part(name).value = this.side[name];
  }

  show() {
    let layers;
    try {
      layers = hdc.parse(this.side.text);
      this.field = hdc.field(layers, this.side.taps, this.side.axes);
    } catch (error) {
      this.fail(error.message);
      return;
    }
    this.fail("");
    this.cursor = null;
    this.root.classList.toggle("signal", this.field.axes === 1);
    this.sliders();
    this.verdict();
    this.ripple = hdc.predicted(layers, this.field.taps, this.field.axes, state.stem);
    this.numbers();
    this.tabulate();
  }

  fail(message) {
    this.part("error").textContent = message && message[0].toUpperCase() + message.slice(1);
    this.part("text").setAttribute("aria-invalid", String(message !== ""));
    this.root.classList.toggle("stale", message !== "");
    this.root.querySelectorAll(".add, .remove, .sliders input").forEach((one) => (one.disabled = message !== ""));
    this.failed = message !== "";
  }

  sliders() {
    const { layers, stack, taps, axes } = this.field;
    const rates = layers.flat();
    const name = this.choices.findIndex(
      (one) => one.about && one.taps === taps && one.axes === axes && String(hdc.parse(one.text)) === String(layers),
    );
    const about = name < 0 ? "" : `: ${this.choices[name].name}, ${this.choices[name].about}`;
    this.root.querySelector("h2").textContent = `Schedule ${LETTERS[this.at]}${about}`;
    this.part("network").value = name < 0 ? "" : String(name);
    this.part("add").disabled = !stack;
    this.part("remove").disabled = !stack || rates.length === 1;
    const box = this.part("sliders");
    const shown = stack ? rates : [];
    while (box.childElementCount > shown.length) box.lastElementChild.remove();
    while (box.childElementCount < shown.length) box.append(this.slider(box.childElementCount));
    const most = Math.max(...shown) > 32 ? 2 ** Math.ceil(Math.log2(Math.max(...shown))) : 16 * (1 + (Math.max(...shown) > 16));
    [...box.children].forEach((label, at) => {
      const input = label.querySelector("input");
      if (document.activeElement !== input) input.max = most;
      input.value = shown[at];
      label.querySelector("b").textContent = shown[at];
    });
  }

  slider(at) {
    const label = element("label", `layer ${at + 1} `);
    const input = element("input", "", { type: "range", min: 1, max: 16, step: 1 });
    input.addEventListener("input", () => {
      const rates = this.field.layers.flat();
      rates[at] = Number(input.value);
      this.side.text = rates.join(",");
      this.controls();
      changed();
    });
    label.append(element("b"), input);
    return label;
  }

  verdict() {
    const { gapFree, seen, steps, firstHole, axes } = this.field;
    this.part("verdict").classList.toggle("holes", !gapFree);
    this.part("answer").textContent = gapFree
      ? "✓ Gap-free: every pixel of the field is seen"
      : `✗ Holes: ${share(1 - seen)} of the field is never seen`;
    let text;
    if (steps === null) {
      text = gapFree ? "Counted pixel by pixel." : `First hole: ${axes === 2
        ? `row ${firstHole[0]}, column ${firstHole[1]}, counted from the field’s corner.`
        : `offset ${firstHole[0]}, counted from the field’s edge.`}`;
    } else if (gapFree) {
      const distinct = steps.filter((step, at) => at === 0 || step.rate !== steps[at - 1].rate);
      const chain = distinct.slice(0, 6).map(({ rate, fills }) => `${rate} ≤ ${fills}`).join(", ");
      text = `Witness: no rate is above what the smaller ones fill: ${chain}${distinct.length > 6 ? " and so on" : ""}.`;
    } else {
      const { layer, rate, fills } = steps[steps.length - 1];
      text = `Witness: offset ${fills} from the field’s edge. The smaller rates fill ${fills} px, rate ${rate} steps over ` +
        `more. First lower layer ${layer} to at most ${fills}, or add layers of smaller rates.`;
    }
    this.part("witness").textContent = text;
  }

  numbers() {
    const { side, axes, coverage, seen, rule, gridding, lattice, width, overlap, factor, taps, layers } = this.field;
    const list = this.part("numbers");
    list.replaceChildren();
    const add = (name, value, more = "") => {
      const text = element("dd", value);
      if (more) text.append(" ", element("small", more));
      list.append(element("dt", name), text);
    };
    add("receptive field", axes === 2 ? `${side} × ${side} px` : `${side} px`);
    add("coverage", share(coverage) + (axes === 2 ? ` per axis, ${share(seen)} in 2-D` : ""));
    if (rule === null) add("HDC rule", "says nothing of parallel branches");
    else {
      const parts = [
        ...(rule.m2 === null ? [] : [`M₂ = ${rule.m2}, K = ${taps}`]),
        ...(factor > 1 ? ["a common factor"] : []),
        rule.accepts ? "accepts" : "rejects",
      ];
      add("HDC rule", `${parts.join(", ")}: ${rule.agrees ? "✓ right" : "✗ wrong"},`, `there are ${this.field.gapFree ? "no " : ""}holes`);
    }
    if (this.ripple === null) add("predicted ripple", "not predicted here", `for parallel branches and rates above ${known.max_ripple_rate}`);
    else {
      const { db: value, m, period, tried } = this.ripple;
      add(
        "predicted ripple",
        tried ? `${db(value)} ± ${known.spread}` : db(value),
        `when trained, ${state.stem ? (axes === 2 ? "after a 3×3 stem" : "after a stem of 3") : "without a stem"}, at a period of ` +
          `${digits(period / m)} px${tried ? "" : `; ${known.untried}`}`,
      );
    }
    if (lattice !== null && lattice.period !== null) {
      add("lattice", share(lattice.share), `of the layers have rates that are multiples of ${lattice.period}`);
    }
    const peak = gridding.period === null ? "" : `at a period of ${digits(gridding.period / gridding.numerator)} px; `;
    add("gridding G", gridding.index.toFixed(3), `${peak}the ripple of equal weights: 0 is best, 1 worst`);
    add("effective width", `${width.toFixed(2)} px`, "standard deviation of the paths");
    add("neighbour overlap", overlap.toFixed(3), "of what adjacent outputs see");
    add("common factor", String(factor));
    if (this.side.padding === "valid") {
      const left = state.map - side + 1;
      add(`on ${state.map} px maps`, left > 0 ? `${left} px are left without padding` : "nothing is left without padding");
    } else {
      const lost = hdc.padding(layers, taps, axes, state.map, this.side.padding === "causal");
      const where = this.side.padding === "causal" ? "the padding, all of it before the map" : "the padding";
      const each = lost.length > 8 ? "" : `: ${lost.map(share).join(", ")}`;
      add(`on ${state.map} px maps`, share(lost.reduce((a, b) => a + b) / lost.length), `of the taps fall into ${where}${each}`);
    }
  }

  draw() {
    const { field } = this;
    if (field === null) return;
    const span = extent(field, cards[1 - this.at].field);
    this.drawn = { field: drawField(this.part("field"), field, span), profile: drawProfile(this.part("profile"), field, span) };
    const bins = Math.min(field.side, Math.floor(this.part(field.axes === 2 ? "field" : "profile").clientWidth));
    const several = bins < field.side ? `; a dot stands for ${(field.side / bins).toFixed(1)} px` : "";
    this.part("scale").textContent = `${field.axes === 2 ? `${field.side} × ${field.side} px around` : `${field.side} px that lead to`} one output${several}`;
    const holes = field.gapFree ? "no holes" : `${share(1 - field.seen)} holes`;
    this.part("field").setAttribute("aria-label", `Map of the field, ${field.side} by ${field.side} pixels, ${holes}. Arrow keys read the path counts.`);
    this.part("profile").setAttribute("aria-label", `Paths along one axis, ${field.side} pixels, ${field.side - field.covered} of them holes. Arrow keys read the path counts.`);
    if (this.cursor) this.mark();
  }

  point(name, event) {
    if (!this.field || !this.drawn?.[name]) return;
    const { left, step } = this.drawn[name];
    const box = event.target.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left - left) / step);
    const y = name === "field" ? Math.floor((event.clientY - box.top - left) / step) : null;
    const inside = [x, y ?? 0].every((at) => at >= 0 && at < this.field.side);
    this.move(inside ? [y, x] : null);
  }

  key(name, event) {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!step || !this.field) return;
    event.preventDefault();
    const clamp = (value) => Math.max(0, Math.min(this.field.side - 1, value));
    const [y, x] = this.cursor ?? [this.middle, this.middle];
    this.move([name === "field" ? clamp((y ?? this.middle) + step[0]) : null, clamp(x + step[1])]);
  }

  move(cursor) {
    if (!this.field) return;
    const same = String(cursor) === String(this.cursor);
    this.cursor = cursor;
    if (!same) this.draw();
    if (cursor === null) this.part("readout").textContent = "";
  }

  mark() {
    const [y, x] = this.cursor;
    const { field } = this;
    for (const [name, drawn] of Object.entries(this.drawn)) {
      if (!drawn || (name === "field" && y === null)) continue;
      const { pen, left, step } = drawn;
      pen.strokeStyle = colour("--ink");
      pen.lineWidth = 2;
      if (name === "field") pen.strokeRect(left + x * step, left + y * step, step, step);
      else pen.strokeRect(left + x * step, 1, Math.max(step, 1), drawn.height - 2);
    }
    const two = field.axes === 2 && y !== null;
    const count = two ? field.count(y, x) : field.along(x);
    const about = two ? field.value(y, x) : field.line[x];
    const number = count === null ? `about ${about.toPrecision(4)}` : grouped(count);
    const where = two ? `row ${y}, column ${x}` : `offset ${x}`;
    const unit = count === 1n ? "path" : "paths";
    this.part("readout").textContent = `${where}: ${about === 0 ? "a hole, no path" : `${number} ${unit}`}`;
  }

  tabulate() {
    const box = this.root.querySelector(".counts");
    if (!box.open || !this.field) return;
    const rows = [];
    for (let x = 0; x < Math.min(this.field.side, ROWS); x++) {
      const count = this.field.along(x);
      const text = count === null ? `about ${this.field.line[x].toPrecision(4)}` : grouped(count);
      rows.push({ cells: [String(x), text, this.field.line[x] > 0 ? "seen" : "× hole"] });
    }
    const note = this.field.side > ROWS ? `The first ${ROWS} of ${this.field.side} offsets. ` : "";
    const two = this.field.axes === 1 ? "" : this.field.stack
      ? "A pixel has the product of its row’s and its column’s paths." : "Summed over the other axis.";
    box.querySelector(".scroll").replaceChildren(element("p", note + two), table(["offset", "paths", ""], rows));
  }

  /** What takes longer: once typing and sliding has paused. */
  *later() {
    const [orders, better] = [this.part("orders"), this.part("better")];
    const strip = this.part("strip");
    const details = orders.querySelector("details");
    strip.hidden = details.hidden = true;
    better.querySelector(".scroll").replaceChildren();
    const say = (box, text) => (box.querySelector("p").textContent = text);
    if (this.failed) return;
    if (!this.field.stack || Math.max(...this.field.layers.flat()) > 256) {
      const why = "Not computed here for parallel branches and rates above 256.";
      say(orders, why);
      say(better, why);
      return;
    }
    const rates = this.field.layers.flat();
    const { taps } = this.field;
    const mine = this.ripple.db;
    const found = hdc.orders(rates, taps, state.stem);
    if (new Set(rates).size === 1) say(orders, "All rates are equal: there is one order.");
    else if (found === null) {
      const ripple = (order) => db(hdc.ripple(...hdc.withStem(order, taps, state.stem)).db);
      const up = [...rates].sort((a, b) => a - b);
      const number = hdc.numberOfOrders(rates);
      const many = number < 1e6 ? grouped(number) : `about ${grouped(Number(number.toPrecision(2)))}`;
      say(orders, `These rates have ${many} orders, too many to list here. Predicted: ${db(mine)} in this order, ` +
        `${ripple(up)} ascending, ${ripple([...up].reverse())} descending. hdc.search.best_order in Python finds the best.`);
    } else {
      strip.hidden = details.hidden = false;
      const [first, last] = [found[0], found[found.length - 1]];
      const place = found.filter((one) => one.db < mine - 1e-6).length + 1;
      const tie = mine - first.db < known.spread;
      say(orders, `Of ${grouped(found.length)} orders, predicted from ${db(first.db)} (${first.rates.join(",")}) to ${db(last.db)} ` +
        `(${last.rates.join(",")}). This one: ${db(mine)}, number ${grouped(place)}${tie ? "; a tie with the best, within the error" : ""}. ` +
        "All see the same.");
      const marks = [{ value: first.db, text: "best", name: "--link" }, { value: mine, text: "this", name: "--bad" }];
      this.strip = () => drawStrip(strip, found, place === 1 ? [{ ...marks[1], text: "this is the best" }] : marks);
      this.strip();
      strip.setAttribute("aria-label", orders.querySelector("p").textContent);
      const shown = found.length > 60 ? [...found.slice(0, 30), ...found.slice(-30)] : found;
      const rows = shown.map((one) => ({
        cells: [one.rates.join(","), db(one.db), use(this, one.rates)],
        own: one.rates.join() === rates.join(),
      }));
      const note = found.length > 60 ? "The 30 best and the 30 worst." : "";
      details.querySelector(".scroll").replaceChildren(element("p", note), table(["order", "predicted", ""], rows));
    }
    say(better, "Searching …");
    yield;
    const search = hdc.better(rates, taps, state.stem, TOP);
    let step = search.next();
    while (!step.done) {
      yield;
      step = search.next();
    }
    const result = step.value;
    const more = result.layers > rates.length ? `${rates.length} layers cannot cover ${result.field} px without holes; ${result.layers} can. ` : "";
    if (result.found === null) {
      say(better, `${more}${result.why}. In the shell: ${result.command}`);
      return;
    }
    const sets = result.sets === 1 ? "There is one gap-free set" : `The best of ${grouped(result.sets)} gap-free sets`;
    const own = result.found.some((one) => one.rates.join() === rates.join());
    say(better, `${more}${sets} of rates with ${result.layers} ${result.layers === 1 ? "layer" : "layers"} and ${result.field} px, each in its best order ` +
      `(this schedule: ${db(mine)}${own ? ", in bold" : ""}). Within ${known.spread} dB they are ties, the widest first.`);
    better.querySelector(".scroll").replaceChildren(
      table(
        ["rates", "predicted", "G", "width", ""],
        result.found.map((one) => {
          const { gridding, width } = hdc.field(one.rates.map((rate) => [rate]), taps, 1);
          return {
            cells: [one.rates.join(","), db(one.db), gridding.index.toFixed(3), width.toFixed(2), use(this, one.rates)],
            own: one.rates.join() === rates.join(),
          };
        }),
      ),
    );
  }
}

// ---- together ----

let waiting = null;

/** Run what takes longer in slices, so that the page stays alive; a later change takes its place. */
const runLater = () => {
  clearTimeout(waiting);
  const work = cards.map((card) => card.later());
  const slice = () => {
    const end = performance.now() + 12;
    while (work.length && performance.now() < end) if (work[0].next().done) work.shift();
    document.documentElement.dataset.busy = String(work.length > 0);
    if (work.length) waiting = setTimeout(slice);
  };
  document.documentElement.dataset.busy = "true";
  waiting = setTimeout(slice, 150);
};

const draw = () => cards.forEach((card) => card.draw());

const changed = () => {
  write();
  byId("copied").textContent = "";
  cards.forEach((card) => {
    card.strip = null;
    card.show();
  });
  draw();
  runLater();
};

const cards = LETTERS.map((_, at) => new Card(at));

const start = () => {
  read();
  byId("map").value = state.map;
  byId("stem").checked = state.stem;
  cards.forEach((card) => card.controls());
  changed();
};

byId("spread").textContent = known.spread;
byId("map").addEventListener("input", ({ target }) => {
  const size = Number(target.value);
  const good = Number.isInteger(size) && size >= 1 && size <= known.max_field;
  target.setAttribute("aria-invalid", String(!good));
  if (!good) return;
  state.map = size;
  changed();
});
byId("stem").addEventListener("change", ({ target }) => {
  state.stem = target.checked;
  changed();
});
byId("shared").addEventListener("submit", (event) => event.preventDefault());
byId("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    byId("copied").textContent = "copied";
  } catch {
    byId("copied").textContent = "The address bar has the link.";
  }
});
window.addEventListener("hashchange", start);
const redraw = () => {
  draw();
  cards.forEach((card) => card.strip?.());
};
window.addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
start();
