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
const queryOf = ({length, token, query}) => length === undefined ? query : token;  // on the layout: a scene with a length is one of an axis
function subject(n) {
  const {axis, query, tiles} = scene(n), token = queryOf(scene(n));
  if (run.formulation === "window") return `${axis} ${query}`;
  return token === undefined && tiles === undefined ? null : `${token} ${tiles}`;
}
function queryAt(n = at) {  // the query that the picture is about
  const {queries} = scene(n), query = queryOf(scene(n));
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
  const about = n => queryOf(scene(n)) === token || (scene(n).tiles !== undefined && value(scene(n).tiles).numbers[token] >= 0);
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
