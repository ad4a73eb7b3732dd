// Where a number comes from: first what people ask for, then all columns of its row.
const dialog = $("#origin");
const grouped = (value) => {
  if (typeof value !== "number" || Math.abs(value) < 10000) return String(value);
  return `${value.toLocaleString("en", { maximumFractionDigits: 20 })} (${human(value)})`;
};
const answers = (row) => {
  const [value, low, high] = ["value", "ci_low", "ci_high"].map((name) => cell(name, row));
  const known = (name) => cell(name, row) ?? "";
  const share = (x) => (Math.abs(x) <= 1 ? `${(100 * x).toFixed(2)} %` : grouped(x));
  return [
    ["Value", value === null ? "" : `${share(value)}  (exactly ${value})`],
    ["95 % interval", low === null || high === null ? "" : `${share(low)} to ${share(high)}`],
    ["Why missing", data.tables.missing[row] ?? ""],
    ["Measured on", typeof known("n") === "number" ? counted(known("n"), "sample") : ""],
    ["Metric", known("metric")],
    ["Data set", `${known("dataset")}${known("shots") === "" ? "" : `, ${known("shots")} shots`}`],
    ["Task", known("task")],
    ["Checkpoint", nameOf(row)],
    ["In full", nameOf(row) === known("model") ? "" : known("model")],
    ["Published in", known("reference")],
    ["Date (UTC)", String(known("started_at")).slice(0, 16).replace("T", " ")],
    ["Again with", command(row) ?? ""],
  ].filter(([, text]) => text !== "");
};
const showOrigin = (row) => {
  const list = $("dl", dialog);
  list.replaceChildren(...answers(row).flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
  const lines = Object.keys(data.rows)
    .map((name) => [name, name === "command" ? command(row) : cell(name, row)])
    .filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => {
      const line = element("tr");
      line.append(element("th", name, { scope: "row" }), element("td", name === "value" ? String(value) : grouped(value)));
      return line;
    });
  $("tbody", dialog).replaceChildren(...lines);
  $(".to-plot", dialog).replaceChildren(...(hasPoint(row) ? [pointButton(row, SHOW)] : []));
  dialog.showModal();
  $(".inside", dialog).scrollTop = 0;
};
document.addEventListener("click", (event) => {
  const pressed = event.target.closest("button[data-row]");
  if (pressed) showOrigin(Number(pressed.dataset.row));
  for (const open of all("dialog[open]")) if (event.target === open) open.close();
});
