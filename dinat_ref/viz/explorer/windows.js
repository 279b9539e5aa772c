// ---------------------------------------------------------------- windows, as Python's tables have them

// A layer is one table for each axis: the first key and the number of keys of every position; keys are `step` apart.
function layer(name, step = 1) {
  const tables = data.layout.map(length => data.tables[length][name]);
  return tables.every(Boolean) ? {tables, step} : null;
}
const neighborhood = d => layer(`na,${state.k},${d},${state.s},${state.c}`, d);
const PATTERNS = {
  dina: {title: () => `DiNA${ofLayers(state.d)}`, layers: () => state.d.map(neighborhood)},
  na: {title: () => `NA${ofLayers(state.d.map(() => 1))}`, layers: () => state.d.map(() => neighborhood(1))},
  swin: {title: () => state.mode === "field" ? "Swin, shifted in turn" : state.layer % 2 ? "Swin's blocks" : "Swin's blocks, shifted",
    layers: () => state.d.map((_, n) => layer(`swin,${state.k},${n % 2}`))},
  full: {title: () => "Full attention", layers: () => state.d.map(() => layer("full"))},
};
const ofLayers = d => state.mode === "field" ? ` ${d.join("-")}` : `, dilation ${d[state.layer - 1]}`;
const SIDE_BY_SIDE = ["na", "dina", "swin", "full"];

const axisKeys = ({tables, step}, axis, i) => Array.from({length: tables[axis][i][1]}, (_, n) => tables[axis][i][0] + n * step);
const product = (rows, columns) => rows.flatMap(row => columns.map(column => row * Y + column));
const keysOf = (made, [row, column]) => product(axisKeys(made, 0, row), axisKeys(made, 1, column));
function queriesOf(made, token) {  // who has a token in the window
  const [rows, columns] = token.map((j, axis) => made.tables[axis].map((_, i) => i).filter(i => axisKeys(made, axis, i).includes(j)));
  return product(rows, columns);
}
function axisField(layers, axis, i) {  // the number of layers through which each position of an axis is first seen
  const reached = new Map([[i, 0]]);
  for (let count = 1; count <= layers.length; count++) {
    let seen = new Set([i]);
    for (const made of layers.slice(0, count).reverse()) seen = new Set([...seen].flatMap(j => axisKeys(made, axis, j)));
    for (const j of seen) if (!reached.has(j)) reached.set(j, count);
  }
  return reached;
}
function fieldOf(layers, [row, column]) {  // a token is reached when it is reached on both axes
  const down = axisField(layers, 0, row), across = axisField(layers, 1, column);
  return new Map([...down].flatMap(([r, a]) => [...across].map(([c, b]) => [r * Y + c, Math.max(a, b)])));
}
function isLine(made, axis, i) {  // whether a block ends before position i: contiguous windows that share no key
  const [[first, count], [next]] = [made.tables[axis][i - 1], made.tables[axis][i]];
  return made.step === 1 && count > 1 && next >= first + count;
}
