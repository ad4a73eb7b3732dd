// Tables: drawn from the data, a hundred lines at first; sorted, filtered, copied; one tab stop, arrow keys inside.
const FIRST = 100;
const WHOLE = 30; // lines that are shown without a scroll bar of their own
// In tables one button is a tab stop; arrow keys go on from it.
const stop = (table, target) => {
  if (target?.localName !== "button") return;
  table.stopAt?.setAttribute("tabindex", -1);
  table.stopAt = target;
  target.setAttribute("tabindex", 0);
};
const move = (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  const from = event.target.closest("th, td");
  if (!step || !from || event.target.localName !== "button") return;
  const rows = [...from.closest("table").rows].filter((row) => !row.classList.contains("suites"));
  let [row, column] = [rows.indexOf(from.parentNode), from.cellIndex];
  for (;;) {
    [row, column] = [row + step[0], column + step[1]];
    const next = rows[row]?.cells[column];
    if (!next) return;
    if (!$("button", next)) continue;
    event.preventDefault();
    $("button", next).focus();
    return;
  }
};
const roam = (table) => {
  table.addEventListener("keydown", move);
  table.addEventListener("focusin", ({ target }) => stop(table, target));
};
const renewStop = (table) => {
  for (const found of all("button", table)) found.setAttribute("tabindex", -1);
  stop(table, $("button", table));
};

class Sheet {
  constructor(place) {
    this.place = place;
    this.table = data.tables.tables[place.dataset.table];
    this.columns = columnsOf(this.table);
    this.order = this.table.models.map((_, i) => i);
    this.limit = FIRST;
    this.build();
  }

  get shown() {
    return this.columns.filter((column) => !column.hidden);
  }

  get lines() {
    return this.order.filter((i) => isWanted(this.table.models[i]));
  }

  build() {
    const { title, about } = this.table;
    const isHeat = Boolean(this.table.means);
    this.body = element("tbody");
    this.head = element("thead");
    const caption = element("caption", title + " ");
    const mixed = new Set(this.table.columns.map(([, under]) => under)).size > 1;
    const metric = isHeat ? `${usualMetric(this.table)}${mixed ? " where no other is named" : ""}` : about;
    const said = [metric, counted(this.table.models.length, isHeat ? "checkpoint" : "line")].filter(Boolean).join(" · ");
    caption.append(element("span", said));
    const table = element("table", "", { class: isHeat ? `heat${this.table.columns.length <= 6 ? " few" : ""}` : "board" });
    this.widths = element("colgroup");
    table.append(caption, this.widths, this.head, this.body);
    this.scroll = element("div", "", { class: "scroll" });
    this.scroll.append(table);
    this.more = button("", { class: "more" });
    this.more.addEventListener("click", () => this.showAll());
    this.place.replaceChildren(this.tools(isHeat), this.scroll, this.more);
    roam(table);
    this.drawHead();
    this.draw();
  }

  tools(isHeat) {
    const made = element("div", "", { class: "tools" });
    const copy = (title, text) => {
      const pressed = button(title);
      pressed.addEventListener("click", () => copied(pressed, text()));
      return pressed;
    };
    if (!isHeat && this.columns.length > 4) made.append(this.chooser());
    const cite = button("Cite");
    cite.addEventListener("click", () => showCitation(cite, this.citation()));
    made.append(copy("Copy CSV", () => this.csv()), copy("Copy Markdown", () => this.markdown()), cite);
    return made;
  }

  chooser() {
    const made = element("details", "", { class: "columns" });
    const list = element("div");
    for (const column of this.columns.filter(({ fixed }) => !fixed)) {
      const pressed = button([column.title, column.under].filter(Boolean).join(" · "), { "aria-pressed": String(!column.hidden) });
      pressed.addEventListener("click", () => {
        column.hidden = !column.hidden;
        pressed.setAttribute("aria-pressed", String(!column.hidden));
        this.drawHead();
        this.draw();
      });
      list.append(pressed);
    }
    made.append(element("summary", "Columns"), list);
    return made;
  }

  drawHead() {
    const line = element("tr");
    for (const column of this.shown) {
      const head = element("th", "", { scope: "col", class: column.tilt ? "tilt" : column.kind === "text" ? "" : "num" });
      head.title = column.hint ?? column.title;
      const sorter = button("", { class: "sort", tabindex: -1 });
      sorter.append(element("span", column.title));
      if (column.under) sorter.append(element("small", column.under));
      sorter.addEventListener("click", () => this.sort(column, head));
      if (column === this.sorted) head.setAttribute("aria-sort", this.falls ? "descending" : "ascending");
      head.append(sorter);
      line.append(head);
    }
    this.head.replaceChildren(...this.suites(), line);
    this.widths.replaceChildren(...this.shown.map(({ title }) => element("col", "", title === "Model" || title === "Mean" ? { class: title.toLowerCase() } : {})));
  }

  suites() {
    const groups = [];
    for (const { group } of this.shown) {
      if (groups.length && groups.at(-1).name === group) groups.at(-1).span += 1;
      else groups.push({ name: group, span: 1 });
    }
    if (groups.filter(({ name }) => name).length < 2) return [];
    const line = element("tr", "", { class: "suites" });
    for (const { name, span } of groups) {
      const made = element(name ? "th" : "td", name ?? "", { colspan: span });
      if (name) made.setAttribute("scope", "colgroup");
      line.append(made);
    }
    return [line];
  }

  sort(column, head) {
    const other = column === this.sorted;
    const risesFirst = column.kind === "text" || column.rising;
    this.falls = other ? !this.falls : !risesFirst;
    this.sorted = column;
    all("th[aria-sort]", this.head).forEach((th) => th.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", this.falls ? "descending" : "ascending");
    const sign = this.falls ? -1 : 1;
    const keyed = this.order.map((i) => [column.sort(i), i]);
    keyed.sort(([a], [b]) => {
      if (column.kind === "text") return sign * a.localeCompare(b, "en", { numeric: true });
      return Number(!isKnown(a)) - Number(!isKnown(b)) || sign * (a - b) || 0; // what is missing stays last
    });
    this.order = keyed.map(([, i]) => i);
    this.draw();
  }

  draw() {
    const { lines, shown } = this;
    const rows = lines.slice(0, this.limit).map((i) => {
      const row = element("tr");
      row.append(...shown.map((column) => column.cell(i)));
      return row;
    });
    this.body.replaceChildren(...rows);
    this.scroll.classList.toggle("tall", rows.length > WHOLE);
    this.more.hidden = lines.length <= this.limit;
    this.more.textContent = `Show all ${lines.length.toLocaleString("en")} lines`;
    stop(this.head.parentNode, $("button", this.head));
  }

  showAll() {
    this.limit = Infinity;
    this.draw();
  }

  // In BibTeX: what is always cited, and the studies that its values come from.
  citation() {
    const studies = new Set(this.table.cells.flat().map((found) => (typeof found === "number" ? cell("study", found) : null)));
    const { citations, always } = data.tables;
    return Object.keys(citations).filter((name) => always.includes(name) || studies.has(name)).map((name) => citations[name]).join("\n\n") + "\n";
  }

  csv() {
    const heads = this.shown.flatMap((c) => (c.heads ?? [""]).map((part) => [c.title, c.under].filter(Boolean).join(" ") + part));
    const lines = this.lines.map((i) => this.shown.flatMap((c) => {
      const cells = c.copied(i);
      return cells.length ? cells : (c.heads ?? [""]).map(() => "");
    }).concat(models[this.table.models[i]][1]));
    const safe = (x) => (typeof x === "string" && /^'*[=+\-@\t\r\n]/.test(x) ? `'${x}` : String(x)); // no formula
    const quote = (x) => (/[",\r\n]/.test(x) ? `"${x.replaceAll('"', '""')}"` : x);
    return [[...heads, "Checkpoint"], ...lines].map((line) => line.map((x) => quote(safe(x))).join(",")).join("\r\n") + "\r\n";
  }

  markdown() {
    const escaped = (x) => String(x).replace(/[\\`*_{}[\]<>|~#&]/g, "\\$&").replace(/\s+/g, " ");
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const { shown } = this;
    const words = (column, i) => {
      if (column.words) return column.words(i);
      const [found] = column.copied(i);
      if (column.title === "#" || column.kind === "text") return found;
      return found === "" ? "–" : human(found);
    };
    return [
      line(shown.map((c) => (c.title === "#" ? "#" : escaped([c.title, c.under].filter(Boolean).join(" "))))),
      line(shown.map(({ kind }) => (kind === "text" ? "---" : "--:"))),
      ...this.lines.map((i) => line(shown.map((c) => escaped(words(c, i))))),
    ].join("\n") + "\n";
  }
}

const showCitation = async (pressed, text) => {
  await copied(pressed, text);
  $("#cite pre").textContent = text;
  $("#cite").showModal();
};

// The clipboard, or where a browser does not give it to a file, what a selection copies.
const copied = async (pressed, text) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = element("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  const before = pressed.textContent;
  pressed.textContent = "Copied";
  setTimeout(() => (pressed.textContent = before), 1500);
};

const sheets = new Map();
const drawSheets = () => {
  for (const place of all("[data-table]"))
    if (!place.closest(".panel[hidden]") && !sheets.has(place)) sheets.set(place, new Sheet(place));
};
