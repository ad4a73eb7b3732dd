"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = Object.fromEntries(["rows", "figures", "pairs"].map((id) => [id, JSON.parse($("#" + id).textContent)]));

  // Where numbers come from: a column holds one value for all rows, or its distinct values and a code per row.
  const cell = (name, row) => {
    const column = data.rows[name];
    if (column === undefined) return undefined;
    return "same" in column ? column.same : column.values[column.codes[row]];
  };
  const element = (tag, text, attributes = {}) => {
    const made = Object.assign(document.createElement(tag), { textContent: text });
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };
  const dialog = $("#origin");
  const showOrigin = (row) => {
    const lines = Object.keys(data.rows)
      .map((name) => [name, cell(name, row)])
      .filter(([, value]) => value !== undefined && value !== "")
      .map(([name, value]) => {
        const line = element("tr", "");
        line.append(element("th", name, { scope: "row" }), element("td", String(value)));
        return line;
      });
    $("tbody", dialog).replaceChildren(...lines);
    dialog.showModal();
    $(".scroll", dialog).scrollTop = 0;
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-row]");
    if (button) showOrigin(Number(button.dataset.row));
    if (event.target === dialog) dialog.close();
  });

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
  const draw = async (place, figure) => {
    place.dataset.drawn = "yes";
    for (const trace of figure.data) trace.text ??= trace.customdata?.map((row) => plain(cell("model", row)));
    await Plotly.react(place, figure.data, figure.layout, settings);
    await Plotly.relayout(place, looks());
    place.removeAllListeners("plotly_click");
    place.on("plotly_click", ({ points }) => {
      if (Number.isInteger(points[0].customdata)) showOrigin(points[0].customdata);
    });
  };
  const watcher = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting || target.dataset.drawn) continue;
      draw(target, data.figures[target.dataset.figure]);
    }
  }, { rootMargin: "200px" });
  all(".plot[data-figure]").forEach((place) => watcher.observe(place));
  const restyle = () => all(".plot[data-drawn]").forEach((place) => Plotly.relayout(place, looks()));
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", restyle);

  // Menus that choose one panel of a group.
  for (const menu of all("select[data-switch]")) {
    const panels = all(`[data-group="${menu.dataset.switch}"] > .panel`);
    const choose = () => {
      for (const panel of panels) panel.hidden = panel.id !== menu.value;
      count();
    };
    menu.addEventListener("change", choose);
    menu.addEventListener("restore", choose);
  }

  // Sorting: numbers by data-v, words by their text; what is missing stays last.
  const sortValue = (cell, kind) => {
    if (kind === "text") return cell.textContent;
    return cell.dataset.v === "" ? NaN : Number(cell.dataset.v);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.sort");
    if (!button) return;
    const head = button.closest("th");
    const { kind } = button.dataset;
    const first = kind === "text" || head.cellIndex === 0 ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    all("th[aria-sort]", head.parentNode).forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const body = $("tbody", head.closest("table"));
    const keyed = [...body.rows].map((row) => [sortValue(row.cells[head.cellIndex], kind), row]);
    keyed.sort(([a], [b]) => {
      if (kind === "text") return sign * a.localeCompare(b, "en", { numeric: true });
      return Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || 0;
    });
    body.append(...keyed.map(([, row]) => row));
  });

  // Filters: of the leaderboards and heat maps.
  const count = () => {
    const rows = all('[data-group="boards"] > .panel:not([hidden]) tbody tr');
    const shown = rows.filter((row) => !row.hidden).length;
    if (rows.length) $("#filter-count").textContent = `${shown} of ${rows.length} lines`;
  };
  const filter = () => {
    const word = $("#filter-model").value.trim().toLowerCase();
    const [source, arch] = [$("#filter-source").value, $("#filter-arch").value];
    for (const { dataset: facts, ...row } of all("table.filterable tbody tr").map((tr) => ({ dataset: tr.dataset, tr }))) {
      const named = !word || facts.model.toLowerCase().includes(word);
      row.tr.hidden = !(named && (!source || facts.source === source) && (!arch || facts.arch === arch));
    }
    count();
  };
  if ($("#filters")) {
    $("#filters").addEventListener("input", filter);
    $("#filters").addEventListener("submit", (event) => event.preventDefault());
    filter();
  }

  // Paired comparison of two checkpoints.
  const sign = (x) => (100 * x).toFixed(1).replace("-", "−").replace(/^(?=\d)/, x > 0 ? "+" : "");
  const chance = (p) => (p < 1e-12 ? "< 1e-12" : p < 0.001 ? p.toExponential(0) : p.toFixed(3));
  const compare = () => {
    const [a, b] = [Number($("#first").value), Number($("#second").value)];
    const turn = a > b ? -1 : 1;
    const found = data.pairs.pairs[turn > 0 ? `${a}-${b}` : `${b}-${a}`] || [];
    const lines = found.map(([at, value, low, high, p, corrected, onlyA, onlyB, n, test]) => {
      const ends = turn > 0 ? [low, high] : [-high, -low];
      const only = turn > 0 ? [onlyA, onlyB] : [onlyB, onlyA];
      const origin = [a, b].map((model) => data.pairs.rows[model][at]);
      return { name: data.pairs.cells[at], value: turn * value, ends, only, origin, p, corrected, n, test };
    });
    $("#compare-table tbody").replaceChildren(...lines.map(compareLine));
    const reason = a === b ? "Choose two different checkpoints." : "These two have no data set with the same samples in common.";
    $("#compare-note").textContent = lines.length ? "" : reason;
    $("#compare-plot").hidden = !lines.length;
    if (lines.length) draw($("#compare-plot"), compareFigure(lines));
  };
  const compareLine = (line) => {
    const made = element("tr", "");
    const number = (text) => element("td", text, { class: "num" });
    made.append(element("th", line.name[0], { scope: "row" }), element("td", line.name[1]));
    for (const row of line.origin) {
      const at = number("");
      at.append(element("button", (100 * cell("value", row)).toFixed(1), { class: "v", type: "button", "data-row": row }));
      made.append(at);
    }
    const texts = [sign(line.value), `${sign(line.ends[0])} to ${sign(line.ends[1])}`, chance(line.p), chance(line.corrected)];
    made.append(...[...texts, ...line.only, line.n].map((value) => number(value.toLocaleString("en"))));
    made.lastElementChild.title = line.test;
    return made;
  };
  const compareFigure = (lines) => {
    const style = getComputedStyle(document.documentElement);
    const places = lines.map((_, i) => lines.length - i);
    const error = { type: "data", symmetric: false, array: lines.map((l) => 100 * (l.ends[1] - l.value)), arrayminus: lines.map((l) => 100 * (l.value - l.ends[0])) };
    const trace = { type: "scatter", mode: "markers", x: lines.map((l) => 100 * l.value), y: places, error_x: error, marker: { size: 9, color: style.getPropertyValue("--accent").trim() }, text: lines.map((l) => plain(l.name.join(" · "))), hovertemplate: "<b>%{text}</b><br>%{x:.2f} points<extra></extra>" };
    const height = 110 + 30 * lines.length;
    $("#compare-plot").style.height = `${height}px`;
    const yaxis = { tickvals: places, ticktext: trace.text, automargin: true, range: [0.3, lines.length + 0.7], showgrid: false };
    if (innerWidth < 600) Object.assign(yaxis, { ticktext: places.map((p) => String(lines.length - p + 1)) });
    const clear = "rgba(0,0,0,0)";
    return { data: [trace], layout: { height, xaxis: { title: { text: "First minus second (percentage points)" }, rangemode: "tozero", zeroline: true, zerolinecolor: style.getPropertyValue("--soft").trim() }, yaxis, margin: { l: 30, r: 16, t: 12, b: 48 }, paper_bgcolor: clear, plot_bgcolor: clear, showlegend: false } };
  };
  if ($("#first")) {
    for (const menu of ["#first", "#second"]) $(menu).addEventListener("change", compare);
    new IntersectionObserver(([{ isIntersecting }], self) => {
      if (!isIntersecting) return;
      self.disconnect();
      compare();
    }, { rootMargin: "400px" }).observe($("#compare"));
  }
})();
