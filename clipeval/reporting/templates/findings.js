// Findings: pressing one shows its plot.
for (const button of all("button[data-shows]")) {
  button.addEventListener("click", () => {
    for (const other of all("button[data-shows]")) {
      other.setAttribute("aria-pressed", String(other === button));
      other.closest("li").classList.toggle("shown", other === button);
      $("#" + other.dataset.shows).hidden = other !== button;
    }
  });
}
