"use strict";
const $ = id => document.getElementById(id);
let data = null;  // the recorded runs, once they are unpacked
async function unpackData() {
  const bytes = Uint8Array.from(atob($("data").textContent), character => character.charCodeAt(0));
  const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  data = JSON.parse(await new Response(text).text());
}
const [ENTER, CALL, LINE, RETURN] = [0, 1, 2, 3];
let run, at = 0, chosen = 0, everyLine = false, origin = null, timer = null, saving = null;

// ---------------------------------------------------------------- values: what was recorded, unpacked

const TYPES = {float32: Float32Array, float64: Float64Array, int64: Int32Array, bool: Uint8Array};
const unpacked = new Map();
function value(number) {
  if (!unpacked.has(number)) unpacked.set(number, unpack(data.values[number]));
  return unpacked.get(number);
}
function unpack(entry) {
  if (entry === null || typeof entry !== "object" || !entry.shape) return entry;
  const bytes = Uint8Array.from(atob(data.blobs[entry.blob]), character => character.charCodeAt(0));
  return {...entry, numbers: Array.from(new TYPES[entry.dtype](bytes.buffer))};
}
const isTensor = found => found !== null && typeof found === "object" && "shape" in found;
const range = ([start, stop, step]) => {
  const found = [];
  for (let i = start; step > 0 ? i < stop : i > stop; i += step) found.push(i);
  return found;
};

// ---------------------------------------------------------------- the run and the place in it

function prepare(made) {  // the variables after each step, and how deep its call lies
  if (made.variables) return;
  const last = {}, depths = [];
  made.parents.forEach(parent => depths.push(parent === null ? 0 : depths[parent] + 1));
  made.variables = made.steps.map(([, call, , , , , changed]) => {
    if (changed.length || !last[call]) {
      last[call] = {...last[call]};
      for (const [name, number, letters] of changed) last[call][made.names[name]] = [number, letters || []];
    }
    return last[call];
  });
  made.depth = made.steps.map(step => depths[step[1]]);
  made.kept = made.steps.map((_, n) => n).filter(n => !made.steps[n][3]);
  made.found = made.scenes.map((scene, n) => ({...scene, n}));
}
const statement = (n = at) => run.statements[run.steps[n][0]];
const scene = (n = at) => run.found[run.steps[n][4]];
const visible = () => everyLine ? run.steps.map((_, n) => n) : run.kept;
function subject(n) {
  const {axis, query, tiles} = scene(n);
  return query === undefined && tiles === undefined ? null : `${axis} ${query} ${tiles}`;
}
function queryAt(n = at) {  // the query that the picture is about
  const {query, queries} = scene(n);
  if (query !== undefined) return query;
  if (queries === undefined) return chosen;
  const rows = value(queries).numbers;
  return rows.includes(chosen) ? chosen : rows[0];
}

function forward() { return visible().find(n => n > at); }
function backward() { return visible().findLast(n => n < at); }
function over() { return visible().find(n => n > at && run.depth[n] <= run.depth[at]); }
function go(n) {
  if (n === undefined || !run.steps[n]) return stop();
  at = n; show();
}
function nextQuery() {
  const now = subject(at), num = run.layout.reduce((a, b) => a * b);
  const n = run.steps.findIndex((step, n) => n > at && (everyLine || !step[3]) && subject(n) !== null && subject(n) !== now);
  if (n < 0 && now === null) { chosen = (chosen + 1) % num; return show(); }
  if (n < 0) return;
  at = n;
  const {queries} = scene(n);
  if (queries !== undefined && !value(queries).numbers.includes(chosen)) chosen = value(queries).numbers[0];
  show();
}
function pick(token) {  // a token was clicked: make it the query
  chosen = token;
  const about = n => scene(n).query === token || (scene(n).tiles !== undefined && value(scene(n).tiles).numbers[token] >= 0);
  if (!about(at)) {
    const n = visible().find(about);
    if (n !== undefined) at = n;
  }
  show();
}
function open(formulation, problem, n = 0) {
  run = data.runs.find(made => made.formulation === formulation && made.problem === problem)
    || data.runs.find(made => made.formulation === formulation) || data.runs[0];
  prepare(run);
  at = run.steps[n] ? n : 0;
  const problems = data.runs.filter(made => made.formulation === run.formulation);
  $("problem").replaceChildren(...problems.map(made => new Option(`${made.problem}: ${made.title}`, made.problem)));
  $("formulation").value = run.formulation; $("problem").value = run.problem;
  chosen = Math.min(chosen, run.layout.reduce((a, b) => a * b) - 1);
}
function play() {
  if (timer) return stop();
  if (forward() === undefined) at = 0;
  timer = setInterval(() => go(forward()), 900);
  show();
}
function stop() { clearInterval(timer); timer = null; show(); }

// ---------------------------------------------------------------- the link

function remember() {
  const words = {code: run.formulation, on: run.problem, step: at, query: chosen, ...(everyLine ? {all: 1} : {})};
  history.replaceState(null, "", "#" + new URLSearchParams(words));
}
function recall() {
  const words = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  chosen = Math.max(0, parseInt(words.query ?? data.start ?? 0) || 0);
  everyLine = words.all === "1";
  open(words.code || data.runs[0].formulation, words.on, parseInt(words.step) || 0);
  if (words.step === undefined && data.start !== null) pick(chosen);
}

// ---------------------------------------------------------------- drawing

const escape = text => String(text).replace(/[&<>"]/g, letter => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})[letter]);
const tag = (name, attributes, inside = "") =>
  `<${name} ${Object.entries(attributes).map(([key, text]) => `${key}="${escape(text)}"`).join(" ")}>${inside}</${name}>`;
function short(number) {
  if (Number.isNaN(number)) return "·";
  if (!Number.isFinite(number)) return number > 0 ? "∞" : "−∞";
  const size = Math.abs(number);
  const text = Number.isInteger(number) ? String(size) : size < 10 ? size.toFixed(2) : size.toFixed(1);
  return (number < 0 ? "−" : "") + text.replace(/^0\./, ".");
}
function coordinates(token) { return run.layout.length === 1 ? [token] : [Math.floor(token / run.layout[1]), token % run.layout[1]]; }
const CELL = 40;
function sheet() {  // rows and columns of the layout on paper; a long axis is broken into lines
  if (run.layout.length === 2) return run.layout;
  const lines = Math.ceil(run.layout[0] / 14);
  return [lines, Math.ceil(run.layout[0] / lines)];
}
function grid(cell, extra = "") {
  const [rows, columns] = sheet(), total = run.layout.reduce((a, b) => a * b);
  let inside = "";
  for (let token = 0; token < total; token++) {
    const x = (token % columns) * CELL, y = Math.floor(token / columns) * CELL;
    const {style = "", kind = "", text = "", number, strong} = cell(token);
    inside += `<g data-token="${token}" ${number === undefined ? "" : `data-number="${number}"`}>`
      + tag("rect", {x, y, width: CELL, height: CELL, rx: 4, class: `cell ${kind}`, style})
      + (text === "" ? "" : tag("text", {x: x + CELL / 2, y: y + CELL / 2 + 1, class: `number${strong ? " strong" : ""}`, "font-size": text.length > 4 ? 11 : 13, "pointer-events": "none"}, text)) + "</g>";
  }
  if (run.layout.length === 2) {
    for (let row = 0; row < rows; row++) inside += tag("text", {x: -9, y: row * CELL + CELL / 2, class: "soft mono", "font-size": 9}, row);
    for (let column = 0; column < columns; column++) inside += tag("text", {x: column * CELL + CELL / 2, y: -8, class: "soft mono", "font-size": 9}, column);
  } else {
    for (let token = 0; token < total; token++) inside += tag("text", {x: (token % columns) * CELL + 8, y: Math.floor(token / columns) * CELL + 7, class: "soft mono", "font-size": 7}, token);
  }
  return `<svg viewBox="-18 -16 ${columns * CELL + 22} ${rows * CELL + 20}" role="img">${inside}${extra}</svg>`;
}
function ring(token, kind, shrink = 2) {
  const columns = sheet()[1], x = (token % columns) * CELL + shrink, y = Math.floor(token / columns) * CELL + shrink;
  return tag("rect", {x, y, width: CELL - 2 * shrink, height: CELL - 2 * shrink, rx: 4, class: kind});
}
function outlines(tokens, kind) { return tokens.map(token => ring(token, kind, 1.5)).join(""); }

function keysOf(now, query) {  // the keys that the picture is about, and what was found for each
  if (now.keys === undefined) return new Map();
  const keys = value(now.keys), width = keys.shape[1];
  const row = now.query !== undefined ? 0 : now.queries === undefined ? query : value(now.queries).numbers.indexOf(query);
  const numbers = now.numbers === undefined ? null : value(now.numbers).numbers;
  const found = new Map();
  for (let n = 0; n < width; n++) {
    const key = keys.numbers[row * width + n];
    if (key >= 0) found.set(key, numbers ? numbers[row * width + n] : NaN);
  }
  return found;
}
function pictureOfLayout(now) {
  const query = queryAt(), keys = keysOf(now, query), groups = value(run.groups).numbers;
  const tiles = now.tiles === undefined ? null : value(now.tiles).numbers;
  const attended = [...keys].filter(([, number]) => number !== -Infinity && !(now.meaning === "weight" && number === 0));
  const most = Math.max(...attended.map(([, number]) => Math.abs(number)).filter(Number.isFinite), 1e-9);
  const isDilated = new Set(groups).size > 1, isSlab = run.formulation === "tiled" && keys.size > 0;
  const allowed = new Set(attended.map(([key]) => key));
  const cell = token => {
    const kind = isDilated && groups[token] === groups[query] ? "group" : "";
    if (!keys.has(token)) return {kind};
    const number = keys.get(token), text = Number.isNaN(number) ? "" : short(number);
    if (!allowed.has(token)) return {kind, text: now.meaning === "weight" ? "0" : "−∞", number};
    if (now.meaning !== "weight") return {kind: "key", text: now.meaning === "bias" && number === 0 ? "0" : text, number};
    const share = number / most;
    return {kind: "key", style: `fill: rgba(var(--positive), ${(.12 + .8 * share).toFixed(3)})`, text, number, strong: share > .55};
  };
  let extra = "";
  if (isSlab) extra += outlines([...keys.keys()], "slab");
  if (tiles && run.formulation === "tiled") extra += outlines(tiles.map((tile, token) => tile >= 0 && tile === tiles[query] ? token : -1).filter(token => token >= 0), "tile");
  if (now.key !== undefined) extra += ring(now.key, "reading");
  extra += ring(query, "ring");
  const before = at > 0 && scene(at - 1).output !== undefined ? value(scene(at - 1).output).numbers : [];
  const output = now.output === undefined ? null : value(now.output).numbers;
  const filled = token => {
    const number = output[token], isFresh = !Number.isNaN(number) && !Object.is(before[token], number);
    return {kind: isFresh ? "fresh" : "", text: short(number), number};
  };
  const legend = [["query", "query", "ring"]];
  if (now.key !== undefined) legend.push(["key being read", "key", "ring"]);
  if (allowed.size) legend.push([now.meaning === "weight" ? "its keys, by weight" : now.meaning ? `its keys, with their ${now.meaning}s` : "its keys", "key-fill"]);
  if (isSlab) legend.push(["its tile", "query", "line"], ["slab of keys", "key", "dashed"]);
  if (isDilated) legend.push([run.formulation === "unfold" ? "dilation group" : "same dilation group", "group"]);
  $("legend").innerHTML = legend.map(([text, color, kind]) => `<span><i style="${kind ? `border: 2px ${kind === "dashed" ? "dashed" : "solid"} var(--${color})` : `background: var(--${color})`}"></i>${text}</span>`).join("");
  return `<div class="layout">${grid(cell, extra)}</div>` + (output ? `<div class="outputs"><h3>output, as it fills</h3><div class="output">${grid(filled, ring(query, "ring"))}</div></div>` : "");
}
function windowsBefore(axis) {  // of the queries of an axis that are done
  const done = new Map();
  for (let n = 0; n <= at; n++) {
    const {axis: other, query, keys} = scene(n);
    if (other === axis && keys) done.set(query, keys);
  }
  return done;
}
function pictureOfAxis(now) {
  const {length, axis, query, group = [], leader, start, stop, keys = [], tile, slab} = now, lift = 22;
  let inside = "";
  const place = m => group[0] + (group.length > 1 ? group[1] - group[0] : 1) * m;
  for (let i = 0; i < length; i++) {
    const kind = (slab || keys).includes(i) ? "key" : group.includes(i) ? "group" : "";
    inside += `<g data-position="${i}">` + tag("rect", {x: i * CELL, y: lift, width: CELL, height: CELL, rx: 4, class: `cell ${kind}`})
      + tag("text", {x: i * CELL + CELL / 2, y: lift + CELL / 2 + 1, class: "number", "font-size": 14, "pointer-events": "none"}, i) + "</g>";
    if (group.includes(i)) inside += tag("text", {x: i * CELL + CELL / 2, y: lift + CELL + 10, class: "soft mono", "font-size": 10}, group.indexOf(i));
  }
  const box = (i, kind, shrink) => tag("rect", {x: i * CELL + shrink, y: lift + shrink, width: CELL - 2 * shrink, height: CELL - 2 * shrink, rx: 4, class: kind});
  if (tile) inside += tile.map(i => box(i, "tile", 4)).join("");
  if (slab) inside += slab.map(i => box(i, "slab", 1.5)).join("");
  if (query !== undefined) inside += box(query, "ring", 2);
  const over = (i, text) => tag("text", {x: i * CELL + CELL / 2, y: 11, "font-size": 11}, text);
  const isLeader = leader !== undefined && group.length;
  if (query !== undefined) inside += over(query, isLeader && place(leader) === query ? "i, leader" : "i");
  if (isLeader && place(leader) !== query) inside += over(place(leader), "leader");
  const under = lift + CELL + 20;
  if (start !== undefined) {
    const left = place(start) * CELL + 3;
    inside += tag("text", {x: left, y: under + 22, "font-size": 11, style: "text-anchor: start"}, `start = ${start}`);
    inside += tag("path", {class: "mark", d: `M${left} ${under + 9} v-7 h${stop === undefined ? 14 : (place(stop - 1) - place(start) + 1) * CELL - 6}${stop === undefined ? "" : " v7"}`});
    if (stop !== undefined) inside += tag("text", {x: place(stop - 1) * CELL + CELL - 3, y: under + 36, "font-size": 11, style: "text-anchor: end"}, `stop = ${stop}`);
  }
  const legend = query !== undefined ? [["query", "query", "ring"]] : [];
  if (group.length && group.length < length) legend.push(["its dilation group, counted below", "group"]);
  else if (group.length) legend.push(["the axis, counted below", "group"]);
  if (keys.length) legend.push(["its window", "key-fill"]);
  if (slab) legend.push(["slab of keys", "key", "dashed"]);
  if (tile) legend.push(["tile of queries", "query", "line"]);
  $("legend").innerHTML = legend.map(([text, color, kind]) => `<span><i style="${kind ? `border: 2px ${kind === "dashed" ? "dashed" : "solid"} var(--${color})` : `background: var(--${color})`}"></i>${text}</span>`).join("");
  let all = "";
  if (axis !== undefined) {
    const done = windowsBefore(axis), size = 15;
    for (let i = 0; i < length; i++) {
      for (let j = 0; j < length; j++) {
        const kind = (done.get(i) || []).includes(j) ? "key" : "";
        all += tag("rect", {x: j * size, y: i * size, width: size, height: size, rx: 2, class: `cell ${kind}`, "data-pair": `${i} ${j}`});
      }
      all += tag("text", {x: -9, y: i * size + size / 2, class: "soft mono", "font-size": 7}, i);
    }
    all += tag("rect", {x: 0, y: query * size, width: length * size, height: size, rx: 2, class: "ring", style: "stroke-width: 1.2"});
    const name = run.layout.length === 1 ? "the axis" : axis === 0 ? "rows" : "columns";
    all = `<div class="outputs"><h3>windows of ${name}: a line for each query</h3><div class="output"><svg viewBox="-18 -2 ${length * size + 22} ${length * size + 4}" role="img">${all}</svg></div></div>`;
  }
  return `<div class="layout"><svg viewBox="-6 0 ${length * CELL + 12} ${under + 46}" role="img">${inside}</svg></div>${all}`;
}

// ---------------------------------------------------------------- variables

const MOST = 12;
function shape(found, letters) {
  const parts = found.shape.map((size, n) => letters[n] ? `${escape(letters[n])} <span>${size}</span>` : `<span>${size}</span>`);
  return `<span class="shape">[${parts.join(", ")}]</span>`;
}
function cells(numbers, isFloat, most) {
  return numbers.map(number => {
    const share = isFloat && Number.isFinite(number) && most > 0 ? Math.abs(number) / most * .42 : 0;
    return `<td style="background: rgba(var(--${number < 0 ? "negative" : "positive"}), ${share.toFixed(2)})" title="${number}">${short(number)}</td>`;
  }).join("");
}
function picture(found, letters) {  // a tensor as a table of numbers; of many axes, the slice of the query
  let {shape: sizes, numbers, dtype} = found, names = sizes.map((_, n) => letters[n] || ""), note = "";
  const kept = sizes.map((size, n) => n).filter(n => sizes[n] !== 1);
  sizes = kept.map(n => sizes[n]); names = kept.map(n => names[n]);
  const query = queryAt(), total = run.layout.reduce((a, b) => a * b);
  const isFloat = dtype.startsWith("float"), most = Math.max(...numbers.map(Math.abs).filter(Number.isFinite), 0);
  while (sizes.length > 2) {
    const isLayout = names[0] === "X" && names[1] === "Y", size = isLayout ? sizes[0] * sizes[1] : sizes[0];
    const row = size === total && (isLayout || names[0].startsWith("N")) ? query : 0, width = numbers.length / size;
    note += `${isLayout ? "at" : names[0] || "first axis"} ${isLayout ? coordinates(row).join(", ") : row}${row === query && size === total ? ", the query" : ""}; `;
    numbers = numbers.slice(row * width, (row + 1) * width);
    sizes = sizes.slice(isLayout ? 2 : 1); names = names.slice(isLayout ? 2 : 1);
  }
  if (!numbers.length) return "";
  const columns = sizes.length ? sizes[sizes.length - 1] : 1, rows = numbers.length / columns;
  const own = names.length === 2 && /^(N|B N)$/.test(names[0]) && rows === total ? query : -1;
  let first = rows <= 8 ? 0 : own < 0 ? 0 : Math.min(Math.max(own - 3, 0), rows - 7), last = rows <= 8 ? rows : first + 7;
  let left = 0, right = columns <= MOST ? columns : MOST - 1;
  let body = "";
  for (let row = first; row < last; row++)
    body += `<tr class="${row === own ? "own" : ""}">${rows > 1 ? `<th>${row}</th>` : ""}${cells(numbers.slice(row * columns + left, row * columns + right), isFloat, most)}${right < columns ? '<td class="gap">…</td>' : ""}</tr>`;
  const cut = [first > 0 || last < rows ? `rows ${first} to ${last - 1} of ${rows}` : "", right < columns ? `columns 0 to ${right - 1} of ${columns}` : ""].filter(Boolean).join(", ");
  return `<table class="numbers">${body}</table>` + (note || cut ? `<span class="cut">${escape(note + cut)}</span>` : "");
}
function isScalar(found) { return isTensor(found) && found.numbers.length === 1; }
function brief(found) {  // on one line
  if (found === null) return "None";
  if (found === true || found === false) return found ? "True" : "False";
  if (typeof found === "number") return String(Number.isInteger(found) ? found : +found.toPrecision(4)).replace("-", "−");
  if (typeof found === "string") return `"${found}"`;
  if (isTensor(found)) return found.numbers.length === 1 ? short(found.numbers[0]) : `[${found.shape.join(", ")}]`;
  if (found.items) {
    const parts = found.items.slice(0, MOST).map(number => brief(value(number)));
    if (found.items.length > MOST) parts.push("…");
    return found.kind === "tuple" ? `(${parts.join(", ")})` : `[${parts.join(", ")}]`;
  }
  if (found.range) return `range(${found.range.slice(0, found.range[2] === 1 ? 2 : 3).join(", ")})`;
  if (found.fields) return found.kind;
  return found.number ?? found.other;
}
function whole(found, letters) {  // with pictures
  if (isTensor(found)) return found.numbers.length === 1 ? ` = ${short(found.numbers[0])} ${shape(found, letters)}` : shape(found, letters) + picture(found, letters);
  if (found !== null && typeof found === "object") {
    if (found.range) return ` = ${brief(found)}<table class="numbers"><tr>${cells(range(found.range).slice(0, MOST))}</tr></table>`;
    if (found.items && found.items.length && found.items.every(number => isScalar(value(number)))) {
      const numbers = found.items.map(number => value(number).numbers[0]);
      return ` <span class="shape">${numbers.length} of them</span>` + picture({shape: [numbers.length], dtype: "float32", numbers}, []);
    }
    if (found.items && found.items.some(number => isTensor(value(number)))) {
      return ` <span class="shape">${found.items.length} of them</span>` + found.items.slice(0, 3).map(number => isTensor(value(number)) ? `<div>${shape(value(number), [])}${picture(value(number), [])}</div>` : "").join("");
    }
    if (found.fields) return ` <span class="shape">${escape(found.kind)}</span>` + Object.entries(found.fields).map(([name, number]) => {
      const field = value(number);
      return `<div class="value">.${escape(name)} ${isTensor(field) ? shape(field, []) + (field.numbers.length <= 200 ? picture(field, []) : "") : "= " + escape(brief(field))}</div>`;
    }).join("");
  }
  return ` = ${escape(brief(found))}`;
}
function variable(name, number, letters, kind) {
  return `<div class="variable ${kind}" data-name="${escape(name)}" data-value="${number}"><div class="name"><b>${escape(name)}</b>${whole(value(number), letters)}</div></div>`;
}
function variables() {
  const [, , event, , , , changed, made, returned] = run.steps[at], names = run.names;
  const fresh = new Set(changed.map(([name]) => names[name]));
  let text = "";
  const heading = {[ENTER]: "about to call", [CALL]: "arguments", [LINE]: "this line made", [RETURN]: "this line made"}[event];
  if (changed.length || made.length || returned !== null) text += `<h2>${heading}</h2>`;
  text += made.map(([name, number]) => variable(names[name], number, [], "changed made")).join("");
  text += changed.map(([name, number]) => variable(names[name], number, run.variables[at][names[name]][1], "changed")).join("");
  if (returned !== null) text += variable("return", returned, [], "changed");
  const rest = Object.entries(run.variables[at]).filter(([name]) => !fresh.has(name));
  if (rest.length) text += `<h2>variables of ${escape(statement()[3])}</h2>` + rest.map(([name, [number, letters]]) => {
    const found = value(number), isPlain = found === null || typeof found !== "object" || found.other !== undefined;
    if (isPlain) return `<div class="variable" data-name="${escape(name)}" data-value="${number}"><div class="name"><b>${escape(name)}</b> = ${escape(brief(found))}</div></div>`;
    const line = isTensor(found) ? shape(found, letters) : ` <span class="shape">${escape(brief(found))}</span>`;
    return `<details data-name="${escape(name)}" data-value="${number}" ${opened.has(name) ? "open" : ""}><summary><b>${escape(name)}</b>${line}</summary><div class="name value">${whole(found, letters)}</div></details>`;
  }).join("");
  return text;
}
const opened = new Set();
$("variables").addEventListener("toggle", event => {
  const {name} = event.target.dataset;
  if (event.target.open) opened.add(name); else opened.delete(name);
}, true);

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
  if (position && scene().axis !== undefined) go(run.steps.findIndex((_, n) => scene(n).axis === scene().axis && scene(n).query === +position.dataset.position));
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
