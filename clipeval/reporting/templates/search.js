// Filters: all words of the search, in any order, in the name, the spec, the source or the architecture.
const filters = { words: [], source: "", arch: "" };
const haystacks = models.map((facts) => facts.slice(0, 4).join("\n").toLowerCase());
const isWanted = (model) => {
  const [, , arch, source] = models[model];
  if (filters.source && source !== filters.source) return false;
  if (filters.arch && arch !== filters.arch) return false;
  return filters.words.every((word) => haystacks[model].includes(word));
};
const highlighted = (name) => {
  const made = document.createDocumentFragment();
  const lower = name.toLowerCase();
  const marked = new Uint8Array(name.length);
  if (lower.length === name.length)
    for (const word of filters.words)
      for (let at = lower.indexOf(word); at >= 0; at = lower.indexOf(word, at + 1)) marked.fill(1, at, at + word.length);
  for (let from = 0, to; from < name.length; from = to) {
    for (to = from; to < name.length && marked[to] === marked[from]; ) to += 1;
    made.append(marked[from] ? element("mark", name.slice(from, to)) : name.slice(from, to));
  }
  return made;
};
