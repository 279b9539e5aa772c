// A mouse, a finger and the arrow keys on the photo.
await settled();
const canvas = document.querySelector("#panes canvas");
canvas.setPointerCapture = () => {};  // there is no such pointer
function send(type, [row, column], more = {}) {
  const area = canvas.getBoundingClientRect();
  const place = {clientX: area.left + (column + .5) / Y * area.width, clientY: area.top + (row + .5) / X * area.height};
  canvas.dispatchEvent(new PointerEvent(type, {bubbles: true, pointerId: 1, pointerType: "mouse", button: 0, ...place, ...more}));
}
send("pointerdown", [3, 4], {buttons: 1}); send("pointerup", [3, 4]); send("click", [3, 4]);
found.clicked = state.token;
for (const token of [[4, 5], [7, 9], [11, 15]]) send("pointermove", token, {buttons: 0});
found.moved = state.token; found.under = $("pointer").textContent; found.kept = canvas.dataset.cells;
send("pointerleave", [11, 15]);
form.k.value = 4; form.k.dispatchEvent(new Event("change", {bubbles: true}));
found.controls = state.token; found.k = state.k;
send("pointerdown", [3, 4], {buttons: 1}); send("pointermove", [5, 6], {buttons: 1});
found.dragged = state.token;
const finger = {pointerType: "touch", buttons: 1};
send("pointerdown", [9, 9], finger); send("pointermove", [8, 8], finger);
found.touched = state.token;  // it may be about to scroll
send("click", [8, 8], {pointerType: "touch"});
found.tapped = state.token;
for (const key of ["ArrowUp", "ArrowLeft"]) canvas.dispatchEvent(new KeyboardEvent("keydown", {key}));
found.keys = state.token;
found.action = getComputedStyle(canvas).touchAction;
