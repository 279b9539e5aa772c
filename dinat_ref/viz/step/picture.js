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
const CELL = 40, GAP = 16, PER_LINE = 14;
function sheet(isApart) {  // where each token lies on paper: [x, y], with the names of rows and columns
  const groups = value(run.groups).numbers, places = [], names = [];
  const [rows, columns] = run.layout.length === 2 ? run.layout : [1, run.layout[0]];
  const spread = (length, groupOf) => {  // positions of an axis, those of a dilation group side by side if pulled apart
    const order = Array.from({length}, (_, i) => i).sort((i, j) => isApart ? groupOf(i) - groupOf(j) || i - j : i - j);
    let gaps = 0;
    return order.map((i, rank) => {
      if (isApart && rank && groupOf(i) !== groupOf(order[rank - 1])) gaps++;
      return [i, rank * CELL + gaps * GAP, rank - gaps];
    }).sort(([i], [j]) => i - j).map(([, x]) => x);
  };
  if (run.layout.length === 2) {
    const down = spread(rows, row => groups[row * columns]), across = spread(columns, column => groups[column]);
    down.forEach((y, row) => { across.forEach(x => places.push([x, y])); names.push([-9, y + CELL / 2, 9, row]); });
    across.forEach((x, column) => names.push([x + CELL / 2, -8, 9, column]));
  } else {  // a long axis is broken into lines, or has a line for each group
    const lines = Math.ceil(columns / PER_LINE), perLine = Math.ceil(columns / lines), filled = {};
    for (let i = 0; i < columns; i++) {
      const line = isApart ? groups[i] : Math.floor(i / perLine), place = filled[line] = (filled[line] ?? -1) + 1;
      places.push([place * CELL, line * (CELL + (isApart ? GAP : 0))]);
      names.push([place * CELL + 8, places[i][1] + 7, 7, i]);
    }
  }
  const [width, height] = [0, 1].map(n => Math.max(...places.map(place => place[n])) + CELL);
  return {places, names, width, height};
}
function grid(cell, marks = [], isApart = false) {
  const {places, names, width, height} = sheet(isApart);
  let cells = "";
  places.forEach(([x, y], token) => {
    const {style = "", kind = "", text = "", number, strong} = cell(token);
    cells += `<g data-token="${token}" ${number === undefined ? "" : `data-number="${number}"`}>`
      + tag("rect", {x, y, width: CELL, height: CELL, rx: 4, class: `cell ${kind}`, style})
      + (text === "" ? "" : tag("text", {x: x + CELL / 2, y: y + CELL / 2 + 1, class: `number${strong ? " strong" : ""}`, "font-size": text.length > 4 ? 11 : 13, "pointer-events": "none"}, text)) + "</g>";
  });
  const written = names.map(([x, y, size, text]) => tag("text", {x, y, class: "soft mono", "font-size": size}, text)).join("");
  const drawn = marks.map(([token, kind, shrink]) => tag("rect", {x: places[token][0] + shrink, y: places[token][1] + shrink, width: CELL - 2 * shrink, height: CELL - 2 * shrink, rx: 4, class: kind})).join("");
  return `<svg viewBox="-18 -16 ${width + 22} ${height + 20}" role="img">${cells}${written}${drawn}</svg>`;
}
const ring = (token, kind) => [token, kind, 2];
const outlines = (tokens, kind) => tokens.map(token => [token, kind, 1.5]);
const legendOf = parts => parts.map(([text, color, kind]) => `<span><i style="${kind ? `border: 2px ${kind === "dashed" ? "dashed" : "solid"} var(--${color})` : `background: var(--${color})`}"></i>${text}</span>`).join("");

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
  const marks = [];
  if (isSlab) marks.push(...outlines([...keys.keys()], "slab"));
  if (tiles && run.formulation === "tiled") marks.push(...outlines(tiles.map((tile, token) => tile >= 0 && tile === tiles[query] ? token : -1).filter(token => token >= 0), "tile"));
  if (now.key !== undefined) marks.push(ring(now.key, "reading"));
  marks.push(ring(query, "ring"));
  const before = at > 0 && scene(at - 1).output !== undefined ? value(scene(at - 1).output).numbers : [];
  const output = now.output === undefined ? null : value(now.output).numbers;
  const isPulled = isDilated && ["unfold", "tiled"].includes(run.formulation);
  const filled = token => {
    const number = output[token], isFresh = !Number.isNaN(number) && !Object.is(before[token], number);
    return {kind: isFresh ? "fresh" : "", text: short(number), number};
  };
  const legend = [["query", "query", "ring"]];
  if (now.key !== undefined) legend.push(["key being read", "key", "ring"]);
  if (allowed.size) legend.push([now.meaning === "weight" ? "its keys, by weight" : now.meaning ? `its keys, with their ${now.meaning}s` : "its keys", "key-fill"]);
  if (isSlab) legend.push(["its tile", "query", "line"], ["slab of keys", "key", "dashed"]);
  if (isDilated) legend.push([run.formulation === "unfold" ? "dilation group" : "same dilation group", "group"]);
  $("legend").innerHTML = legendOf(legend);
  let text = `<div class="layout">${grid(cell, marks)}</div>`;
  if (isPulled) text += `<div class="apart"><h3>groups pulled apart</h3>${grid(cell, marks, true)}</div>`;
  if (output) text += `<div class="outputs"><h3>output${isPulled ? ", put back" : ""}, as it fills</h3><div class="output">${grid(filled, [ring(query, "ring")])}</div></div>`;
  return text;
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
  const {length, axis, query, token, group = [], leader, start, stop, keys = [], tile, slab} = now, lift = 22;
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
  $("legend").innerHTML = legendOf(legend);
  let all = "";
  if (token !== undefined) {  // a query of the layout asks for this window
    all = `<div class="outputs"><h3>${run.layout.length === 1 ? "the query" : `axis ${axis}, the ${axis === 0 ? "row" : "column"} of the query`}</h3><div class="output">${grid(() => ({}), [ring(token, "ring")])}</div></div>`;
  } else if (axis !== undefined) {
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
