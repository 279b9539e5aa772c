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
