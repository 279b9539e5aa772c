// Step through every run to its end, then use keys, links, clicks and detours as a reader does.
await ready;
found.runs = []; found.links = [];
for (const made of data.runs) {
  open(made.formulation, made.problem); everyLine = true; show();
  let steps = 1;
  const queries = new Set();
  for (let n = forward(); n !== undefined; n = forward()) {  // all that is not folded is drawn; a mistake would end it
    steps++;
    if (made.steps[n][3] && n % 7 && n + 1 < made.steps.length) { at = n; continue; }
    go(n);
    if (!document.querySelector("#lines .now")) throw "no line is marked";
    if (scene().keys !== undefined && scene().meaning === "weight") queries.add(queryAt());
  }
  const numbers = [...document.querySelectorAll(".output [data-number]")].map(cell => cell.dataset.number);
  const pairs = [...document.querySelectorAll(".output .key[data-pair]")].map(cell => cell.dataset.pair);
  const apart = [...document.querySelectorAll(".apart [data-token] rect")].map(cell => [cell.x, cell.y].map(length => length.baseVal.value));
  remember();
  found.runs.push({formulation: made.formulation, problem: made.problem, steps, numbers, pairs, apart, link: location.hash});
}
for (const made of found.runs) {  // a link brings back code, problem, step and query
  history.replaceState(null, "", made.link.replace(/step=\d+/, "step=7").replace(/query=\d+/, "query=3"));
  recall(); show();
  found.links.push([run.formulation, run.problem, at, chosen, everyLine]);
}
found.values = data.values.map((entry, n) => isTensor(entry) ? value(n).numbers.map(String) : null);
open("loops", "edges"); everyLine = false; at = 0; show();
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const place = () => [at, run.depth[at], queryOf(scene()) ?? null];
found.keys = [];
const pressed = ["ArrowRight", "ArrowRight", "ArrowLeft", "n", "n", "ArrowDown", "End", "Home"];
for (const key of pressed) { press(key); found.keys.push(place()); }
press(" "); found.playing = timer !== null; press(" "); found.stopped = timer === null;
document.querySelector('.layout [data-token="5"]').dispatchEvent(new MouseEvent("click", {bubbles: true}));
found.clicked = place();
for (const step of [1, 2, 3]) document.getElementById("step").click();
document.querySelector("#detours [data-axis='1']").click();
found.detour = [run.formulation, scene().axis, scene().query];
document.querySelector("#detours [data-back]").click();
found.back = [run.formulation, queryOf(scene())];
found.wide = document.documentElement.scrollWidth - innerWidth;
found.paper = getComputedStyle(document.body).backgroundColor;
