// A slider of the browser's own, which the keyboard and screen readers can use.
let count = 0;

function render({ model, el }) {
  const id = `wb-range-${(count += 1)}`;
  const label = document.createElement("label");
  const input = document.createElement("input");
  const shown = document.createElement("output");
  label.textContent = model.get("label");
  label.htmlFor = shown.htmlFor = input.id = id;
  input.type = "range";
  el.classList.add("wb-range");
  el.append(label, input, shown);
  const show = () => {
    shown.textContent = `${input.value}${model.get("unit")}`;
  };
  const update = () => {
    for (const name of ["min", "max", "step"]) input[name] = model.get(name);
    input.disabled = model.get("disabled");
    input.value = model.get("value");
    show();
  };
  input.addEventListener("input", show);
  input.addEventListener("change", () => {
    model.set("value", Number(input.value));
    model.save_changes();
  });
  model.on("change", update);
  update();
  return () => model.off("change", update);
}

export default { render };
