// On paper: all lines of the tables, and every plot of a visible panel, as wide as the page.
const PAPER = 960;
let cut = [];
addEventListener("beforeprint", () => {
  cut = [...sheets.values()].filter((sheet) => !sheet.more.hidden).map((sheet) => [sheet, sheet.limit]);
  for (const [sheet] of cut) sheet.showAll();
  startComparing();
  const wide = (place) => {
    Plotly.relayout(place, { ...looks(), width: PAPER, autosize: false });
    Plotly.redraw(place); // the legend, which has fewer lines now, finds its place
  };
  for (const place of all(".panel:not([hidden]) .plot[data-figure], .plot[data-drawn]")) {
    if (place.dataset.figure) drawOnce(place).then(() => wide(place));
    else wide(place);
  }
});
addEventListener("afterprint", () => {
  for (const [sheet, limit] of cut) {
    sheet.limit = limit;
    sheet.draw();
  }
  all(".plot[data-drawn]").forEach((place) => Plotly.relayout(place, { ...looks(), width: null, autosize: true }));
});
