// Retrieval examples: a second checkpoint beside the first, and larger pictures.
for (const image of all("img[data-picture]")) image.src = data.pictures[image.dataset.picture];
const beside = () => {
  for (const menu of all("select[data-beside]")) {
    const panel = menu.closest(".panel");
    all(".other", panel).forEach((found) => found.remove());
    panel.classList.toggle("two", Boolean(menu.value));
    if (!menu.value) continue;
    const others = all(".queries > li", document.getElementById(menu.value));
    all(".queries > li", panel).forEach((line, at) => {
      const list = $("ol", others[at]).cloneNode(true);
      list.classList.add("other");
      $(".found", line).append(list);
    });
  }
};
all("select[data-beside]").forEach((menu) => menu.addEventListener("change", beside));
const larger = $("#larger");
document.addEventListener("click", (event) => {
  const pressed = event.target.closest(".thumb button");
  if (!pressed) return;
  const picture = $("img", pressed);
  $("figure", larger).replaceChildren(picture.cloneNode(), element("figcaption", picture.alt));
  larger.showModal();
});
