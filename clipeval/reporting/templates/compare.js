// Paired comparison of two checkpoints, the samples that flipped, and all pairs at once.
const signed = (x) => (100 * x).toFixed(1).replace("-", "−").replace(/^(?=\d)/, x > 0 ? "+" : "");
const chance = (p) => (p < 1e-12 ? "< 1e-12" : p < 0.0001 ? p.toExponential(0) : p < 0.001 ? p.toFixed(4) : p.toFixed(3));
const pairKey = (a, b) => (a < b ? `${a}-${b}` : `${b}-${a}`);
const linesOf = (a, b) => {
  const turned = a > b;
  return (data.pairs.pairs[pairKey(a, b)] ?? []).map(([at, value, low, high, p, corrected, onlyA, onlyB, n, test]) => {
    const ends = turned ? [-high, -low] : [low, high];
    const only = turned ? [onlyB, onlyA] : [onlyA, onlyB];
    const origin = [a, b].map((model) => data.pairs.rows[model][at]);
    return { at, name: data.pairs.cells[at], value: turned ? -value : value, ends, only, origin, p, corrected, n, test };
  });
};
const compareLine = (line, index) => {
  const made = element("tr");
  const numeric = (text) => element("td", text, { class: "num" });
  const head = element("th", "", { scope: "row" });
  head.append(element("span", `${index + 1}`, { class: "ordinal" }), line.name[0]);
  made.append(head, element("td", line.name[1]));
  for (const row of line.origin) {
    const at = numeric("");
    at.append(button(percent(cell("value", row)), { class: "v", "data-row": row }));
    made.append(at);
  }
  const texts = [signed(line.value), `${signed(line.ends[0])} to ${signed(line.ends[1])}`, chance(line.p), chance(line.corrected)];
  made.append(...[...texts, ...line.only, line.n].map((value) => numeric(value.toLocaleString("en"))));
  made.lastElementChild.title = line.test;
  return made;
};
const compareFigure = (lines) => {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const places = lines.map((_, i) => lines.length - i);
  const error = { type: "data", symmetric: false, array: lines.map((l) => 100 * (l.ends[1] - l.value)), arrayminus: lines.map((l) => 100 * (l.value - l.ends[0])) };
  const text = lines.map((l) => plain(l.name.join(" · ")));
  const clear = (l) => l.ends[0] > 0 || l.ends[1] < 0;
  const marker = { size: 9, color: lines.map((l) => colour(clear(l) ? "--accent" : "--soft")) };
  const trace = { type: "scatter", mode: "markers", x: lines.map((l) => 100 * l.value), y: places, error_x: { ...error, color: colour("--soft"), thickness: 1.5 }, marker, text, hovertemplate: "<b>%{text}</b><br>%{x:.2f} points<extra></extra>" };
  const height = 110 + 30 * lines.length;
  $("#compare-plot").style.height = `${height}px`;
  const label = (i) => (innerWidth < 700 ? String(i + 1) : `${text[i]}  <b>${i + 1}</b>`);
  const yaxis = { tickvals: places, ticktext: lines.map((_, i) => label(i)), automargin: true, range: [0.3, lines.length + 0.7], showgrid: false };
  const xaxis = { title: { text: "First minus second (percentage points)" }, rangemode: "tozero", zeroline: true, zerolinecolor: colour("--soft") };
  const nothing = "rgba(0,0,0,0)";
  return { data: [trace], layout: { height, xaxis, yaxis, margin: { l: 30, r: 16, t: 12, b: 48 }, paper_bgcolor: nothing, plot_bgcolor: nothing, showlegend: false } };
};

const sampleOf = ([id, words, picture]) => {
  const made = element("li");
  const uri = data.pictures[picture];
  made.append(uri ? element("img", "", { src: uri, alt: id }) : element("span", id, { class: "absent" }));
  if (words) made.append(element("small", words));
  made.title = id;
  return made;
};
const flipsOf = (a, b, lines) => {
  const found = data.pairs.samples.pairs[pairKey(a, b)] ?? {};
  return lines.filter(({ at, only }) => found[at] && only[0] + only[1]).map(({ at, name, only }) => {
    const sides = a < b ? found[at] : [...found[at]].reverse();
    const made = element("details", "", { class: "flips" });
    made.fill = () => {
      if (made.childElementCount > 1) return;
      for (const [side, numbers] of sides.entries()) {
        const head = `Only the ${side ? "second" : "first"} is right: ${numbers.length < only[side] ? `${numbers.length} of ` : ""}${counted(only[side], "sample")}`;
        const list = element("ul", "", { class: "samples" });
        list.append(...numbers.map((number) => sampleOf(data.pairs.samples.cells[at][number])));
        made.append(element("p", head, { class: "note" }), list);
      }
    };
    made.append(element("summary", `${name.join(" · ")}: ${only[0].toLocaleString("en")} and ${only[1].toLocaleString("en")}`));
    made.addEventListener("toggle", made.fill);
    return made;
  });
};

const chosen = () => [Number($("#first").value), Number($("#second").value)];
const compare = () => {
  const [a, b] = chosen();
  const lines = linesOf(a, b);
  $("#compare-table tbody").replaceChildren(...lines.map(compareLine));
  renewStop($("#compare-table"));
  const reason = a === b ? "Choose two different checkpoints." : "These two have no data set with the same samples in common.";
  $("#compare-note").textContent = lines.length ? "" : reason;
  $("#compare-plot").hidden = !lines.length;
  const flips = flipsOf(a, b, lines);
  $("#flips").hidden = !flips.length;
  $("#flips > div").replaceChildren(...flips);
  if (flips.length) {
    flips[0].fill();
    flips[0].open = true;
  }
  if (lines.length) draw($("#compare-plot"), compareFigure(lines));
  for (const marked of all("#pairs-table .here")) marked.classList.remove("here");
  $(`#pairs-table [data-pair="${a}-${b}"]`)?.classList.add("here");
};

// All pairs on one measurement: the row's checkpoint minus the column's, bold where the interval excludes zero.
const drawPairs = () => {
  const at = Number($("#pairs-cell").value);
  const there = data.pairs.rows.map((rows, model) => [model, rows[at]]).filter(([, row]) => row >= 0);
  there.sort(([, x], [, y]) => cell("value", y) - cell("value", x));
  const list = all("#first option").map((option) => option.textContent);
  const head = element("tr");
  head.append(element("td"), ...there.map(([model], i) => element("th", String(i + 1), { scope: "col", title: list[model] })));
  const rows = there.map(([a], i) => {
    const made = element("tr");
    const name = element("th", "", { scope: "row" });
    name.append(element("span", String(i + 1), { class: "ordinal" }), list[a]);
    made.append(name, ...there.map(([b]) => pairCell(a, b, at)));
    return made;
  });
  $("#pairs-table thead").replaceChildren(head);
  $("#pairs-table tbody").replaceChildren(...rows);
  renewStop($("#pairs-table"));
};
const pairCell = (a, b, at) => {
  const made = element("td", "", { "data-pair": `${a}-${b}` });
  const line = a === b ? undefined : linesOf(a, b).find((found) => found.at === at);
  if (!line) return made;
  const pressed = button(signed(line.value), { class: "v", tabindex: -1 });
  const sure = line.ends[0] > 0 ? "better" : line.ends[1] < 0 ? "worse" : "";
  if (sure) made.classList.add(sure);
  pressed.addEventListener("click", () => {
    [$("#first").value, $("#second").value] = [a, b];
    compare();
    remember();
    $("#compare").scrollIntoView();
  });
  made.append(pressed);
  return made;
};
let comparing = false;
const startComparing = () => {
  if (comparing || !$("#first")) return;
  comparing = true;
  compare();
  drawPairs();
};
if ($("#first")) {
  for (const table of ["#compare-table", "#pairs-table"]) roam($(table));
  for (const menu of ["#first", "#second"]) $(menu).addEventListener("change", compare);
  $("#pairs-cell").addEventListener("change", drawPairs);
  new IntersectionObserver(([{ isIntersecting }], self) => {
    if (!isIntersecting) return;
    self.disconnect();
    startComparing();
  }, { rootMargin: "400px" }).observe($("#compare"));
  // before it comes into view, if there is time: what lies below must not move under a finger
  (window.requestIdleCallback ?? setTimeout)(startComparing);
}
