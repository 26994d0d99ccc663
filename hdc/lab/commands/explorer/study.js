"use strict";
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const { columns, rows } = read("data"), spec = read("spec");
const filters = document.getElementById("filters");
const axes = ["x", "y"].map((id) => document.getElementById(id));

// ---- sorting: by the numbers that are written, or by words; what is not known stays last ----

const NUMBER = /^(?:[≈?✗] )?([+\-−]?[\d,]*\.?\d+)(?=$|[ %])/;
const cell = (row, place) => row.cells[place].textContent;
const missing = (text) => text === "–" || text === "undefined";

function sort(head) {
  const body = head.closest("table").tBodies[0], place = head.cellIndex;
  const next = { undefined: "ascending", ascending: "descending" }[head.getAttribute("aria-sort") ?? undefined];
  const all = [...body.rows].sort((a, b) => a.dataset.place - b.dataset.place);
  const known = next ? all.filter((row) => !missing(cell(row, place))) : all;
  const numeric = known.every((row) => NUMBER.test(cell(row, place)));
  const value = (row) => +NUMBER.exec(cell(row, place))[1].replaceAll(",", "").replace("−", "-");
  const compare = numeric
    ? (a, b) => value(a) - value(b)
    : (a, b) => cell(a, place).localeCompare(cell(b, place), "en", { numeric: true });
  if (next) known.sort((a, b) => (next === "ascending" ? compare(a, b) : compare(b, a)));
  body.append(...known, ...all.filter((row) => !known.includes(row)));
  for (const one of head.parentElement.cells) one.removeAttribute("aria-sort");
  if (next) head.setAttribute("aria-sort", next);
}

for (const table of document.querySelectorAll("table")) {
  [...table.tBodies[0].rows].forEach((row, place) => (row.dataset.place = place));
  for (const head of table.tHead.rows[0].cells) head.firstChild.addEventListener("click", () => sort(head));
}

// ---- filters: of tables, points and runs alike ----

function shown(row) {
  return [...new FormData(filters)].every(([key, value]) =>
    key === "text" ? row.label.toLowerCase().includes(value.toLowerCase().trim()) : !value || row.keys[key] === value);
}

function filter() {
  const seen = rows.map(shown);
  for (const one of document.querySelectorAll("[data-row]")) one.hidden = !seen[one.dataset.row];
  filters.querySelector("output").textContent = `${seen.filter(Boolean).length} of ${rows.length} rows`;
  draw(rows.filter((_, place) => seen[place]));
}

// ---- the scatter plot ----

function draw(some) {
  const [x, y] = axes.map((one) => one.value), style = getComputedStyle(document.documentElement);
  const [ink, line] = ["--ink", "--line"].map((name) => style.getPropertyValue(name));
  const points = some.map(({ label, kind, values }) => {
    const point = { schedule: label, kind };
    for (const [axis, { mean, low, high, text }] of [["x", values[x]], ["y", values[y]]])
      Object.assign(point, { [axis]: mean, [`${axis}_low`]: low, [`${axis}_high`]: high, [`${axis}_text`]: text });
    return point;
  });
  const dressed = structuredClone(spec);
  dressed.datasets = { rows: points.filter((one) => one.x !== null && one.y !== null) };
  for (const { encoding } of dressed.layer) {
    encoding.x.title = columns[x];
    encoding.y.title = columns[y];
    for (const one of encoding.tooltip ?? []) one.title = { x_text: columns[x], y_text: columns[y] }[one.field] ?? one.field;
  }
  dressed.config = {
    background: null, font: "system-ui, sans-serif", view: { stroke: line }, rule: { color: ink }, point: { stroke: ink },
    axis: { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 12, titleFontSize: 13 },
    legend: { labelColor: ink, labelFontSize: 12, symbolStrokeColor: ink },
  };
  const errors = 1; // no warnings of a column without intervals
  const options = { renderer: "svg", actions: false, logLevel: errors, tooltip: { theme: dark.matches ? "dark" : "light" } };
  vegaEmbed("#chart", dressed, options).then(() => (document.documentElement.dataset.busy = false));
}

const names = Object.keys(columns), dark = matchMedia("(prefers-color-scheme: dark)");
for (const one of axes) {
  one.append(...names.map((name) => new Option(columns[name], name)));
  one.addEventListener("change", filter);
}
axes[0].value = ["test/erf_ripple", "gridding"].find((name) => name in columns) ?? names.at(-1);
dark.addEventListener("change", filter);
filters.addEventListener("input", filter);
filters.addEventListener("reset", () => setTimeout(filter));
filters.addEventListener("submit", (event) => event.preventDefault());

// ---- a link to a row's runs opens them ----

function reveal() {
  const run = document.getElementById(location.hash.slice(1));
  if (run) run.open = true;
}
addEventListener("hashchange", reveal);
reveal();
filter();
