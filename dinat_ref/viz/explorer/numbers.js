// ---------------------------------------------------------------- the arithmetic of one query

function unpack(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}
const QUERIES = unpack(data.query), KEYS = unpack(data.key), VALUES = unpack(data.value), D = QUERIES.length / N;

function attend(made, token, isBiased) {
  const query = token[0] * Y + token[1], keys = keysOf(made, token);
  const dots = keys.map(key => {
    let sum = 0;
    for (let n = 0; n < D; n++) sum += QUERIES[query * D + n] * KEYS[key * D + n];
    return sum;
  });
  const steps = keys.map(key => [(Math.floor(key / Y) - token[0]) / made.step, (key % Y - token[1]) / made.step]);
  const bias = steps.map(([down, right]) => isBiased ? data.bias[Math.abs(down)] + data.bias[Math.abs(right)] : 0);
  const scores = dots.map((dot, n) => dot + bias[n]), most = Math.max(...scores);
  const powers = scores.map(score => Math.exp(score - most)), total = powers.reduce((a, b) => a + b, 0);
  const weights = powers.map(power => power / total);
  const output = [0, 1, 2].map(channel => keys.reduce((sum, key, n) => sum + weights[n] * VALUES[key * 3 + channel], 0));
  return {query, keys, steps, dots, bias, scores, most, total, weights, output};
}
const effective = weights => Math.exp(-weights.reduce((sum, w) => sum + (w > 0 ? w * Math.log(w) : 0), 0));

// ---------------------------------------------------------------- the same, written out

let picked = null;  // the key whose line is written out
const minus = text => text.replace("-", "−");
const plain = (number, places = 2) => minus(number.toFixed(places).replace(/^-?0\.0+$/, "0"));
const brief = number => Math.abs(number) >= 9.95 ? minus(number.toFixed(0)) : plain(number, 1);
const weightText = weight => weight < .0005 ? "0" : weight > .9995 ? "1" : weight.toFixed(3).slice(1);
const rgb = numbers => `rgb(${numbers.map(number => Math.round(number * 255)).join()})`;
const valueOf = token => [0, 1, 2].map(channel => VALUES[token * 3 + channel]);
const swatch = numbers => `<i class="swatch" style="background:${rgb(numbers)}"></i>(${numbers.map(number => plain(number)).join(", ")})`;

function numberTable(title, found, numbers, write, columns) {
  const low = Math.min(...numbers), span = Math.max(...numbers) - low || 1;
  const cell = (key, n) => `<td data-key="${key}" class="${key === found.query ? "own" : ""} ${key === picked ? "picked" : ""}"`
    + ` style="background:rgba(43,140,255,${((numbers[n] - low) / span * .7).toFixed(2)})">${write(numbers[n])}</td>`;
  const rows = [];
  for (let n = 0; n < numbers.length; n += columns) rows.push(`<tr>${found.keys.slice(n, n + columns).map((key, at) => cell(key, n + at)).join("")}</tr>`);
  return `<div><h3>${title}</h3><table class="grid k${columns}">${rows.join("")}</table></div>`;
}
function keyLine(found, n) {
  const key = found.keys[n], place = [Math.floor(key / Y), key % Y], row = numbers => numbers.map(number => `<td>${plain(number)}</td>`).join("");
  const q = [...QUERIES.slice(found.query * D, (found.query + 1) * D)], k = [...KEYS.slice(key * D, (key + 1) * D)];
  const [down, right] = found.steps[n], steps = `${Math.abs(down)} ${down < 0 ? "up" : "down"}, ${Math.abs(right)} ${right < 0 ? "left" : "right"}`;
  return `<div id="line"><h3>the key (${place.join(", ")}), ${key === found.query ? "the query itself" : steps}</h3>
    <div class="wide"><table class="vectors"><tr><th>q</th>${row(q)}</tr><tr><th>k</th>${row(k)}</tr><tr><th>q k</th>${row(q.map((number, at) => number * k[at]))}</tr></table></div>
    <p><b>q · k</b> = their sum = ${plain(found.dots[n])}<br>
    <b>score</b> = ${plain(found.dots[n])} + bias ${plain(found.bias[n])} = ${plain(found.scores[n])}<br>
    <b>softmax</b> = exp(${plain(found.scores[n])} − largest ${plain(found.most)}) / ${plain(found.total)} = ${found.weights[n].toFixed(4)}<br>
    <b>value</b> ${swatch(valueOf(key))}, counted ${found.weights[n].toFixed(4)} times</p></div>`;
}
function numbersOf(made) {  // the tables of one query in one layer
  if (!made) return "";
  const found = attend(made, state.token, state.bias), columns = axisKeys(made, 1, state.token[1]).length;
  const others = found.weights.map((weight, n) => found.keys[n] === found.query && found.keys.length > 1 ? -1 : weight);
  if (!found.keys.includes(picked)) picked = found.keys[others.indexOf(Math.max(...others))];
  return numberTable("q · k", found, found.dots, brief, columns) + numberTable("+ bias", found, found.bias, brief, columns)
    + numberTable("softmax", found, found.weights, weightText, columns)
    + `<div id="output"><h3>output = Σ softmax · value</h3><p>${swatch(found.output)}<br>the query's own value ${swatch(valueOf(found.query))}</p></div>`
    + keyLine(found, found.keys.indexOf(picked));
}
