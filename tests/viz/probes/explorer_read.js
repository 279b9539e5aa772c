// Go through links and read what each photo highlights, and the numbers of the query.
found.answers = links.map(words => {
  history.replaceState(null, "", "#" + words);
  recall();
  const shown = [...document.querySelectorAll("#panes canvas")].map(canvas => JSON.parse(canvas.dataset.cells));
  const fields = SIDE_BY_SIDE.map(name => state.mode === "field" && panes[name].cells ? [...panes[name].cells] : null);
  const made = PATTERNS.dina.layers()[state.layer - 1];
  return {shown, fields, says: $("says").textContent, numbers: made && attend(made, state.token, state.bias), state};
});
