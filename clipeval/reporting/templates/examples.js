// Retrieval examples: a second checkpoint beside the first, only what it misses, and larger pictures.
for (const image of all("img[data-picture]")) image.src = data.pictures[image.dataset.picture];
const nameIn = (panel) => element("p", $("h3", panel).textContent, { class: "of" });
const beside = () => {
  for (const menu of all("select[data-beside]")) {
    const panel = menu.closest(".panel");
    all(".other", panel).forEach((found) => found.remove());
    panel.classList.toggle("two", Boolean(menu.value));
    if (!menu.value) continue;
    const other = document.getElementById(menu.value);
    const there = new Map(all(".queries > li", other).map((line) => [line.dataset.query, line]));
    for (const list of all(".queries", panel)) {
      const head = element("li", "", { class: "other heads" });
      head.append(element("p"), nameIn(panel), nameIn(other));
      list.prepend(head);
    }
    for (const line of all(".queries > li[data-query]", panel)) {
      const list = there.get(line.dataset.query);
      const made = list ? $("ol", list).cloneNode(true) : element("p", "not among its samples", { class: "note" });
      made.classList.add("other");
      $(".found", line).append(made);
    }
  }
};
all("select[data-beside]").forEach((menu) => menu.addEventListener("change", beside));
$("#only-misses")?.addEventListener("change", ({ target }) => $("#examples").classList.toggle("misses", target.checked));
const larger = $("#larger");
document.addEventListener("click", (event) => {
  const pressed = event.target.closest(".thumb button");
  if (!pressed) return;
  const picture = $("img", pressed);
  $("figure", larger).replaceChildren(picture.cloneNode(), element("figcaption", picture.alt));
  larger.showModal();
});
