// The columns of tables: heading, what it sorts by, its cells, and what is copied of them.
const valueOf = (found) => {
  if (found === null) return null;
  if (typeof found !== "number") return found;
  return found in data.tables.missing ? null : [cell("value", found), cell("ci_low", found), cell("ci_high", found)];
};
const missingMark = (found, text) => {
  if (found === null) return element("span", "–", { title: "not in these results" });
  return button(text, { class: "v", "data-row": found, title: data.tables.missing[found], tabindex: -1 });
};
const number = (found, said) => {
  if (typeof found !== "number") return element("span", said(found[0]), { title: "a mean of this table" });
  const made = button(said(cell("value", found)), { class: "v", "data-row": found, tabindex: -1 });
  if (cell("status", found) !== "limited") return made;
  made.classList.add("limited");
  made.title = "measured on a part of the data set only";
  return made;
};

const rankColumn = (table) => ({
  title: "#", hint: "1 + the checkpoints whose interval lies wholly above", kind: "number", rising: true, fixed: true,
  sort: (i) => table.ranks[i],
  cell: (i) => element("td", table.ranks[i] ?? "–", { class: "num rank" }),
  copied: (i) => [table.ranks[i] ?? ""],
});
const wrapped = (content) => {
  const made = element("span", "", { class: "tag" });
  made.append(content);
  return made;
};
const modelColumn = (table) => ({
  title: "Model", kind: "text", fixed: true,
  sort: (i) => models[table.models[i]][0],
  cell: (i) => {
    const [name, spec] = models[table.models[i]];
    const made = element("th", "", { scope: "row", title: spec });
    const tag = / \([^)]*\)$/.exec(name)?.[0] ?? ""; // what tells equal names apart
    made.append(highlighted(name.slice(0, name.length - tag.length)));
    if (tag) made.append(" ", wrapped(highlighted(tag.trim())));
    if (table.notes?.[i]) made.append(element("small", table.notes[i]));
    const plotted = table.seen && table.cells.map((cells) => cells[i]).find(hasPoint);
    if (plotted !== undefined) made.append(pointButton(plotted));
    return made;
  },
  copied: (i) => [models[table.models[i]][0] + (table.notes?.[i] ? ` (${table.notes[i]})` : "")],
});
const textColumn = (title, text) => ({
  title, kind: "text", sort: text, copied: (i) => [text(i)],
  cell: (i) => {
    const made = element("td", text(i) ? "" : "–", { class: "source", title: text(i) });
    made.append(highlighted(text(i)));
    return made;
  },
});
const sizeColumn = (title, size) => ({
  title, kind: "number", sort: size, copied: (i) => [size(i) ?? ""],
  cell: (i) => element("td", human(size(i)), { class: "num" }),
});
const bar = ([value, low, high], [least, most]) => {
  const place = (x) => `${((100 * (x - least)) / (most - least || 1)).toFixed(1)}%`;
  const made = element("span", "", { class: "ci", "aria-hidden": "true" });
  made.style.cssText = `--low:${place(low)};--high:${place(high)};--at:${place(value)}`;
  return made;
};
const isKnown = (x) => x !== null && x !== undefined;
const valueColumn = ([title, hint, lower, inPercent, shown, under], found) => {
  const said = shownAs(inPercent);
  const values = found.map(valueOf);
  const spans = values.filter((v) => v && isKnown(v[1]) && isKnown(v[2]));
  const range = [Math.min(...spans.map((v) => v[1])), Math.max(...spans.map((v) => v[2]))];
  return {
    title, hint, under, hidden: !shown, kind: "number", rising: lower,
    sort: (i) => values[i]?.[0],
    heads: spans.length ? ["", " low", " high"] : [""],
    copied: (i) => (values[i] ?? []).slice(0, spans.length ? 3 : 1).map((x) => x ?? ""),
    words: (i) => {
      if (!values[i]) return "–";
      const [value, low, high] = values[i];
      return isKnown(low) && isKnown(high) ? `${said(value)} (${said(low)}–${said(high)})` : said(value);
    },
    cell: (i) => {
      const made = element("td", "", { class: values[i] ? "num" : "num gap" });
      if (!values[i]) return made.append(missingMark(found[i], "missing")), made;
      const [, low, high] = values[i];
      made.append(number(found[i], said));
      if (!isKnown(low) || !isKnown(high)) return made;
      const span = element("span", "", { class: "range" });
      span.append(element("small", `${said(low)}–${said(high)}`), bar(values[i], range));
      made.append(span);
      return made;
    },
  };
};
const meanColumn = (table) => ({
  title: "Mean", hint: "of all columns; checkpoints that lack one have none", kind: "number", fixed: true, group: "",
  sort: (i) => table.means[i],
  cell: (i) => element("td", isKnown(table.means[i]) ? shownAs(table.columns[0][3])(table.means[i]) : "–", { class: "num mean" }),
  words: (i) => (isKnown(table.means[i]) ? shownAs(table.columns[0][3])(table.means[i]) : "–"),
  copied: (i) => [table.means[i] ?? ""],
});
const usualMetric = (table) => {
  const counts = new Map();
  for (const [, under] of table.columns) counts.set(under, (counts.get(under) ?? 0) + 1);
  return [...counts].sort(([, a], [, b]) => b - a)[0]?.[0];
};
const heatColumn = ([title, under, group, inPercent], found, places, metric) => ({
  title, under, group, hint: `${title} · ${metric}`, kind: "number", tilt: true,
  sort: (i) => valueOf(found[i])?.[0],
  words: (i) => (valueOf(found[i]) ? shownAs(inPercent)(valueOf(found[i])[0]) : "–"),
  copied: (i) => [valueOf(found[i])?.[0] ?? ""],
  cell: (i) => {
    const known = valueOf(found[i]);
    const made = element("td", "", known ? {} : { class: "gap" });
    if (known) made.style.setProperty("--at", places[i]);
    if (found[i] === null) made.append(element("span", "not in these results", { class: "hide" }));
    else made.append(known ? number(found[i], shownAs(inPercent)) : missingMark(found[i], "!"));
    return made;
  },
});
const columnsOf = (table) => {
  if (table.means) {
    const usual = usualMetric(table);
    const heat = table.columns.map(([title, under, group, inPercent], at) =>
      heatColumn([title, under === usual ? "" : under, group, inPercent], table.cells[at], table.places[at], under));
    return [modelColumn(table), ...(heat.length > 1 && table.means.some(isKnown) ? [meanColumn(table)] : []), ...heat];
  }
  const fact = (at) => (i) => models[table.models[i]][at];
  return [
    rankColumn(table), modelColumn(table),
    ...table.columns.map((column, at) => valueColumn(column, table.cells[at])),
    textColumn("Source", fact(3)),
    ...(table.seen ? [sizeColumn("Samples seen", (i) => table.seen[i])] : []),
    sizeColumn("GMACs", fact(4)),
  ];
};

