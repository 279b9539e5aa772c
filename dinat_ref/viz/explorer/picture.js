// ---------------------------------------------------------------- a photo with its tokens

const photo = new Image();
const COLORS = {window: ["rgba(64,156,255,.42)", "#2b8cff"], inverse: ["rgba(0,190,130,.45)", "#00b884"]};
const QUERY = "#ff7a1a";
const color = share => data.ramp[Math.max(0, Math.min(data.ramp.length - 1, Math.floor(share * data.ramp.length)))];
const fieldColor = count => count === 0 ? QUERY : color((state.d.length - count + .6) / (state.d.length + .2));

class Pane {  // one photo, and what one kind of attention does with the query
  constructor(name) {
    this.name = name;
    this.element = document.createElement("figure");
    this.element.innerHTML = `<figcaption></figcaption><canvas tabindex="0" role="img" aria-describedby="says"></canvas>`;
    this.canvas = this.element.querySelector("canvas");
    this.canvas.addEventListener("pointerdown", event => {
      if (event.pointerType !== "mouse" || event.button !== 0) return;  // a finger may be about to scroll
      this.canvas.setPointerCapture(event.pointerId);
      pin(this.tokenAt(event));
    });
    this.canvas.addEventListener("click", event => pin(this.tokenAt(event)));
    this.canvas.addEventListener("pointermove", event => {
      if (event.pointerType !== "mouse") return;
      if (event.buttons & 1) pin(this.tokenAt(event)); else hover(this.tokenAt(event), this);
    });
    this.canvas.addEventListener("pointerleave", () => hover(null, this));
    this.canvas.addEventListener("keydown", event => {
      const step = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]}[event.key];
      if (step) { event.preventDefault(); pin(state.token.map((i, axis) => i + step[axis])); }
    });
  }
  tokenAt(event) {
    const area = this.canvas.getBoundingClientRect();
    return inside([(event.clientY - area.top) / area.height * X, (event.clientX - area.left) / area.width * Y].map(Math.floor));
  }
  find() {  // the highlighted tokens, each with an amount; null where the settings are not legal
    const layers = PATTERNS[this.name].layers(), made = layers[state.layer - 1];
    this.layer = made; this.cells = this.numbers = null;
    if (state.mode === "field" ? layers.includes(null) : !made) return;
    if (state.mode === "field") this.cells = fieldOf(layers, state.token);
    else if (state.mode === "inverse") this.cells = new Map(queriesOf(made, state.token).map(n => [n, 1]));
    else {
      this.numbers = attend(made, state.token, state.bias);
      const amounts = state.mode === "attention" ? this.numbers.weights : this.numbers.keys.map(() => 1);
      this.cells = new Map(this.numbers.keys.map((n, at) => [n, amounts[at]]));
    }
  }
  draw() {
    this.find();
    const pen = this.canvas.getContext("2d"), sharp = Math.min(devicePixelRatio || 1, 2);
    const size = Math.max(2, Math.round((this.canvas.clientWidth || 560) * sharp / Y)), own = state.token[0] * Y + state.token[1];
    if (this.canvas.width !== Y * size) { this.canvas.width = Y * size; this.canvas.height = X * size; }
    const [width, height] = [this.canvas.width, this.canvas.height], at = n => [(n % Y) * size, Math.floor(n / Y) * size];
    pen.globalAlpha = 1; pen.drawImage(photo, 0, 0, width, height);
    pen.fillStyle = this.cells ? "rgba(18,20,24,.62)" : "rgba(18,20,24,.8)"; pen.fillRect(0, 0, width, height);
    const most = Math.max(...[...this.cells || []].map(([n, amount]) => n === own ? 0 : amount), 1e-9);
    const [sx, sy] = [photo.naturalWidth / Y, photo.naturalHeight / X];
    for (const [n, amount] of this.cells || []) {
      const [x, y] = at(n);
      pen.globalAlpha = 1; if (photo.naturalWidth) pen.drawImage(photo, x / size * sx, y / size * sy, sx, sy, x, y, size, size);
      pen.globalAlpha = state.mode === "attention" ? .86 : state.mode === "field" ? .62 : 1;
      pen.fillStyle = state.mode === "attention" ? color(Math.min(1, amount / most)) : state.mode === "field" ? fieldColor(amount) : COLORS[state.mode][0];
      pen.fillRect(x, y, size, size);
    }
    this.most = most;
    pen.globalAlpha = 1; this.lines(pen, size, width, height); this.rim(pen, size, at);
    const [x, y] = at(own);
    const grown = Math.max(0, 7 * sharp - size) / 2, side = size + 2 * grown;  // a token may be too small to be found
    pen.fillStyle = QUERY; pen.fillRect(x - grown, y - grown, side, side);
    pen.strokeStyle = "#fff"; pen.lineWidth = 2 * sharp; pen.strokeRect(x - grown - sharp / 2, y - grown - sharp / 2, side + sharp, side + sharp);
    const ring = state.numbers && this.name === "dina" ? picked : null;  // the key whose line is written out
    if (ring !== null && ring !== own) { const [kx, ky] = at(ring); pen.strokeRect(kx, ky, size, size); }
    if (pointed) { const [px, py] = at(pointed[0] * Y + pointed[1]); pen.lineWidth = sharp; pen.strokeRect(px + .5, py + .5, size - 1, size - 1); }
    this.tell();
  }
  lines(pen, size, width, height) {  // the grid of tokens, and where the blocks of a blocked attention end
    for (const [axis, length] of [X, Y].entries())
      for (let i = 1; i < length; i++) {
        const isBlock = this.layer && state.mode !== "field" && isLine(this.layer, axis, i);
        pen.fillStyle = isBlock ? "rgba(255,255,255,.85)" : "rgba(255,255,255,.16)";
        const thick = isBlock ? Math.max(2, size / 8) : 1;
        if (axis === 0) pen.fillRect(0, i * size - thick / 2, width, thick); else pen.fillRect(i * size - thick / 2, 0, thick, height);
      }
  }
  rim(pen, size, at) {  // the outline of what is highlighted
    if (!this.cells || !COLORS[state.mode]) return;
    pen.fillStyle = COLORS[state.mode][1];
    const thick = Math.max(1, size / 7);
    for (const n of this.cells.keys()) {
      const [x, y] = at(n), column = n % Y;
      if (!this.cells.has(n - Y)) pen.fillRect(x, y, size, thick);
      if (!this.cells.has(n + Y)) pen.fillRect(x, y + size - thick, size, thick);
      if (column === 0 || !this.cells.has(n - 1)) pen.fillRect(x, y, thick, size);
      if (column === Y - 1 || !this.cells.has(n + 1)) pen.fillRect(x + size - thick, y, thick, size);
    }
  }
  tell() {
    this.element.querySelector("figcaption").innerHTML = state.view === "one" ? "" : `<b>${PATTERNS[this.name].title()}</b> ${this.brief()}`;
    this.canvas.setAttribute("aria-label", `${PATTERNS[this.name].title()}: ${this.says()}`);
    this.canvas.dataset.cells = JSON.stringify(this.cells && [...this.cells.keys()].sort((a, b) => a - b));
  }
  brief() { return this.cells ? `${this.cells.size} tokens` : "does not fit"; }
  says() {
    const {token, k, d, mode} = state, where = `Token (${token.join(", ")})`, count = this.cells && this.cells.size;
    const shortest = Math.min(X, Y), share = `${count === N ? "all" : (100 * count / N).toFixed(1) + "\u00a0%"} of the photo`;
    if (!this.cells) {
      const wide = (mode === "field" ? Math.max(...d) : d[state.layer - 1]) * k;
      return wide > shortest ? `Not legal here: kernel size × dilation is ${wide}, and the shorter axis has ${shortest} tokens.`
        : `Not legal here: stride ${state.s} exceeds kernel size ${k}.`;
    }
    const times = count === 1 ? "1 token" : `${count} tokens`, of = state.d.length > 1 ? ` in layer ${state.layer}` : "";
    if (mode === "window") return `${where} attends ${times}${of}, ${share}.`;
    if (mode === "inverse") return `${where} is attended by ${times}${of}, ${share}.`;
    if (mode === "field") return `${where} knows ${times} after ${d.length} layer${d.length > 1 ? "s" : ""} of dilation ${d.join("-")}: ${share}.`;
    return `${where} looks at ${effective(this.numbers.weights).toFixed(1)} of its ${times}, effectively.`;
  }
}
function legend(pane) {
  const box = (fill, text) => `<span><i style="background:${fill}"></i>${text}</span>`;
  const parts = [box(QUERY, "query")];
  if (state.mode === "window") parts.push(box("#2b8cff", "its keys"));
  if (state.mode === "inverse") parts.push(box("#00b884", "queries that attend it"));
  if (state.mode === "field") parts.push(`<span>known after layer ${state.d.map((_, n) => box(fieldColor(n + 1), n + 1)).join("&nbsp; ")}</span>`);
  if (state.mode === "attention") parts.push(`<span class="scale">weight 0 <i style="background:linear-gradient(90deg,${data.ramp.filter((_, n) => n % 7 === 0).join()})"></i> <output>${(pane.most || 0).toFixed(3)}</output>, the most beside its own</span>`);
  if (state.view === "side" && state.mode !== "field") parts.push(`<span><i class="line"></i>blocks end</span>`);
  return parts.join("");
}
