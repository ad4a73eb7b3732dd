// The address holds what is chosen: #section?menu=choice&q=words&first=…: a link shows the same again.
const slug = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
const keysOf = (menu) => {
  const options = [...menu.options];
  const short = options.map((option) => slug(option.textContent));
  return options.map((option, at) => {
    if (short.indexOf(short[at]) === short.lastIndexOf(short[at])) return short[at];
    const long = `${slug(option.parentNode.label ?? "")}--${short[at]}`;
    return options.some((o, i) => i < at && `${slug(o.parentNode.label ?? "")}--${short[i]}` === long) ? `${long}--${at}` : long;
  });
};
const kept = [
  ["q", $("#filter-model")], ["source", $("#filter-source")], ["arch", $("#filter-arch")],
  ...menus.map((menu) => [menu.dataset.switch, menu]),
  ["first", $("#first")], ["second", $("#second")], ["pairs", $("#pairs-cell")],
].filter(([, field]) => field);
const fields = new Map(kept.map(([name, field]) => {
  const keys = field.options ? keysOf(field) : null;
  return [name, {
    field,
    get: () => (keys ? keys[field.selectedIndex] : field.value.trim()),
    set: (value) => {
      if (!keys) field.value = value;
      else if (keys.includes(value)) field.selectedIndex = keys.indexOf(value);
    },
  }];
}));
const usual = new Map([...fields].map(([name, { get }]) => [name, get()]));
let section = "";
const address = (where) => {
  const chosenNow = [...fields].map(([name, { get }]) => [name, get()]).filter(([name, value]) => value !== usual.get(name));
  const query = new URLSearchParams(chosenNow).toString();
  return `#${where}${query ? `?${query}` : ""}`;
};
const remember = (event) => {
  section = event?.target.closest?.("section")?.id ?? section;
  history.replaceState(null, "", address(section || "main"));
};
const follow = () => {
  const [where, query] = location.hash.slice(1).split("?");
  if (query !== undefined) {
    const given = new URLSearchParams(query);
    for (const [name, { set }] of fields) set(given.get(name) ?? usual.get(name));
    menus.forEach(choose);
    if ($("#filters")) filter();
    if ($("#first") && (comparing || given.has("first") || given.has("second") || given.has("pairs"))) {
      startComparing();
      compare();
      drawPairs();
    }
  }
  section = where;
  if (query !== undefined) document.getElementById(where)?.scrollIntoView();
  else if (where) history.replaceState(null, "", address(where)); // a link of this page: what is chosen stays
};
for (const [, { field }] of fields) field.addEventListener(field.options ? "change" : "input", remember);
addEventListener("hashchange", follow);
if (location.hash.length > 1) follow();
