// Menus that choose one panel of a group, and the filters of all tables.
const menus = all("select[data-switch]");
const panelsOf = (menu) => all(`[data-group="${menu.dataset.switch}"] > .panel`);
const count = () => {
  const sheet = sheets.get($("#overview [data-table]"));
  if (sheet) $("#filter-count").textContent = `${sheet.lines.length} of ${sheet.order.length} lines`;
};
const choose = (menu) => {
  for (const panel of panelsOf(menu)) panel.hidden = panel.id !== menu.value;
  drawSheets();
  count();
};
for (const menu of menus) {
  menu.addEventListener("change", () => choose(menu));
  menu.addEventListener("restore", () => choose(menu));
}
const filter = () => {
  const field = $("#filter-model");
  const [patterns, wrong] = patternsOf(field.value);
  filters.patterns = patterns;
  field.setAttribute("aria-invalid", String(Boolean(wrong)));
  $("#filter-wrong").textContent = wrong;
  [filters.source, filters.arch] = [$("#filter-source").value, $("#filter-arch").value];
  for (const sheet of sheets.values()) sheet.draw();
  count();
};
for (const link of all("button[data-board]")) {
  link.addEventListener("click", () => {
    const menu = $("select[data-switch=boards]");
    menu.value = link.dataset.board;
    menu.dispatchEvent(new Event("change"));
    document.getElementById(link.dataset.board).scrollIntoView({ block: "start" });
  });
}
drawSheets();
if ($("#filters")) {
  $("#filters").addEventListener("input", filter);
  $("#filters").addEventListener("submit", (event) => event.preventDefault());
  filter();
}
