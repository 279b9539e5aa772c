// From stop to stop, then away from the tour and back, then down to the controls.
await settled();
found.stops = [];
for (const stop of data.stops) {
  await settled();
  const canvases = [...document.querySelectorAll("#panes canvas")];
  found.stops.push({
    state, title: $("title").textContent, caption: $("caption").textContent,
    isLeft: $("tour").classList.contains("left"),
    shown: canvases.map(canvas => JSON.parse(canvas.dataset.cells).length),
    cells: document.querySelectorAll("#tables .grid td").length,
    top: $("caption").getBoundingClientRect().top, bottom: $("says").getBoundingClientRect().bottom,
  });
  const cell = document.querySelectorAll("#tables .grid td")[3];  // the first row's key above the query
  if (cell) { cell.click(); found.line = document.querySelector("#line h3").textContent; }
  $("after").click();
}
found.again = $("place").textContent;
pin([1, 1]); found.left = $("tour").classList.contains("left");
$("title").click(); found.back = !$("tour").classList.contains("left");
found.wide = document.documentElement.scrollWidth - innerWidth;
found.paper = getComputedStyle(document.body).backgroundColor;
$("controls").scrollIntoView();
await settled();
found.scrolled = scrollY; found.photo = document.querySelector("#panes canvas").getBoundingClientRect().top;
