// ---------------------------------------------------------------- settings: the controls, the link, the tour

const form = $("controls");
const panes = Object.fromEntries(Object.keys(PATTERNS).map(name => [name, new Pane(name)]));
let pointed = null;  // the token under the mouse
let stop = 0, saving = null;

const integer = (text, low, high, otherwise) => {
  const number = parseInt(text);
  return Number.isNaN(number) ? otherwise : Math.min(Math.max(number, low), high);
};
const inside = token => token.map((i, axis) => Math.min(Math.max(i, 0), data.layout[axis] - 1));
const among = (value, options, otherwise) => options.includes(value) ? value : otherwise;
function read(words) {  // settings from a link; what is missing, or not legal, is as at the stop of the tour
  const first = data.stops[stop].settings, flag = name => among(words[name], ["0", "1"], String(first[name])) === "1" ? 1 : 0;
  const d = (words.d || "").split("-").map(Number).filter(d => data.options.d.includes(d));
  const dilations = d.length ? d.slice(0, data.most_layers) : first.d;
  return {
    token: inside(first.token.map((i, axis) => integer((words.token || "").split(",")[axis], 0, N, i))),
    k: among(+words.k, data.options.k, first.k),
    d: dilations,
    s: among(+words.s, data.options.s, first.s),
    c: flag("c"),
    layer: integer(words.layer, 1, dilations.length, Math.min(first.layer, dilations.length)),
    mode: among(words.mode, ["window", "inverse", "attention", "field"], first.mode),
    view: among(words.view, ["one", "side"], first.view),
    bias: flag("bias"),
    numbers: flag("numbers"),
  };
}
const written = settings => Object.fromEntries(Object.entries(settings).map(([name, value]) => [name, name === "d" ? value.join("-") : String(value)]));
function remember() {
  clearTimeout(saving);
  const words = new URLSearchParams({...written(state), stop: stop + 1}).toString().replaceAll("%2C", ",");
  saving = setTimeout(() => history.replaceState(null, "", "#" + words), 150);  // browsers refuse many changes a second
}
function recall() {
  const words = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  stop = integer(words.stop, 1, data.stops.length, 1) - 1;
  state = read(words);
  show();
}
function change(settings) { state = {...state, ...settings}; show(); remember(); }
function pin(token) { change({token: inside(token)}); }
function hover(token, pane) {
  const key = token && String(token) !== String(state.token) ? token : null;
  if (String(key) === String(pointed)) return;
  pointed = key;
  Object.values(panes).forEach(other => other.element.isConnected && other.draw());
  const n = key && key[0] * Y + key[1];
  $("pointer").textContent = !key ? "" : `under the mouse: (${key.join(", ")})` + (!pane.cells || state.mode === "inverse" ? ""
    : !pane.cells.has(n) ? state.mode === "field" ? ", never seen" : ", no key"
    : state.mode === "field" ? `, seen after layer ${pane.cells.get(n)}` : state.mode === "attention" ? `, weight ${pane.cells.get(n).toFixed(4)}` : ", a key");
}
function visit(number) {
  stop = (number + data.stops.length) % data.stops.length;
  pointed = null;
  change(data.stops[stop].settings);
}

function showTour() {
  const {title, text, settings} = data.stops[stop], isThere = JSON.stringify(written(settings)) === JSON.stringify(written({...settings, ...state}));
  $("tour").classList.toggle("left", !isThere);
  $("place").textContent = `${stop + 1} / ${data.stops.length}`;
  $("title").textContent = title;
  $("caption").textContent = text;
}
function showControls() {
  for (const name of ["k", "s"]) form[name].value = state[name];
  form.c.checked = state.c; form.bias.checked = state.bias; form.view.checked = state.view === "side"; form.mode.value = state.mode;
  const shortest = Math.min(X, Y);
  $("layers").innerHTML = state.d.map((d, n) => `<div class="layer ${state.mode === "field" || n === state.layer - 1 ? "chosen" : ""}">`
    + `<label><input type="radio" name="layer" value="${n + 1}" ${n === state.layer - 1 ? "checked" : ""} ${state.mode === "field" ? "disabled" : ""}><span>layer ${n + 1}</span></label>`
    + `<select name="d${n}" aria-label="dilation of layer ${n + 1}">${data.options.d.map(option => `<option ${option === d ? "selected" : ""} ${option * state.k > shortest ? "disabled" : ""}>${option}</option>`).join("")}</select></div>`).join("");
  for (const option of form.s.options) option.disabled = +option.value > state.k;
  for (const button of $("presets").children) button.classList.toggle("chosen", button.value === state.d.join("-"));
  $("fewer").disabled = state.d.length === 1; $("more").disabled = state.d.length === data.most_layers;
}
function show() {
  const names = state.view === "side" ? SIDE_BY_SIDE : ["dina"], shown = names.map(name => panes[name].element);
  if ([...$("panes").children].some((element, n) => element !== shown[n]) || $("panes").children.length !== shown.length) $("panes").replaceChildren(...shown);
  $("panes").className = state.view;
  showTour(); showControls();
  $("numbers").open = !!state.numbers;
  $("tables").innerHTML = state.numbers ? numbersOf(PATTERNS.dina.layers()[state.layer - 1]) : "";
  names.forEach(name => panes[name].draw());
  $("says").textContent = panes.dina.says();
  $("legend").innerHTML = legend(panes.dina);
}

for (const name of ["k", "s"]) form[name].append(...data.options[name].map(value => new Option(value, value)));
$("presets").innerHTML = data.presets.map(d => `<button type="button" value="${d.join("-")}">${d.join("-")}</button>`).join("");
$("presets").addEventListener("click", event => {
  if (event.target.value) change({d: event.target.value.split("-").map(Number), layer: Math.min(state.layer, event.target.value.split("-").length)});
});
$("more").addEventListener("click", () => change({d: [...state.d, 1]}));
$("fewer").addEventListener("click", () => change({d: state.d.slice(0, -1), layer: Math.min(state.layer, state.d.length - 1)}));
form.addEventListener("change", event => {
  const {name, value, checked} = event.target;
  if (/^d\d$/.test(name)) change({d: state.d.map((d, n) => n === +name[1] ? +value : d)});
  else if (name === "view") change({view: checked ? "side" : "one"});
  else if (name === "c" || name === "bias") change({[name]: +checked});
  else change({[name]: name === "mode" ? value : +value});
});
form.addEventListener("submit", event => event.preventDefault());
$("before").addEventListener("click", () => visit(stop - 1));
$("after").addEventListener("click", () => visit(stop + 1));
$("title").addEventListener("click", () => visit(stop));
$("numbers").addEventListener("toggle", () => { if (+$("numbers").open !== state.numbers) change({numbers: +$("numbers").open}); });
$("tables").addEventListener("click", event => {
  const {key} = event.target.dataset;
  if (key !== undefined) { picked = +key; show(); }
});
addEventListener("hashchange", recall);
addEventListener("resize", show);
$("panes").style.setProperty("--aspect", Y / X);
photo.onload = () => show();
recall();
photo.src = data.photo;
