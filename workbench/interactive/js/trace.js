// Heat map of indirect effects: tokens downwards, layers to the right; a cell that is picked sends its layer.
views.trace = (root, data, send, state) => {
  const kinds = { state: "Hidden states", mlp: "MLPs", attention: "Attentions" };
  const shown = data.kinds.find(({ name }) => name === state.kind) ?? data.kinds[0];
  const strongest = Math.max(1, ...data.kinds.flatMap(({ effects }) => effects.flat().map(Math.abs)));
  const [first, last] = data.subject;
  const layers = shown.effects[0].length;
  const picked = state.picked ?? data.layer;
  const signed = (effect) => `${effect < 0 ? "−" : "+"}${(Math.abs(effect) / 10).toFixed(1)} points`;
  const redraw = () => draw(root, { kind: "trace", data }, send, state);
  const note = h("div", { class: "wb-trace-note", "aria-live": "polite" });
  const describe = (row, layer) => `layer ${layer}, ${visible(data.tokens[row])}: ${signed(shown.effects[row][layer])}`;

  const pick = (row, layer) => {
    state.picked = layer;
    redraw();
    send({ layer, position: row });
  };
  const cellOf = (row, layer) => {
    const cell = h("td", {
      role: "gridcell", tabindex: row === last && layer === (picked ?? 0) ? "0" : "-1", "data-row": row, "data-column": layer,
      "data-key": `cell-${row}-${layer}`, "aria-label": describe(row, layer), "aria-selected": String(layer === picked),
      title: describe(row, layer), class: layer === picked ? "wb-trace-picked" : null,
      click: () => pick(row, layer),
      keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(row, layer); } },
      focus: () => { note.textContent = describe(row, layer); },
      mouseenter: () => { note.textContent = describe(row, layer); },
    });
    cell.style.setProperty("background-color", diverging(shown.effects[row][layer] / strongest));
    return cell;
  };
  const toggles = data.kinds.map(({ name }) =>
    h("button", {
      type: "button", "aria-pressed": String(name === shown.name), "data-key": `kind-${name}`,
      click: () => { state.kind = name; redraw(); },
    }, kinds[name] ?? name));
  const columns = Array.from({ length: layers }, (_, layer) => layer);
  const grid = h("table", {
    role: "grid", class: "wb-trace-grid", "aria-label": "Indirect effect of each token and layer on the answer",
    keydown: (event) => moveInGrid(event, root),
  },
  h("thead", null, h("tr", { role: "row" }, h("th", { scope: "col" }, "token"),
    columns.map((layer) => h("th", { scope: "col" }, layer % 5 === 0 ? String(layer) : "")))),
  h("tbody", null, data.tokens.map((token, row) =>
    h("tr", { role: "row" },
      h("th", { scope: "row", class: row >= first && row <= last ? "wb-trace-subject" : null }, visible(token)),
      columns.map((layer) => cellOf(row, layer))))));

  const what = shown.window === 1 ? "the state after one layer" : `what ${kinds[shown.name]} add in ${shown.window} layers around each`;
  note.textContent = picked === null || picked === undefined ? "A click on a cell sets the layer of the method." : `Layer ${picked} is marked.`;
  root.append(
    h("div", { class: "wb-trace-bar" }, toggles),
    h("div", { class: "wb-trace-about" },
      `P(${visible(data.answer)}) is ${percent(shown.clean)} in the clean run and ${percent(shown.corrupted)} with noise on the subject; ` +
      `restored: ${what}. Orange raises it, up to ${(strongest / 10).toFixed(1)} points; blue lowers it.`),
    h("div", { class: "wb-trace-scroll" }, grid), note);
};
