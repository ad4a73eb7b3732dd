// Where rows of the table have their point in a scaling plot, and how it is marked there.
const measurementOf = (row) => ["task", "dataset", "metric", "shots"].map((name) => cell(name, row) ?? "").join("\n");
const plotOf = new Map(data.tables.plots.map(([id, ...about]) => [about.map((fact) => fact ?? "").join("\n"), id]));
const drawnIn = new Map();
const checkpointsIn = (plot) => {
  if (!drawnIn.has(plot)) {
    const rows = data.figures[plot].data.flatMap((trace) => trace.customdata ?? []);
    drawnIn.set(plot, new Set(rows.map((row) => cell("model", row))));
  }
  return drawnIn.get(plot);
};
const hasPoint = (row) => {
  const plot = typeof row === "number" ? plotOf.get(measurementOf(row)) : undefined;
  return plot !== undefined && checkpointsIn(plot).has(cell("model", row));
};
const ringAround = (figure, row) => {
  const model = cell("model", row);
  for (const { x, y, customdata, visible } of figure) {
    const at = customdata?.findIndex((other) => cell("model", other) === model) ?? -1;
    if (at < 0) continue;
    const color = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
    const marker = { symbol: visible ? "circle" : "circle-open", size: 24, opacity: visible ? 0.6 : 1, color, line: { width: 2.5 } };
    const name = plain(nameOf(row));
    return { type: "scatter", mode: "markers", meta: { ring: true }, x: [x[at]], y: [y[at]], marker, name, hoverinfo: "skip" };
  }
  return null;
};
const showPoint = async (row) => {
  const menu = $("select[data-switch=scaling]");
  menu.value = plotOf.get(measurementOf(row));
  menu.dispatchEvent(new Event("change", { bubbles: true }));
  const place = $(`#scaling [data-figure="${menu.value}"]`);
  place.scrollIntoView({ block: "center" });
  await drawOnce(place);
  const figure = place.data.filter(({ meta }) => !meta?.ring);
  const ring = ringAround(figure, row);
  await Plotly.react(place, ring ? [...figure, ring] : figure, place.layout, settings);
  place.setAttribute("tabindex", -1);
  place.focus({ preventScroll: true });
};
document.addEventListener("click", ({ target }) => {
  const pressed = target.closest("button[data-point]");
  if (!pressed) return;
  pressed.closest("dialog")?.close();
  showPoint(Number(pressed.dataset.point));
});
const SHOW = "Show in the scaling plot";
const pointButton = (row, text = "") => button(text, { class: "inplot", "data-point": row, "aria-label": SHOW, title: SHOW, tabindex: text ? 0 : -1 });
