// ---------------------------------------------------------------- the page

let shownFile = null;
function showSource() {
  const [file, first, last, name] = statement(), lines = $("lines");
  $("file").textContent = `${file} · ${name}`;
  if (shownFile !== `${file} ${run.formulation} ${run.problem}`) {
    shownFile = `${file} ${run.formulation} ${run.problem}`;
    const ran = new Set(run.statements.filter(words => words[0] === file).map(words => words[1]));
    lines.innerHTML = data.sources[file].map((pieces, n) => `<div data-line="${n + 1}" class="${ran.has(n + 1) ? "ran" : ""}"><span>`
      + (pieces.map(([text, kind]) => kind === "code" ? escape(text) : `<span class="${kind}">${escape(text)}</span>`).join("") || " ") + "</span></div>").join("");
  }
  lines.querySelectorAll(".now").forEach(line => line.classList.remove("now"));
  for (let line = first; line <= last; line++) lines.children[line - 1].classList.add("now");
  const top = lines.children[first - 1].offsetTop - lines.offsetTop, height = lines.clientHeight;
  if (top < lines.scrollTop + 30 || top > lines.scrollTop + height - 60) lines.scrollTop = top - height * .4;
}
function showEquation() {
  const found = run.terms[run.steps[at][5]];
  $("equation").innerHTML = run.equation.map((line, n) => {
    let text = escape(line);
    for (const [row, term] of found) if (row === n) text = text.replace(escape(term), `<mark>${escape(term)}</mark>`);
    return text;
  }).join("\n");
  const marked = $("equation").querySelector("mark"), room = $("equation").clientWidth;
  $("equation").scrollLeft = marked ? Math.max(0, marked.offsetLeft - $("equation").offsetLeft + marked.offsetWidth - room) : 0;
}
function showDetours() {
  const windows = data.runs.find(made => made.formulation === "window" && made.problem === run.problem && String(made.layout) === String(run.layout));
  const parts = [];
  if (run.formulation === "window" && origin) parts.push(`<button data-back="1">back to ${origin[0]}</button>`);
  else if (run.formulation !== "window" && windows && scene().axis === undefined && scene().length === undefined) {
    const place = coordinates(queryAt()), names = run.layout.length === 1 ? ["window"] : ["rows", "columns"];
    parts.push("step into <code>window</code>: ", ...place.map((i, axis) => `<button data-axis="${axis}" data-i="${i}">${names[axis]}, i = ${i}</button>`));
  }
  $("detours").innerHTML = parts.join("");
}
$("detours").addEventListener("click", event => {
  const {axis, i, back} = event.target.dataset;
  if (back) { const [formulation, problem, n] = origin; origin = null; open(formulation, problem, n); show(); }
  if (axis !== undefined) {
    origin = [run.formulation, run.problem, at];
    open("window", run.problem);
    at = run.steps.findIndex((_, n) => scene(n).axis === +axis && scene(n).query === +i);
    show();
  }
});
function show() {
  const now = scene(), [, , , name, said, summary] = statement(), steps = visible();
  $("says").innerHTML = `<b>${escape(name)}</b>` + escape(said);
  $("says").title = summary;
  $("picture").innerHTML = now.length === undefined ? pictureOfLayout(now) : pictureOfAxis(now);
  showDetours(); showEquation(); showSource();
  $("variables").innerHTML = variables();
  const place = steps.findLastIndex(n => n <= at);
  $("slider").max = steps.length - 1; $("slider").value = place;
  $("count").textContent = `${place + 1} / ${steps.length}`;
  $("all").checked = everyLine;
  $("back").disabled = backward() === undefined; $("step").disabled = forward() === undefined;
  $("play").innerHTML = timer ? "<b>❚❚</b><span>pause</span>" : "<b>▶▶</b><span>play</span>";
  $("next").querySelector("span").textContent = run.formulation === "tiled" ? "next tiles" : run.formulation === "unfold" && new Set(value(run.groups).numbers).size > 1 ? "next group" : "next query";
  clearTimeout(saving);
  saving = setTimeout(remember, 200);  // browsers refuse to change the address many times a second
}
for (const [id, action] of Object.entries({back: () => go(backward()), step: () => go(forward()), over: () => go(over() ?? forward()), next: nextQuery, play}))
  $(id).addEventListener("click", () => { if (id !== "play" && timer) stop(); action(); });
$("slider").addEventListener("input", () => go(visible()[+$("slider").value]));
$("all").addEventListener("input", () => { everyLine = $("all").checked; show(); });
$("formulation").addEventListener("input", () => { origin = null; open($("formulation").value, run.problem); show(); });
$("problem").addEventListener("input", () => { origin = null; open(run.formulation, $("problem").value); show(); });
$("picture").addEventListener("click", event => {
  const cell = event.target.closest("[data-token]"), position = event.target.closest("[data-position]");
  if (cell) pick(+cell.dataset.token);
  if (position && run.formulation === "window") go(run.steps.findIndex((_, n) => scene(n).axis === scene().axis && scene(n).query === +position.dataset.position));
});
$("lines").addEventListener("click", event => {
  const line = +event.target.closest("[data-line]")?.dataset.line, [file] = statement();
  const there = n => statement(n)[0] === file && statement(n)[1] <= line && line <= statement(n)[2];
  const n = visible().find(n => n > at && there(n)) ?? visible().find(there);
  if (n !== undefined) go(n);
});
addEventListener("keydown", event => {
  if (!data || event.target.matches("select, input[type=range]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = {ArrowRight: () => go(forward()), ArrowLeft: () => go(backward()), ArrowDown: () => go(over() ?? forward()), n: nextQuery, " ": play, Home: () => go(0), End: () => go(run.steps.length - 1)}[event.key];
  if (!action || (event.key === " " && event.target.matches("button, summary, input"))) return;
  event.preventDefault();
  if (event.key !== " " && timer) stop();
  action();
});
let touched = null;
$("picture").addEventListener("touchstart", event => { touched = event.changedTouches[0]; }, {passive: true});
$("picture").addEventListener("touchend", event => {
  const far = event.changedTouches[0].clientX - touched.clientX, down = event.changedTouches[0].clientY - touched.clientY;
  if (Math.abs(far) > 40 && Math.abs(far) > 2 * Math.abs(down)) go(far < 0 ? forward() : backward());
}, {passive: true});
addEventListener("hashchange", () => { if (data) { recall(); show(); } });
const ready = unpackData().then(() => {
  $("formulation").replaceChildren(...[...new Set(data.runs.map(made => made.formulation))].map(name => new Option(name, name)));
  recall(); show();
}, error => { $("says").textContent = `This page needs a browser of 2023 or later (${error.message}).`; });
