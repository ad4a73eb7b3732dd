// Filters: all words of the search, in any order, or a regular expression between slashes, in the name, the spec, the
// architecture or the source.
const filters = { patterns: [], source: "", arch: "" };
const haystacks = models.map((facts) => facts.slice(0, 4).join("\n"));
const isWanted = (model) => {
  const [, , arch, source] = models[model];
  if (filters.source && source !== filters.source) return false;
  if (filters.arch && arch !== filters.arch) return false;
  return filters.patterns.every((pattern) => haystacks[model].search(pattern) >= 0);
};
// The patterns of what is written; what is wrong with it is told beside the field.
const patternsOf = (written) => {
  const expression = /^\/(.+)\/$/.exec(written.trim())?.[1];
  const escaped = (word) => word.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&");
  const sources = expression ? [expression] : written.split(/\s+/).filter(Boolean).map(escaped);
  try {
    return [sources.map((source) => new RegExp(source, "gim")), ""];
  } catch (error) {
    const why = error.message.split(": ").at(-1).toLowerCase();
    return [[], `Not a regular expression (${why}), so all are shown.`];
  }
};
const highlighted = (name) => {
  const made = document.createDocumentFragment();
  const marked = new Uint8Array(name.length);
  for (const pattern of filters.patterns)
    for (const { index, 0: found } of name.matchAll(pattern)) marked.fill(1, index, index + found.length);
  for (let from = 0, to; from < name.length; from = to) {
    for (to = from; to < name.length && marked[to] === marked[from]; ) to += 1;
    made.append(marked[from] ? element("mark", name.slice(from, to)) : name.slice(from, to));
  }
  return made;
};
