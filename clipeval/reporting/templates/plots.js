// Plots: drawn by Plotly when first seen, in the colours of the page.
const looks = () => {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue("--" + name).trim();
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), tickcolor: colour("line") };
  return {
    "font.color": colour("ink"),
    "font.size": 12.5,
    "font.family": getComputedStyle(document.body).fontFamily,
    "hoverlabel.bgcolor": colour("paper"),
    "hoverlabel.bordercolor": colour("soft"),
    "hoverlabel.font.color": colour("ink"),
    "hoverlabel.align": "left",
    "legend.maxheight": 88,
    "modebar.bgcolor": "rgba(0,0,0,0)",
    "modebar.color": colour("soft"),
    "modebar.activecolor": colour("ink"),
    ...Object.fromEntries(["xaxis", "yaxis"].flatMap((a) => Object.entries(axis).map(([k, v]) => [`${a}.${k}`, v]))),
  };
};
const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;"); // Plotly reads some HTML
// What a point says: the checkpoint, what its name leaves out, its value with interval and n, its compute.
const told = (row, { metric, percent }) => {
  const [value, low, high, n, seen] = ["value", "ci_low", "ci_high", "n", "samples_seen"].map((name) => cell(name, row));
  const shown = (x) => (percent ? (100 * x).toFixed(2) : Number(x.toPrecision(5)));
  const inName = nameOf(row).split(" · ");
  const facts = [cell("source", row), cell("arch", row)].filter((fact) => fact && !inName.includes(fact));
  if (seen !== null && !inName.includes(human(seen))) facts.push(`${human(seen)} samples seen`);
  const ends = low === null || high === null ? "" : ` (${shown(low)}–${shown(high)})`;
  const compute = cell("gmacs_total", row) ?? (cell("gmacs", row) ?? NaN) * seen;
  return [
    `<b>${plain(nameOf(row))}</b>`,
    plain(facts.join(", ")),
    `${plain(metric)} ${shown(value)}${percent ? " %" : ""}${ends}${n === null ? "" : `, n = ${n.toLocaleString("en")}`}`,
    compute ? `${human(compute)} GMACs` : "",
  ].filter(Boolean).join("<br>");
};
const draw = async (place, figure) => {
  place.dataset.drawn = "yes";
  for (const trace of figure.data) {
    trace.text ??= trace.customdata?.map((row) => (trace.meta ? told(row, trace.meta) : plain(nameOf(row))));
  }
  await Plotly.react(place, figure.data, figure.layout, settings);
  await Plotly.relayout(place, looks());
  for (const name of ["plotly_click", "plotly_autosize"]) place.removeAllListeners(name);
  place.on("plotly_autosize", () => Plotly.redraw(place)); // a legend that has other lines now finds its place
  place.on("plotly_click", ({ points }) => {
    if (Number.isInteger(points[0].customdata)) showOrigin(points[0].customdata);
  });
};
const drawOnce = (place) => (place.drawing ??= draw(place, structuredClone(data.figures[place.dataset.figure]))); // may be in two places
const watcher = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) if (isIntersecting) drawOnce(target);
}, { rootMargin: "200px" });
all(".plot[data-figure]").forEach((place) => watcher.observe(place));
const restyle = () => all(".plot[data-drawn]").forEach((place) => Plotly.relayout(place, looks()));
for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", restyle);

// Smoothing of a curve: an exponential mean of what came before, without the pull of its beginning.
const smoothed = (values, weight) => {
  let [sum, total] = [0, 0];
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
};
for (const slider of all("input[data-smooth]")) {
  slider.addEventListener("input", () => {
    const figure = data.figures[slider.dataset.smooth];
    for (const trace of figure.data) trace.y = smoothed((trace.raw ??= trace.y), Number(slider.value));
    draw($(`[data-figure="${slider.dataset.smooth}"]`), figure);
  });
}
