// Choose a dilation for each layer, as a reader does.
const changed = control => control.dispatchEvent(new Event("change", {bubbles: true}));
const set = (name, value) => { form[name].value = value; changed(form[name]); };
const choose = (name, value) => document.querySelector(`[name=${name}][value="${value}"]`).click();
const press = id => $(id).click();
pin([6, 6]); set("k", 3);
press("fewer"); press("fewer"); found.one = state.d;
press("more"); press("more");
set("d0", 1); set("d1", 4); set("d2", 1); found.three = state.d;
choose("layer", 2); found.second = [...panes.dina.cells.keys()];
choose("mode", "field"); found.field = [...panes.dina.cells.keys()].sort((a, b) => a - b);
press("more"); found.four = state.d; found.most = $("more").disabled;
document.querySelector("#presets button").click(); found.preset = state.d;
await new Promise(done => setTimeout(done, 300));
found.hash = location.hash;
found.disabled = [...form.d0.options].filter(option => option.disabled).map(option => +option.value);
