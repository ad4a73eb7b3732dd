// What all parts of the script use: elements, the inlined data, numbers in words.
const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const data = Object.fromEntries(["rows", "figures", "pairs", "pictures", "tables"].map((id) => [id, JSON.parse($("#" + id).textContent)]));

const element = (tag, text = "", attributes = {}) => {
  const made = document.createElement(tag);
  if (text !== "") made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const button = (text, attributes = {}) => element("button", text, { type: "button", ...attributes });

// The results table: a column holds one value for all rows, one per row, distinct values with codes in runs, or values
// that another column decides.
const codes = (name) => {
  const column = data.rows[name];
  if (!column.codes && column.runs) {
    const length = column.runs.reduce((sum, value, i) => sum + (i % 2 ? value : 0), 0);
    column.codes = new Int32Array(length);
    for (let i = 0, at = 0; i < column.runs.length; at += column.runs[i + 1], i += 2)
      column.codes.fill(column.runs[i], at, at + column.runs[i + 1]);
  }
  return column.codes;
};
const cell = (name, row) => {
  const column = data.rows[name];
  if (column === undefined) return null;
  if ("same" in column) return column.same;
  if ("cells" in column) return column.cells[row];
  const code = codes(column.of ?? name)?.[row] ?? 0; // without codes the deciding column is the same in all rows
  return code < 0 ? null : column.values[code];
};
const quoted = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);
const command = (row) => cell("command", row)?.replace("{model}", () => quoted(cell("model", row)));

// Checkpoints: [name, spec, architecture, source, GMACs].
const models = data.tables.models;
const names = new Map(models.map(([name, spec]) => [spec, name]));
const nameOf = (row) => names.get(cell("model", row)) ?? cell("model", row);

// Percent with one decimal; an exact half goes to the even digit, as in the Markdown table.
const percent = (value) => {
  const x = 100 * value;
  const half = Number.isInteger(4 * x) && !Number.isInteger(2 * x);
  return half ? (2 * Math.round(5 * x) / 10).toFixed(1) : x.toFixed(1);
};
const shownAs = (inPercent) => (value) => (inPercent ? percent(value) : value.toPrecision(4));
const human = (value) => {
  if (value === null || value === undefined) return "–";
  const [unit, suffix] = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]].find(([u]) => value >= 0.9995 * u) ?? [1, ""];
  return `${Number((value / unit).toPrecision(3))}${suffix}`;
};
const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
